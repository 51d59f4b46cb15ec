//! Cameras: what they offer, and why one cannot be used.

use std::path::Path;

use crate::doctor::{Finding, Verdict};
use crate::senses::camera::probe::{Probe, probe};

const AREA: &str = "camera";

/// Looks at every camera; `configured` is the one that the configuration names.
pub(super) fn examine(root: &Path, configured: Option<&str>) -> Vec<Finding> {
    let probes = probe(root);
    let cameras: Vec<&Probe> = probes.iter().filter(|probe| probe.is_camera).collect();
    let mut findings: Vec<Finding> =
        cameras.iter().map(|camera| about(camera, configured)).collect();
    if let Some(name) = configured
        && !cameras.iter().any(|camera| is(camera, name))
    {
        let other =
            probes.iter().find(|probe| is(probe, name)).and_then(|probe| probe.problem.clone());
        let found =
            format!("camera.device: {}", other.unwrap_or_else(|| format!("there is no {name}")));
        let remedy = "plug the camera in; `ls /dev/v4l/by-id` shows the names there are";
        findings.push(Finding::wrong(AREA, found, remedy));
    }
    if findings.is_empty() {
        let remedy =
            "plug in a camera, or load its kernel module; files do without one (camera.path)";
        findings.push(Finding::note(AREA, "this system has no camera", remedy));
    }
    findings
}

/// Whether a name of the configuration is this camera.
fn is(camera: &Probe, name: &str) -> bool {
    camera.path == name || camera.stable.iter().any(|stable| stable == name)
}

fn about(camera: &Probe, configured: Option<&str>) -> Finding {
    let path = camera.stable.first().unwrap_or(&camera.path);
    let found = format!("{path}  {}", camera.name);
    match &camera.problem {
        None => {
            let modes: Vec<String> = camera.modes.iter().map(ToString::to_string).collect();
            Finding::ok(AREA, format!("{found}: {}", modes.join(", ")))
        }
        Some(problem) => {
            let wrong = configured.is_some_and(|name| is(camera, name)) && !camera.is_busy;
            let verdict = if wrong { Verdict::Wrong } else { Verdict::Note };
            let remedy = if camera.is_busy {
                format!("fine if that is the agent; else {problem}")
            } else {
                problem.clone()
            };
            Finding { area: AREA, verdict, found, remedy: Some(remedy) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_is_not_there_is_wrong_only_where_it_is_configured() {
        let root = tempfile::tempdir().unwrap();
        let none = examine(root.path(), None);
        assert_eq!((none.len(), none[0].verdict), (1, Verdict::Note));
        let missing = examine(root.path(), Some("/dev/video7"));
        assert_eq!((missing.len(), missing[0].verdict), (1, Verdict::Wrong));
        assert!(missing[0].found.contains("/dev/video7"), "{missing:?}");
    }

    #[test]
    fn a_camera_says_what_it_offers_and_a_busy_one_is_no_fault() {
        let mut camera = Probe {
            path: "/dev/video0".into(),
            stable: vec!["/dev/v4l/by-id/usb-Desk_Cam-video-index0".into()],
            name: "Desk Cam".into(),
            modes: Vec::new(),
            problem: Some("busy".into()),
            is_camera: true,
            is_busy: true,
        };
        assert_eq!(about(&camera, Some("/dev/video0")).verdict, Verdict::Note);
        camera.is_busy = false;
        assert_eq!(about(&camera, Some("/dev/video0")).verdict, Verdict::Wrong);
        camera.problem = None;
        let found = about(&camera, None).found;
        assert!(found.starts_with("/dev/v4l/by-id/usb-Desk_Cam-video-index0  Desk Cam"), "{found}");
    }
}
