//! Real peers as small builders: sounds, pictures, checkpoints, a broker, and a daemon with a scripted or the bundled model.

pub mod broker;
pub mod contract;
pub mod daemon;
pub mod media;
pub mod process;
pub mod tool;

use std::io::Write as _;
use std::path::PathBuf;

use outpost_runtime::device::DeviceChoice;

/// The root of the repository.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where tests compute: what `OUTPOST_TEST_DEVICE` names, else the CPU.
///
/// # Panics
/// If it names no device.
#[expect(
    clippy::expect_used,
    reason = "a test on another device than the one asked for proves nothing"
)]
pub fn device() -> DeviceChoice {
    let named = std::env::var("OUTPOST_TEST_DEVICE").ok();
    named.map_or(DeviceChoice::Cpu, |name| name.parse().expect("OUTPOST_TEST_DEVICE"))
}

/// Says that a test checks nothing, because a peer is missing.
///
/// # Panics
/// If `OUTPOST_REQUIRE_PEERS` is `1`, as where all peers should be installed.
pub fn skip(missing: &str) {
    let is_required = std::env::var_os("OUTPOST_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!is_required, "{missing}, and OUTPOST_REQUIRE_PEERS is 1");
    writeln!(std::io::stderr(), "SKIPPED: {missing}").ok();
}
