//! Lists cameras, their modes and problems, for `outpost doctor`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use v4l2::{modes, open, system};

use crate::camera::negotiate::Mode;
use crate::camera::raw::CameraError;
use crate::camera::v4l2;

/// A video device of the system.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Its device file, such as `/dev/video0`.
    pub path: String,
    /// Stable names below `/dev/v4l/by-id` and `by-path`.
    pub stable: Vec<String>,
    /// Product name; empty if unknown.
    pub name: String,
    /// Supported modes.
    pub modes: Vec<Mode>,
    /// Why it cannot be used, and how to fix it.
    pub problem: Option<String>,
    /// Whether it captures video: the second device of most USB cameras is for metadata.
    pub is_camera: bool,
    /// Whether it is in use, perhaps by the agent.
    pub is_busy: bool,
}

/// Probes every video device below `root` without disturbing those in use.
pub fn probe(root: &Path) -> Vec<Probe> {
    let stable = stable_names(root);
    let entries = fs::read_dir(root.join("dev")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| number(path).is_some()).collect();
    paths.sort_by_key(|path| number(path));
    paths.iter().map(|path| one(root, path, &stable)).collect()
}

/// The number of `videoN`.
fn number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

fn one(root: &Path, path: &Path, stable: &BTreeMap<PathBuf, Vec<String>>) -> Probe {
    let file = path.file_name().unwrap_or_default();
    let about = root.join("sys/class/video4linux").join(file).join("name");
    let name = fs::read_to_string(about).unwrap_or_default().trim().to_owned();
    let device = path.display().to_string();
    let (modes, problem) = match look(&device) {
        Ok(modes) => (modes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Probe {
        is_camera: !matches!(problem, Some(CameraError::Unfit { .. })),
        is_busy: matches!(problem, Some(CameraError::Busy { .. })),
        problem: problem.map(|error| error.to_string()),
        stable: stable.get(path).cloned().unwrap_or_default(),
        path: device,
        name,
        modes,
    }
}

/// Requests and releases buffers, which a driver refuses while another program streams.
fn look(device: &str) -> Result<Vec<Mode>, CameraError> {
    let camera = open(device)?;
    let modes = modes(&camera, [640, 480])
        .map_err(|error| system(device, "asking for its formats", error))?;
    v4l2::try_buffers(&camera).map_err(|error| system(device, "asking for buffers", error))?;
    if modes.is_empty() {
        let reason = "offers no format that can be read (YUYV, NV12, RGB3, MJPG, GREY)".to_owned();
        return Err(CameraError::Unfit { device: device.to_owned(), reason });
    }
    Ok(modes)
}

fn stable_names(root: &Path) -> BTreeMap<PathBuf, Vec<String>> {
    let mut names: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for folder in ["dev/v4l/by-id", "dev/v4l/by-path"] {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        for link in entries.map(|entry| entry.path()) {
            if let Ok(target) = fs::canonicalize(&link) {
                names.entry(target).or_default().push(link.display().to_string());
            }
        }
    }
    for names in names.values_mut() {
        names.sort();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_listed_with_their_stable_names_and_what_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["dev/v4l/by-id", "sys/class/video4linux/video2"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["dev/video10", "dev/video2", "dev/videotex"] {
            fs::write(root.join(file), "").unwrap();
        }
        fs::write(root.join("sys/class/video4linux/video2/name"), "Desk Cam\n").unwrap();
        let link = root.join("dev/v4l/by-id/usb-Desk_Cam-video-index0");
        std::os::unix::fs::symlink("../../video2", &link).unwrap();
        let found = probe(&root);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            (found[0].name.as_str(), &found[0].stable),
            ("Desk Cam", &vec![link.display().to_string()])
        );
        assert!(found[1].path.ends_with("video10"));
        let problem = found[0].problem.as_deref().unwrap();
        assert!(problem.contains("no video device") && !found[0].is_camera, "{problem}");
    }
}
