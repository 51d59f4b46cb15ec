//! Free memory, and whether a model fits into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use outpost_runtime::config::Config;
use outpost_runtime::device;
use outpost_runtime::import::ImportOptions;
use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::plan::Plan;
use outpost_runtime::{EncoderWeights, EngineOptions, KvFormat};

use crate::config::{Encoders, ModelConfig};

/// A model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Its manifest or config cannot be read.
    #[error(transparent)]
    Model(#[from] outpost_runtime::Error),
    /// Not enough memory: better to say so than to be killed later.
    #[error(
        "the model needs {:.2} GiB {place}at a context of {context}, and {:.2} are free:{table}\nSet a shorter `model.context` or `model.kv` \
         to int8, or import it with a smaller --quant",
        gib(*needed),
        gib(*free)
    )]
    Full {
        /// Required bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Which memory: empty, or `on the GPU `.
        place: &'static str,
        /// Context length.
        context: usize,
        /// Breakdown, one line per part.
        table: String,
    },
}

/// Engine options with which the packed model in `dir` fits into free memory.
///
/// # Errors
/// If it does not fit, or `dir` is not a packed model.
pub fn engine_options(dir: &Path, model: &ModelConfig) -> Result<EngineOptions, MemoryError> {
    let mut options = model.engine_options();
    let Some(host) = available() else { return Ok(options) };
    let config = Config::read(&dir.join("config.json"))?;
    let manifest = Manifest::read(dir)?;
    let mut plan = Plan::of(&config, ImportOptions { quant: manifest.quant });
    let mut room = Room { host, gpu: Gpu::Shared };
    // What is asked for and isn't there is said when the model is loaded.
    if device::choose(options.device).is_ok_and(device::Device::is_gpu) {
        plan = plan.on_gpu();
        room.gpu = Gpu::find();
        if room.gpu == Gpu::Unknown {
            tracing::warn!(
                "nvidia-smi does not say how much memory the GPU has: whether the model fits there is not checked"
            );
        }
    }
    let context = model.context.min(config.decoder.max_position_embeddings);
    let short = |encoders| room.short(&plan, context, options.kv, encoders);
    if model.encoders == Encoders::Auto && short(options.encoders).is_some_and(Short::is_on_host) {
        options.encoders = EncoderWeights::OnDemand;
        tracing::info!("memory is short: encoder layers are loaded on demand");
    }
    let Some(Short { needed, free, place }) = short(options.encoders) else { return Ok(options) };
    let row = |part: &str, bytes: u64| format!("\n  {part:<24} {:7.2}", gib(bytes));
    let mut table: String = plan.parts.iter().map(|(part, bytes)| row(part, *bytes)).collect();
    table += &row("keys and values", plan.cache(context, options.kv));
    if plan.prefixes(options.kv) > 0 {
        table += &row("kept prefixes", plan.prefixes(options.kv));
    }
    table += &row("embedded prompt", plan.prompt(context));
    if options.encoders == EncoderWeights::OnDemand {
        table += "\n  of the encoders, no more than a layer at a time is counted";
    }
    Err(MemoryError::Full { needed, free, place, context, table })
}

/// Where a model has to fit.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Free bytes of the board or computer.
    host: u64,
    gpu: Gpu,
}

/// The memory of the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gpu {
    /// That of the board; or the decoder is on the CPU.
    Shared,
    /// Its own, with so many bytes free.
    Own(u64),
    /// Its own, as far as is known.
    Unknown,
}

/// More is needed than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Short {
    needed: u64,
    free: u64,
    place: &'static str,
}

impl Short {
    /// Loading encoders on demand helps there alone.
    fn is_on_host(self) -> bool {
        self.place.is_empty()
    }
}

impl Room {
    /// What is short, if the model does not fit.
    fn short(
        self,
        plan: &Plan,
        context: usize,
        kv: KvFormat,
        encoders: EncoderWeights,
    ) -> Option<Short> {
        let all = plan.total(context, kv, encoders);
        let there = match self.gpu {
            Gpu::Shared => 0,
            Gpu::Own(_) | Gpu::Unknown => plan.gpu(context, kv),
        };
        let on_host = Short { needed: all - there, free: self.host, place: "" };
        let on_gpu = match self.gpu {
            Gpu::Own(free) => Some(Short { needed: there, free, place: "on the GPU " }),
            Gpu::Shared | Gpu::Unknown => None,
        };
        on_gpu.into_iter().chain([on_host]).find(|short| short.needed > short.free)
    }
}

impl Gpu {
    /// The GPU of this machine.
    fn find() -> Self {
        if is_jetson(Path::new("/")) {
            return Self::Shared;
        }
        let mut smi = Command::new("nvidia-smi");
        smi.args(["--query-gpu=memory.free", "--format=csv,noheader,nounits"]);
        // libtorch computes on the first one.
        let told = smi.output().ok().and_then(|told| String::from_utf8(told.stdout).ok());
        told.as_deref().and_then(mib).map_or(Self::Unknown, Self::Own)
    }
}

/// Bytes, of the first line of what nvidia-smi says in MiB.
fn mib(text: &str) -> Option<u64> {
    text.lines().next()?.trim().parse::<u64>().ok()?.checked_mul(1 << 20)
}

/// Whether the board is a Jetson, whose GPU has no memory of its own.
fn is_jetson(root: &Path) -> bool {
    let compatible = fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
    compatible.split(|byte| *byte == 0).any(|name| name.starts_with(b"nvidia,tegra"))
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Available memory in bytes, including reclaimable caches: what the system has, or what the cgroups of this process leave it
/// (`docker run --memory`, `MemoryMax=`). `None` if `/proc/meminfo` is unavailable.
pub fn available() -> Option<u64> {
    available_below(Path::new("/"))
}

fn available_below(root: &Path) -> Option<u64> {
    let system = kib(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemAvailable:")?;
    Some(cgroup_room(root).map_or(system, |room| room.min(system)))
}

/// What the memory limits of this process's cgroups leave; `None` without a limit.
fn cgroup_room(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    // Lines such as `0::/system.slice/x` in version 2, and `4:memory:/docker/x` in version 1.
    let group = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            controllers.split(',').any(|known| known == controller).then(|| parts.next())?
        })
    };
    let mounted = root.join("sys/fs/cgroup");
    let unified = group("").map(|group| room(&mounted, group, "memory.max", "memory.current"));
    let legacy = group("memory").map(|group| {
        room(&mounted.join("memory"), group, "memory.limit_in_bytes", "memory.usage_in_bytes")
    });
    [unified, legacy].into_iter().flatten().flatten().min()
}

/// The least room below the limits of a group and of its parents.
fn room(mounted: &Path, group: &str, limit: &str, usage: &str) -> Option<u64> {
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = mounted.join(group.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|folder| folder.starts_with(mounted));
    let rooms = folders.filter_map(|folder| {
        let limit = number(folder.join(limit))?;
        let usage = number(folder.join(usage))?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let value = |key: &str| {
            let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == key)?.1.parse::<u64>().ok()
        };
        // Cached files are reclaimed before anything is killed. Version 1 counts those of children apart.
        let files = |total: &str, own: &str| value(total).or_else(|| value(own)).unwrap_or(0);
        let cached = files("total_inactive_file", "inactive_file")
            + files("total_active_file", "active_file");
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    });
    rooms.min()
}

/// Resident memory of this process in bytes. `None` if `/proc/self/status` is unavailable.
pub fn resident() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Parses a `kB` line of `/proc`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A root with 16 GiB available, and these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemAvailable: 16777216 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_model_on_a_gpu_fits_into_its_memory_and_the_rest_into_that_of_the_host() {
        let config = outpost_runtime::plan::preset("phi-4-multimodal").unwrap().unwrap();
        let options = ImportOptions { quant: outpost_runtime::import::Quant::Int4 };
        let plan = Plan::of(&config, options).on_gpu();
        let (context, kv, encoders) = (4096, KvFormat::Bf16, EncoderWeights::Resident);
        let (all, there) = (plan.total(context, kv, encoders), plan.gpu(context, kv));
        let short = |host, gpu| Room { host, gpu }.short(&plan, context, kv, encoders);
        // A board has one memory.
        assert_eq!(short(all, Gpu::Shared), None);
        let needed = Short { needed: all, free: all - 1, place: "" };
        assert_eq!(short(all - 1, Gpu::Shared), Some(needed));
        // A card has another one.
        assert_eq!(short(all - there, Gpu::Own(there)), None);
        let needed = Short { needed: there, free: there - 1, place: "on the GPU " };
        assert_eq!(short(all, Gpu::Own(there - 1)), Some(needed));
        assert!(short(all - there - 1, Gpu::Own(there)).is_some_and(Short::is_on_host));
        assert_eq!(short(all - there, Gpu::Unknown), None);
    }

    #[test]
    fn the_gpu_of_a_jetson_shares_the_boards_memory() {
        let jetson = "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0";
        assert!(is_jetson(machine(&[("proc/device-tree/compatible", jetson)]).path()));
        let other = "raspberrypi,5-model-b\0brcm,bcm2712\0";
        assert!(!is_jetson(machine(&[("proc/device-tree/compatible", other)]).path()));
        assert!(!is_jetson(machine(&[]).path()));
        assert_eq!(mib("23028\n11000\n"), Some(23_028 * MIB));
        assert_eq!(mib("[N/A]\n"), None);
    }

    #[test]
    fn a_machine_that_runs_tests_has_some_memory_left() {
        assert!(available().is_some_and(|bytes| bytes > MIB));
    }

    #[test]
    fn without_a_limit_it_is_what_the_system_has() {
        let max = ("sys/fs/cgroup/memory.max", "max\n");
        for files in [&[][..], &[("proc/self/cgroup", "0::/\n"), max]] {
            assert_eq!(available_below(machine(files).path()), Some(16 << 30));
        }
    }

    #[test]
    fn the_limit_of_a_container_counts_less_what_is_in_use_and_cannot_be_reclaimed() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/memory.current", "524288000\n"),
            ("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 62914560\nactive_file 41943040\n"),
        ]);
        assert_eq!(available_below(root.path()), Some(2048 * MIB - 400 * MIB));
    }

    #[test]
    fn the_tightest_limit_of_all_parents_counts() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/system.slice/outpost.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "0\n"),
            ("sys/fs/cgroup/system.slice/outpost.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/outpost.service/memory.current", "0\n"),
        ]);
        assert_eq!(available_below(root.path()), Some(1024 * MIB));
    }

    #[test]
    fn cgroups_of_version_1_count_too() {
        let root = machine(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"),
            ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "268435456\n"),
        ]);
        assert_eq!(available_below(root.path()), Some(768 * MIB));
    }
}
