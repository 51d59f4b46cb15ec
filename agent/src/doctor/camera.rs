//! Checks cameras: modes and problems.

use std::path::Path;

use outpost_agent_core::config::PixelFormat;
use outpost_senses::camera::negotiate::Mode;
use outpost_senses::camera::probe::{Probe, probe};

use crate::doctor::{Finding, Verdict};

const AREA: &str = "camera";

/// Checks all cameras; `configured` is the one in the configuration.
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

/// Whether a configured name is this camera.
fn is(camera: &Probe, name: &str) -> bool {
    camera.path == name || camera.stable.iter().any(|stable| stable == name)
}

fn about(camera: &Probe, configured: Option<&str>) -> Finding {
    let path = camera.stable.first().unwrap_or(&camera.path);
    let found = format!("{path}  {}", camera.name);
    match &camera.problem {
        None => {
            let formats = PixelFormat::ALL.map(|format| sizes(camera, format));
            let formats: Vec<String> = formats.into_iter().flatten().collect();
            Finding::ok(AREA, format!("{found}: {}", formats.join(", ")))
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

/// A format with its smallest and largest size, and the frame rates there.
fn sizes(camera: &Probe, format: PixelFormat) -> Option<String> {
    let modes = || camera.modes.iter().filter(move |mode| mode.format == format);
    let pixels = |mode: &&Mode| mode.width * mode.height;
    let least = modes().min_by_key(pixels)?;
    let most = modes().max_by_key(pixels)?;
    Some(if least == most { least.to_string() } else { format!("{least} to {most}") })
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
        let mode = |format, width, height| Mode { format, width, height, fps: Some(30.0) };
        camera.modes = vec![
            mode(PixelFormat::Mjpg, 1920, 1080),
            mode(PixelFormat::Yuyv, 640, 480),
            mode(PixelFormat::Mjpg, 640, 480),
        ];
        assert_eq!(
            about(&camera, None).found,
            "/dev/v4l/by-id/usb-Desk_Cam-video-index0  Desk Cam: YUYV 640x480 30/s, MJPG 640x480 30/s to MJPG 1920x1080 30/s"
        );
    }
}
