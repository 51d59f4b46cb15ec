//! The system's packages.

use crate::process;
use anyhow::{Result, bail};
use std::process::Command;

struct Package {
    /// As Debian calls it.
    name: &'static str,
    purpose: &'static str,
    /// A command that succeeds where another system has it under its own name.
    probe: &'static str,
}

const PACKAGES: [Package; 6] = [
    Package {
        name: "g++",
        purpose: "a C++17 compiler, for the glue between Rust and libtorch",
        probe: "c++ --version",
    },
    Package {
        name: "pkg-config",
        purpose: "with which build scripts find libraries",
        probe: "pkg-config --version",
    },
    Package {
        name: "libasound2-dev",
        purpose: "ALSA's headers, for the microphone",
        probe: "pkg-config --exists alsa",
    },
    Package {
        name: "libclang-dev",
        purpose: "libclang, with which bindgen reads C headers",
        probe: "clang --version",
    },
    Package {
        name: "mosquitto",
        purpose: "an MQTT broker, for tests with TLS, passwords and faults",
        probe: "mosquitto -h",
    },
    Package {
        name: "mosquitto-clients",
        purpose: "its command-line clients, for the same tests",
        probe: "mosquitto_pub --help",
    },
];

/// Installs what is missing.
///
/// # Errors
/// Where the packages cannot be installed, with a list of what is missing.
pub(crate) fn ensure() -> Result<()> {
    let debian = process::capture(Command::new("dpkg-query").arg("--version")).is_some();
    if debian {
        return install(&missing_of(&PACKAGES.map(|package| package.name)));
    }
    let missing: Vec<_> = PACKAGES
        .iter()
        .filter(|package| process::capture(&mut words(package.probe)).is_none())
        .map(|Package { name, purpose, .. }| format!("  {name} (as Debian calls it): {purpose}"))
        .collect();
    if !missing.is_empty() {
        bail!(
            "this is no Debian system; please install, by its own package manager:\n{}",
            missing.join("\n")
        );
    }
    Ok(())
}

/// Installs Debian packages that are not there yet.
pub(crate) fn install_missing(names: &[&'static str]) -> Result<()> {
    install(&missing_of(names))
}

/// Installs Debian packages, through sudo unless this is root.
pub(crate) fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    apt(&["update"])
        .and_then(|()| apt(&[&["install", "--yes", "--no-install-recommends"], missing].concat()))
}

fn apt(args: &[&str]) -> Result<()> {
    let root = process::is_root();
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"];
    // Not through `process::run`: sudo reads the password from the terminal, which only its foreground group may.
    let status = if root { Command::new(words[0]) } else { Command::new("sudo") }
        .args(if root { &words[1..] } else { &words })
        .args(args)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("this failed; please run it by hand: apt-get {}", args.join(" "));
    }
    Ok(())
}

fn words(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn missing_of<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(names);
    // The exit status tells that some are missing, the output which are not.
    let output = query.output().map(|output| output.stdout).unwrap_or_default();
    let installed = String::from_utf8_lossy(&output);
    let has = |name: &str| installed.lines().any(|line| line == format!("{name} installed"));
    names.iter().copied().filter(|name| !has(name)).collect()
}
