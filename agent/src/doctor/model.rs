//! Checks the model, its memory, and what it computes on.

use std::path::Path;

use outpost_agent_core::config::ModelConfig;
use outpost_agent_core::memory;
use outpost_agent_core::memory::gib;
use outpost_runtime::device::{self, DeviceChoice, NoCuda};
use outpost_runtime::import::manifest::Manifest;

use crate::doctor::Finding;
use crate::model_dir::{self, Found};

const AREA: &str = "model";

/// Checks the model that `outpost run` would load.
pub(super) fn examine(config: &ModelConfig, flag: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![gpu(config)];
    match model_dir::find(flag, config.path.as_deref()) {
        Ok(Found::Packed(dir)) => findings.extend(packed(&dir, config)),
        Ok(found @ Found::Bundled(_)) => findings.push(bundled(&found)),
        Err(fault) => findings.push(Finding::wrong(
            AREA,
            fault.to_string(),
            "pack a checkpoint with `outpost import`, and name its folder in model.path",
        )),
    }
    findings
}

/// The bundled model, which is packed when it is first used.
fn bundled(found: &Found) -> Finding {
    match model_dir::can_prepare(found) {
        Ok(true) => Finding::ok(AREA, "the bundled one"),
        Ok(false) => Finding::ok(AREA, "the bundled one, which is packed when it is first used"),
        Err(fault) => Finding::wrong(
            AREA,
            fault.to_string(),
            "pack it where the agent's user may read it, and name the folder in model.path",
        ),
    }
}

fn packed(dir: &Path, config: &ModelConfig) -> Vec<Finding> {
    let again = "pack the checkpoint again with `outpost import`";
    let manifest = match Manifest::read(dir) {
        Ok(manifest) => manifest,
        Err(fault) => return vec![Finding::wrong(AREA, fault.to_string(), again)],
    };
    let length = |name: &str| std::fs::metadata(dir.join(name)).map(|about| about.len()).ok();
    let is_damaged = |part: &str, bytes: u64| length(part) != Some(bytes);
    let damaged = manifest.parts.iter().find(|(name, part)| is_damaged(name, part.bytes));
    let model = if let Some((name, _)) = damaged {
        let found = format!("{}: {name} is missing or cut short", dir.display());
        Finding::wrong(AREA, found, again)
    } else {
        let from = &manifest.source.name;
        let quant = manifest.quant;
        Finding::ok(AREA, format!("{}: {from}, {quant:?}", dir.display()))
    };
    let memory = match memory::engine_options(dir, config) {
        Ok(_) => Finding::ok("memory", format!("the model fits; {} are free", free())),
        Err(fault) => Finding::wrong(
            "memory",
            fault.to_string(),
            "`outpost plan` shows what each choice of model.context, model.kv and model.encoders needs",
        ),
    };
    vec![model, memory]
}

fn free() -> String {
    memory::available()
        .map_or_else(|| "unknown amounts".into(), |free| format!("{:.2} GiB", gib(free)))
}

fn gpu(config: &ModelConfig) -> Finding {
    let choice = config.engine_options().device;
    match device::choose(choice) {
        Ok(device::Device::Cpu) if choice == DeviceChoice::Auto => {
            device::unused_gpu().map_or_else(|| cpu(device::no_gpu()), unused)
        }
        Ok(device::Device::Cpu) => cpu(None),
        Ok(device) => Finding::ok(
            "gpu",
            format!("the decoder runs on {device:?}, which computes as it should"),
        ),
        Err(fault) => Finding::wrong(
            "gpu",
            fault.to_string(),
            "set model.device to auto to run on the CPU until then",
        ),
    }
}

/// The CPU is taken although there is a GPU.
fn unused(reason: &NoCuda) -> Finding {
    let found = format!("the GPU of this machine is not used: {reason}");
    Finding::note("gpu", found, reason.remedy())
}

/// The CPU is taken, because there is no GPU or because it is asked for.
fn cpu(reason: Option<&NoCuda>) -> Finding {
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    match device::cpu_kernels() {
        Ok(kernels) => Finding::ok(
            "gpu",
            format!("none{reason}; the decoder runs on the CPU, kernels: {kernels}"),
        ),
        Err(fault) => {
            Finding::wrong("gpu", fault.to_string(), "unset OUTPOST_KERNEL, or name another")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn each_reason_not_to_use_a_gpu_has_its_words_and_its_remedy() {
        let node = || "/dev/nvidia0".into();
        let reasons = [
            NoCuda::NotBuilt,
            NoCuda::NotInstalled { folder: "/opt/libtorch/lib".into() },
            NoCuda::NotLoaded { reason: "libcudss.so.0: cannot open shared object file".into() },
            NoCuda::NoPermission { node: node() },
            NoCuda::DriverTooOld { driver: "540.4.0".into(), cuda: 13, needed: 580 },
            NoCuda::NotFound { node: node() },
            NoCuda::Broken("no kernel image is available".into()),
        ];
        let findings = reasons.each_ref().map(unused);
        for (index, finding) in findings.iter().enumerate() {
            assert_eq!((finding.area, finding.verdict), ("gpu", Verdict::Note));
            assert!(finding.found.ends_with(&reasons[index].to_string()), "{finding:?}");
            let remedies = findings.iter().filter(|other| other.remedy == finding.remedy);
            assert_eq!(remedies.count(), 1, "{finding:?}");
        }
    }

    #[test]
    fn where_there_is_no_gpu_the_reason_says_whether_cuda_was_loaded() {
        let loaded = cpu(Some(&NoCuda::NoDevice));
        assert_eq!(loaded.verdict, Verdict::Ok);
        assert!(loaded.found.contains("CUDA was loaded") && loaded.found.contains("on the CPU"));
        let absent = cpu(Some(&NoCuda::NotInstalled { folder: "/opt/libtorch/lib".into() }));
        assert!(absent.found.contains("no CUDA part") && !absent.found.contains("was loaded"));
        assert!(cpu(None).found.starts_with("none; "));
    }

    #[test]
    fn a_folder_without_a_model_is_wrong_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let findings = examine(&ModelConfig::default(), Some(folder.path()));
        let model = findings.iter().find(|finding| finding.area == AREA).unwrap();
        assert_eq!(model.verdict, Verdict::Wrong);
        assert!(model.remedy.as_ref().unwrap().contains("outpost import"), "{model:?}");
    }
}
