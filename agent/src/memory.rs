//! What this machine has left of memory.

/// Free memory in bytes, with what the kernel would give up for it; none where `/proc/meminfo` does not say.
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_that_runs_tests_has_some_memory_left() {
        assert!(super::available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
