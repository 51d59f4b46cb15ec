//! Settings of the C allocator, which libtorch and everything else share.

/// Freed blocks of this size are returned to the system immediately.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RETURNED: i32 = 1 << 20;

/// Returns large freed blocks to the system. Call before starting a second thread.
///
/// glibc raises this threshold up to 32 MiB as blocks are freed; the memory of encoder layers and
/// intermediate results would then stay with the process, 0.27 GiB at full shape
/// (docs/performance.md).
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
        // From here on, glibc would keep blocks of up to this size.
        drop(black_box(vec![1_u8; 30 * MIB]));
        let before = resident();
        let blocks: Vec<Vec<u8>> = (0..64).map(|_| black_box(vec![1_u8; 2 * MIB])).collect();
        assert!(resident() > before + 100 * MIB);
        // A block in use at the end of the heap pins everything before it.
        let last = black_box(vec![1_u8; MIB / 4]);
        drop(blocks);
        assert!(resident() < before + 50 * MIB);
        drop(last);
    }
}
