//! Checks that what the agent keeps can be written: outbox, evidence, audit log.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::path::Path;

use outpost_agent_core::audit::Audit;
use outpost_agent_core::config::Config;
use outpost_agent_core::evidence::Evidence;

use crate::doctor::Finding;

const AREA: &str = "storage";

/// Checks all that is configured. Leaves nothing behind.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let outbox = config.mqtt.outbox.as_deref().map(|path| file("mqtt.outbox", path));
    let audit = Audit::path(&config.audit).map(|path| file("audit.path", &path));
    let evidence = Evidence::folder(&config.evidence).map(|path| {
        let nearest = path.ancestors().find(|folder| folder.exists()).unwrap_or(&path);
        finding("evidence.folder", &path, write_in(nearest))
    });
    [outbox, evidence, audit].into_iter().flatten().collect()
}

/// A file that the agent opens, or makes in a folder that has to be there.
fn file(key: &str, path: &Path) -> Finding {
    // The empty path is the working directory.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let opened = match OpenOptions::new().read(true).write(true).open(path) {
        Err(fault) if fault.kind() == ErrorKind::NotFound => {
            write_in(folder.unwrap_or(Path::new(".")))
        }
        opened => opened.map(drop),
    };
    finding(key, path, opened)
}

fn write_in(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".outpost-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    std::fs::remove_file(probe)
}

fn finding(key: &str, path: &Path, written: io::Result<()>) -> Finding {
    let found = format!("{key} = {}", path.display());
    match written {
        Ok(()) => Finding::ok(AREA, format!("{found}: can be written")),
        Err(fault) => {
            let remedy = "make its folder, and let the agent's user write there; under the unit, take a path below /var/lib/outpost";
            Finding::wrong(AREA, format!("{found}: {fault}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn paths_that_cannot_be_written_are_wrong_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        std::fs::write(place.join("file"), "").unwrap();
        let config = |outbox: &str, evidence: &str, audit: &str| {
            let mut config = Config::default();
            config.mqtt.outbox = Some(place.join(outbox));
            config.evidence.folder = Some(place.join(evidence));
            config.audit.path = Some(place.join(audit));
            config
        };
        let verdicts = |config: &Config| {
            examine(config).iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&config("outbox", "new/deep", "file")), [Verdict::Ok; 3]);
        assert_eq!(verdicts(&config("no/outbox", "file/below", "file/audit")), [Verdict::Wrong; 3]);
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 1);
        assert_eq!(examine(&Config::default()), []);
    }
}
