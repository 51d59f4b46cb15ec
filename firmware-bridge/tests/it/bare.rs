//! The example firmware, which has its own panic handler: it links only if nothing below it brings the standard library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Bare targets that firmware is made for, the smallest first.
const BARE: [&str; 4] = [
    "thumbv6m-none-eabi",
    "thumbv7em-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "x86_64-unknown-none",
];

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Whether the target's core library is installed.
fn is_installed(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    let folder = output(rustc.args(["--print", "target-libdir", "--target", target]));
    let is_core = |name: PathBuf| {
        name.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libcore-"))
    };
    folder
        .and_then(|folder| std::fs::read_dir(folder.trim()).ok())
        .is_some_and(|mut files| files.any(|file| file.is_ok_and(|file| is_core(file.path()))))
}

fn host() -> String {
    let about = output(Command::new("rustc").arg("-vV")).unwrap();
    about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

#[test]
fn the_example_firmware_links_without_the_standard_library() {
    let bare: Vec<&str> = BARE.into_iter().filter(|target| is_installed(target)).collect();
    if bare.is_empty() {
        eprintln!(
            "NOT BUILT for a bare target: no core library of {BARE:?} is installed; built for this machine alone"
        );
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("examples/bare");
    let host = host();
    for target in bare.into_iter().chain([host.as_str()]) {
        let target_dir = tempfile::tempdir().unwrap();
        let run = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["rustc", "--quiet", "--locked", "--offline", "--target", target])
            .args(["--", "-D", "warnings"])
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", target_dir.path())
            .env("RUSTFLAGS", "")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{target}:\n{text}");
    }
}
