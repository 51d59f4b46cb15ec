//! `cargo xtask test --vm`: the agent as a service of a real Debian on an emulated machine, whose sound card and camera are
//! kernel modules. What is checked there is in `tests/vm/check`; `docs/devices.md` tells more.

use crate::{demo, process, setup};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What makes and runs the machine, as Debian calls it.
const TOOLS: [&str; 3] = ["qemu-system-x86", "mmdebstrap", "e2fsprogs"];
/// What the machine has besides Debian's minimum. The kernel must not be the cloud one, which has no sound and no cameras.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,kmod,linux-image-amd64,initramfs-tools,zstd,alsa-utils,\
     v4l-utils,mosquitto,mosquitto-clients,libgomp1,libasound2";
const SUITE: &str = "bookworm";
/// Services that only take time.
const MASKED: [&str; 9] = [
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "systemd-timesyncd.service",
    "dpkg-db-backup.timer",
    "mosquitto.service",
];
/// A run that takes longer hangs.
const LIMIT: &str = "10800";
/// How the checks in the machine say that all went well.
const SUCCESS: &str = "vm: all checks passed";

/// What is tried in the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trial {
    /// All checks.
    Whole,
    /// The broker is restarted every two minutes for so many, and nothing else.
    Restarts(u16),
}

/// Makes the machine where that was not done yet, runs it, and tells whether its checks passed.
pub(crate) fn run(root: &Path, trial: Trial) -> Result<()> {
    setup::run(root, setup::Flavour::Cpu)?;
    setup::install(&TOOLS)?;
    let folder = demo::target(root).join("vm");
    fs::create_dir_all(&folder)?;
    base(root, &folder)?;
    process::run(process::cargo(root).args(["build", "--workspace", "--bins"]))?;
    product(root, &folder)?;
    boot(&folder, trial)?;
    let console = fs::read(folder.join("console.log"))?;
    if !String::from_utf8_lossy(&console).contains(SUCCESS) {
        bail!(
            "the checks did not all pass; {} has all of it",
            folder.join("console.log").display()
        );
    }
    Ok(())
}

/// Debian and its kernel: an image that is kept until this file or the unit of the checks changes.
fn base(root: &Path, folder: &Path) -> Result<()> {
    let unit = root.join("tests/vm/outpost-check.service");
    let recipe =
        format!("{SUITE}\n{PACKAGES}\n{}\n{}", MASKED.join(" "), fs::read_to_string(&unit)?);
    let stamp = folder.join("base.recipe");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    if !process::is_root() {
        bail!("making the machine's file system needs root, for its device nodes");
    }
    let system = folder.join("base");
    remove(&system)?;
    // No initramfs of all drivers: the disk and its file system are enough, and load sooner.
    let modules = "mkdir -p \"$1/etc/initramfs-tools/conf.d\" && echo MODULES=list > \"$1/etc/initramfs-tools/conf.d/vm\" && \
                   printf 'virtio_pci\\nvirtio_blk\\next4\\n' > \"$1/etc/initramfs-tools/modules\"";
    let masks: Vec<String> = MASKED
        .iter()
        .map(|unit| format!("ln -sf /dev/null \"$1/etc/systemd/system/{unit}\""))
        .collect();
    let finish = format!(
        "{} && cp '{}' \"$1/etc/systemd/system/\" && chroot \"$1\" systemctl enable outpost-check.service && \
         mkdir -p \"$1/opt/outpost\" && echo 'LABEL=outpost /opt/outpost ext4 ro 0 0' > \"$1/etc/fstab\" && \
         echo vm > \"$1/etc/hostname\"",
        masks.join(" && "),
        unit.display()
    );
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--variant=minbase", "--include", PACKAGES]);
    for documentation in ["man", "doc", "locale"] {
        bootstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{documentation}/*"));
    }
    bootstrap.arg(format!("--essential-hook={modules}")).arg(format!("--customize-hook={finish}"));
    process::run(bootstrap.arg(SUITE).arg(&system))?;
    for (from, to) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")] {
        let kernel = fs::canonicalize(system.join(from)).with_context(|| format!("no {from}"))?;
        fs::copy(kernel, folder.join(to))?;
    }
    image(&system, &folder.join("base.ext4"), "base", "900M")?;
    remove(&system)?;
    fs::write(stamp, recipe)?;
    Ok(())
}

/// The agent, its model and the checks: an image that is made for every run.
fn product(root: &Path, folder: &Path) -> Result<()> {
    let stage = folder.join("stage");
    remove(&stage)?;
    // As in the repository, so that the program finds libtorch where it was told to look.
    let programs = stage.join("target/debug");
    let libraries = stage.join(".libtorch/lib");
    fs::create_dir_all(&programs)?;
    fs::create_dir_all(&libraries)?;
    let outpost = demo::target(root).join("debug/outpost");
    process::run(Command::new("strip").arg(&outpost).arg("-o").arg(programs.join("outpost")))?;
    for library in fs::read_dir(root.join(".libtorch/lib"))? {
        let library = library?;
        fs::copy(library.path(), libraries.join(library.file_name()))?;
    }
    let checkpoint = root.join("models/nano/checkpoint");
    let model = stage.join("model");
    process::run(Command::new(&outpost).arg("import").arg(checkpoint).arg(model))?;
    let samples = root.join("models/nano/samples");
    let files = [root.join("packaging/outpost.service"), root.join("tests/vm")];
    for file in files.iter().chain([&samples]).flat_map(|path| listed(path)) {
        fs::copy(&file, stage.join(file.file_name().unwrap_or_default()))?;
    }
    image(&stage, &folder.join("outpost.ext4"), "outpost", "700M")?;
    remove(&stage)
}

/// A file, or the files of a folder.
fn listed(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![path.to_owned()] };
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

/// An image of a folder; what is empty in it takes no room.
fn image(folder: &Path, image: &Path, label: &str, size: &str) -> Result<()> {
    if image.exists() {
        fs::remove_file(image)?;
    }
    let mut format = Command::new("mkfs.ext4");
    format.args(["-q", "-F", "-L", label, "-E", "root_owner=0:0", "-d"]).arg(folder);
    process::run(format.arg(image).arg(size))
}

/// Runs the machine until it is switched off. Its console is this terminal, and a log.
fn boot(folder: &Path, trial: Trial) -> Result<()> {
    let disk = |name: &str, writes: &str| {
        format!("file={},format=raw,if=virtio,{writes}", folder.join(name).display())
    };
    let console =
        format!("stdio,id=console,signal=off,logfile={}", folder.join("console.log").display());
    let mut machine = Command::new("timeout");
    // No KVM: inside another virtual machine it may be there and never get to the kernel's first line.
    machine.args([LIMIT, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    machine.args(["-smp", "2", "-m", "1536", "-nodefaults", "-display", "none", "-no-reboot"]);
    machine.args(["-chardev", &console, "-serial", "chardev:console"]);
    machine.arg("-kernel").arg(folder.join("vmlinuz")).arg("-initrd").arg(folder.join("initrd"));
    let kernel = "root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=no";
    let trial = match trial {
        Trial::Whole => String::new(),
        Trial::Restarts(minutes) => format!(" outpost.minutes={minutes}"),
    };
    machine.arg("-append").arg(format!("{kernel}{trial}"));
    machine.args(["-drive", &disk("base.ext4", "snapshot=on")]);
    machine.args(["-drive", &disk("outpost.ext4", "readonly=on")]);
    process::run(&mut machine)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(Into::into) } else { Ok(()) }
}
