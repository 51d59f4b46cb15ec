//! The C library's allocator, which libtorch, the encoders and everything else share.

/// Freed blocks of this many bytes go back to the system at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETURNED: i32 = 1 << 20;

/// Has large freed blocks returned to the system. To be called before there is a second thread.
///
/// By itself glibc raises the size from which it does so, up to 32 MiB, as blocks are freed: the room of an encoder's layers
/// and of a prompt's intermediate results then stays with the process, 0.27 GiB at full shape (docs/performance.md).
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(
        unsafe_code,
        reason = "nothing else stops glibc from raising it, and a device lacks that memory"
    )
)]
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` touches no memory but the allocator's own numbers, under its lock; its one condition is that no
        // other thread is inside it for the first time, which the caller sees to.
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, RETURNED) } == 1;
        debug_assert!(is_set, "the bound is within what glibc allows");
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::hint::black_box;

    use super::*;
    use outpost_agent_core::memory;

    const MIB: usize = 1 << 20;

    fn resident() -> usize {
        memory::resident().expect("Linux tells it") as usize
    }

    #[test]
    fn large_blocks_leave_the_process_when_they_are_freed() {
        return_large_blocks();
        // By itself glibc would keep blocks of up to this size from now on.
        drop(black_box(vec![1_u8; 30 * MIB]));
        let before = resident();
        let blocks: Vec<Vec<u8>> = (0..64).map(|_| black_box(vec![1_u8; 2 * MIB])).collect();
        assert!(resident() > before + 100 * MIB);
        // Something in use at the heap's end keeps all before it in the heap.
        let last = black_box(vec![1_u8; MIB / 4]);
        drop(blocks);
        assert!(resident() < before + 50 * MIB);
        drop(last);
    }
}
