//! The camera's thread on a device that is made up: its pictures, its faults, its coming and going.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use outpost_agent_core::back_off::BackOff;
use outpost_agent_core::camera::Camera as _;
use outpost_agent_core::config::{Area, CameraGate, Config, LiveSettings, PixelFormat};
use outpost_agent_core::heartbeat::Heartbeats;
use outpost_agent_core::report::{Act, Body, CameraState, Intent, Report, Sink};
use outpost_runtime::Image;
use outpost_tools::ToolError;
use outpost_tools::tool::BoxFuture;
use tokio::time::Instant;

use super::pixels::{FrameError, PixelLayout, to_image};
use super::raw::{CameraError, RawCamera, RawFrame, RawStream};
use super::*;
use crate::camera::latest_frame::LatestFrame;

/// What a made-up device does next.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>, PixelLayout),
    Mark(Vec<u8>, PixelLayout),
    Unplug,
    Refuse,
}

/// A device that follows a script; each `open` after an `Unplug` goes on where it stopped. At the end it is gone.
#[derive(Debug, Clone)]
struct Scripted(Arc<Mutex<VecDeque<Step>>>);

/// What is in the device's buffer now.
struct Playing(Scripted, Vec<u8>);

impl Scripted {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(Arc::new(Mutex::new(steps.into_iter().collect())))
    }

    fn next(&self) -> Option<Step> {
        self.0.lock().unwrap().pop_front()
    }
}

impl RawCamera for Scripted {
    fn open(&mut self) -> Result<Box<dyn RawStream>, CameraError> {
        let refuses = matches!(self.0.lock().unwrap().front(), Some(Step::Refuse) | None);
        if refuses {
            self.next();
            return Err(CameraError::Busy { device: self.name() });
        }
        Ok(Box::new(Playing(self.clone(), Vec::new())))
    }

    fn name(&self) -> String {
        "made up".to_owned()
    }
}

impl RawStream for Playing {
    fn next(&mut self) -> Result<RawFrame<'_>, CameraError> {
        let (bytes, layout, damaged) = match self.0.next() {
            Some(Step::Send(bytes, layout)) => (bytes, layout, false),
            Some(Step::Mark(bytes, layout)) => (bytes, layout, true),
            Some(Step::Unplug | Step::Refuse) | None => {
                return Err(CameraError::Unplugged { device: self.0.name() });
            }
        };
        self.1 = bytes;
        Ok(RawFrame { bytes: &self.1, layout, damaged })
    }
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<Report>>);

impl Sink for Told {
    fn send(&self, report: Report) {
        self.0.lock().unwrap().push(report);
    }

    fn act(&self, act: Act, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        panic!("{act:?}")
    }

    fn intend<'a>(&'a self, _intent: &'a Intent) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Told {
    fn camera(&self) -> Vec<(CameraState, Option<String>)> {
        let said = |report: &Report| match &report.body {
            Body::CameraStatus(status) => Some((status.state, status.reason.clone())),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(said).collect()
    }
}

fn layout(format: PixelFormat, width: u32, height: u32) -> PixelLayout {
    PixelLayout { format, width, height, stride: 0 }
}

/// A whole grey picture.
fn grey(luma: u8) -> Step {
    Step::Send(vec![luma; 32 * 16], layout(PixelFormat::Grey, 32, 16))
}

fn shared() -> (Shared, Arc<Told>) {
    let told = Arc::<Told>::default();
    let shared = Shared::new(
        told.clone(),
        tokio::sync::watch::channel(LiveSettings::of(&Config::default())).1,
    );
    (shared, told)
}

fn live(device: Scripted, shared: &Shared, warm_up: u32) -> LiveCamera {
    let back_off = BackOff::new(Duration::from_millis(1), Duration::from_millis(4));
    // Every picture is due.
    LiveCamera::new(Box::new(device), 1e9, warm_up, back_off, shared.counters.clone())
}

/// The luma of the pictures and the errors of so many reads.
fn read(camera: &mut LiveCamera, times: usize) -> Vec<Result<u8, String>> {
    let luma = |frame: Option<Frame>| frame.unwrap().image.rgb[0];
    (0..times).map(|_| camera.read().map(luma).map_err(|error| error.to_string())).collect()
}

#[test]
fn warm_up_and_damaged_pictures_are_dropped_and_counted() {
    let garbage = layout(PixelFormat::Mjpg, 32, 16);
    let device = Scripted::new([
        grey(0),
        grey(0),
        grey(1),
        Step::Send(Vec::new(), layout(PixelFormat::Grey, 32, 16)),
        Step::Send(vec![9; 100], layout(PixelFormat::Grey, 32, 16)),
        Step::Send(vec![9; 999], PixelLayout { stride: 31, ..layout(PixelFormat::Grey, 32, 16) }),
        Step::Send(b"not a jpeg".to_vec(), garbage),
        Step::Send(b"\xff\xd8\xff\xd9".to_vec(), garbage),
        Step::Mark(vec![9; 32 * 16], layout(PixelFormat::Grey, 32, 16)),
        grey(2),
    ]);
    let (shared, _) = shared();
    let mut camera = live(device, &shared, 2);
    assert_eq!(read(&mut camera, 2), [Ok(1), Ok(2)]);
    let metrics = shared.counters.snapshot();
    assert_eq!((metrics.skipped, metrics.damaged), (2, 6));
}

#[test]
fn a_format_that_changes_in_the_stream_is_followed() {
    let device = Scripted::new([
        grey(7),
        Step::Send(vec![7; 64 * 64], layout(PixelFormat::Grey, 64, 64)),
        Step::Send(vec![7; 64 * 64 * 3], layout(PixelFormat::Rgb3, 64, 64)),
        Step::Send(jpeg(40, 30), layout(PixelFormat::Mjpg, 64, 64)),
    ]);
    let (shared, _) = shared();
    let mut camera = live(device, &shared, 0);
    let sizes: Vec<(u32, u32)> = (0..4)
        .map(|_| camera.read().unwrap().unwrap().image)
        .map(|image| (image.width, image.height))
        .collect();
    assert_eq!(sizes, [(32, 16), (64, 64), (64, 64), (40, 30)]);
}

#[test]
fn a_device_that_sends_only_rubbish_is_opened_anew() {
    let rubbish = (0..11).map(|_| Step::Send(vec![9; 3], layout(PixelFormat::Grey, 32, 16)));
    let device = Scripted::new(rubbish.chain([grey(0), grey(5)]));
    let (shared, _) = shared();
    let mut camera = live(device, &shared, 1);
    // A camera that was opened again warms up again.
    let reads = read(&mut camera, 3);
    assert!(reads[0].as_ref().unwrap_err().contains("cable"), "{reads:?}");
    assert_eq!(reads[1], Ok(5));
}

#[test]
fn a_device_that_is_unplugged_and_busy_comes_back_and_both_are_said_once() {
    let steps = [grey(1), Step::Unplug, Step::Refuse, Step::Refuse, Step::Refuse, grey(9), grey(3)];
    let (shared, told) = shared();
    let camera = live(Scripted::new(steps), &shared, 0);
    let config = CameraConfig { gate: Some(CameraGate::Each), ..CameraConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let pipeline = CameraPipeline::new(&config, shared.clone());
    let pulse = Heartbeats::default().part("camera");
    let mut sense = watch(Box::new(camera), pipeline, pulse, Duration::from_mins(1)).unwrap();
    // Only the newest waits, so only the last is sure to be seen.
    while runtime.block_on(sense.receiver.recv()).unwrap().image.rgb[0] != 3 {}
    drop(sense);
    let said = told.camera();
    let states: Vec<CameraState> = said.iter().map(|(state, _)| *state).collect();
    assert_eq!(&states[..3], [CameraState::Up, CameraState::Lost, CameraState::Up]);
    assert!(said[1].1.as_ref().unwrap().contains("unplugged"), "{said:?}");
    assert!(shared.counters.snapshot().lost >= 1);
}

#[test]
fn what_is_private_is_black_for_everybody_and_a_closed_eye_sees_nothing() {
    let (shared, _) = shared();
    let config = CameraConfig {
        gate: Some(CameraGate::Each),
        privacy: vec![Area::from([0.0, 0.0, 0.5, 1.0])],
        region: Some(Area::from([0.25, 0.0, 0.5, 1.0])),
        ..CameraConfig::default()
    };
    let mut pipeline = CameraPipeline::new(&config, shared.clone());
    let white = Image { width: 8, height: 2, rgb: vec![255; 48].into() };
    let seen = pipeline.see(Frame::new(white, "made up".into()), Instant::now()).unwrap();
    assert_eq!((seen.image.width, seen.image.height), (4, 2));
    assert_eq!(seen.image.rgb[..12], [0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]);
    assert_eq!(shared.latest.latest().unwrap().image, seen.image);
    assert!(!pipeline.is_closed());
    shared.latest.switch(false);
    assert!(pipeline.is_closed());
    shared.latest.switch(true);
    assert_eq!(shared.latest.latest(), None, "what was seen before is not shown again");
}

#[test]
fn a_look_brings_the_pictures_from_before_it_and_their_number_is_bounded() {
    let (shared, _) = shared();
    let config =
        CameraConfig { gate: Some(CameraGate::Each), look_back: 3, ..CameraConfig::default() };
    let mut pipeline = CameraPipeline::new(&config, shared);
    let start = Instant::now();
    let mut see = |luma: u8, millis: u64| {
        let image = Image { width: 1, height: 1, rgb: vec![luma; 3].into() };
        pipeline.see(Frame::new(image, "made up".into()), start + Duration::from_millis(millis))
    };
    for step in 0..10u8 {
        see(step, u64::from(step) * 250);
    }
    let before = see(99, 3000).unwrap().before;
    let lumas: Vec<u8> = before.iter().map(|image| image.rgb[0]).collect();
    assert_eq!(lumas, [4, 6, 8], "one each half second, the latest three");
}

#[tokio::test]
async fn whoever_looks_waits_for_a_newer_picture_but_not_for_ever() {
    let latest = LatestFrame::default();
    let image = Image { width: 1, height: 1, rgb: vec![0; 3].into() };
    let mut first = Frame::new(image, "made up".into());
    latest.set(&mut first);
    assert_eq!(first.number, 1);
    assert_eq!(latest.newer(1, Duration::from_millis(1)).await, None);
    let mut second = first.clone();
    latest.set(&mut second);
    assert_eq!(latest.newer(1, Duration::from_mins(1)).await.map(|frame| frame.number), Some(2));
}

/// A picture of colours, as JPEG.
fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let rgb: Vec<u8> = (0..width * height).flat_map(|at| [at as u8, 128, 40]).collect();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode(&rgb, width, height, image::ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

/// The JPEG without its Huffman tables, as many cameras send it.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let mut bare = jpeg[..2].to_vec();
    let mut at = 2;
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != 0xc4 {
            bare.extend(&jpeg[at..end]);
        }
        at = end;
    }
    bare.extend(&jpeg[at..]);
    bare
}

#[test]
fn a_jpeg_is_read_with_or_without_tables_and_with_padding_but_not_cut_short() {
    let whole = jpeg(64, 48);
    let layout = layout(PixelFormat::Mjpg, 64, 48);
    let image = to_image(&whole, layout).unwrap();
    assert_eq!((image.width, image.height), (64, 48));
    let bare = without_tables(&whole);
    assert!(bare.len() + 400 < whole.len());
    assert_eq!(to_image(&bare, layout).as_ref(), Ok(&image));
    let padded = [whole.as_slice(), &[0; 100]].concat();
    assert_eq!(to_image(&padded, layout).as_ref(), Ok(&image));
    let cut = &whole[..whole.len() / 2];
    assert_eq!(to_image(cut, layout), Err(FrameError::CutShort(cut.len())));
    for length in 0..whole.len().min(700) {
        assert!(to_image(&whole[..length], layout).is_err());
    }
}

#[test]
fn the_same_colour_comes_out_of_every_format() {
    // Red as BT.601 in studio range: Y 81, U 90, V 240.
    let width = 4u32;
    let height = 4u32;
    let pixels = (width * height) as usize;
    let padded = |row: Vec<u8>, stride: usize| -> Vec<u8> {
        (0..height).flat_map(|_| [row.clone(), vec![0xee; stride - row.len()]].concat()).collect()
    };
    let yuyv_row = [81, 90, 81, 240].repeat(width as usize / 2);
    let nv12 = [vec![81; pixels], [90, 240].repeat(pixels / 4)].concat();
    for (format, bytes, stride) in [
        (PixelFormat::Yuyv, yuyv_row.repeat(height as usize), 0),
        (PixelFormat::Yuyv, padded(yuyv_row.clone(), 20), 20),
        (PixelFormat::Nv12, nv12, 0),
        (PixelFormat::Rgb3, [255, 0, 0].repeat(pixels), 0),
    ] {
        let image =
            to_image(&bytes, PixelLayout { stride, ..layout(format, width, height) }).unwrap();
        assert_eq!(image.rgb.len(), pixels * 3);
        for pixel in image.rgb.chunks(3) {
            let near = pixel[0] > 250 && pixel[1] < 5 && pixel[2] < 5;
            assert!(near, "{format}: {pixel:?}");
        }
        // The last row need not be padded; a byte less is a fault.
        let padding = (stride as usize).saturating_sub(yuyv_row.len());
        let needed = bytes.len() - padding;
        assert!(
            to_image(&bytes[..needed], PixelLayout { stride, ..layout(format, width, height) })
                .is_ok()
        );
        let short =
            to_image(&bytes[..needed - 1], PixelLayout { stride, ..layout(format, width, height) });
        assert!(matches!(short, Err(FrameError::Short { .. })), "{format}: {short:?}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for (width, height) in [(0, 16), (16, 0), (u32::MAX, u32::MAX)] {
        let result = to_image(&[0; 64], layout(PixelFormat::Yuyv, width, height));
        assert_eq!(result, Err(FrameError::Size { width, height }));
    }
    // Odd sizes are none that a driver should offer, but they are no fault.
    let odd = to_image(&[128; 3 * 3 + 8], layout(PixelFormat::Nv12, 3, 3)).unwrap();
    assert_eq!(odd.rgb.len(), 27);
}

#[test]
fn looks_are_as_far_apart_as_is_desired_now() {
    let live = LiveSettings::of(&Config::default());
    let (change, followed) = tokio::sync::watch::channel(live.clone());
    let (shared, _) = shared();
    let shared = Shared { live: followed, ..shared };
    let config = CameraConfig { gate: Some(CameraGate::Scene), ..CameraConfig::default() };
    let mut pipeline = CameraPipeline::new(&config, shared);
    let start = Instant::now();
    let mut sees = |somebody: bool, seconds: u64| {
        let width = 128;
        let height = 96;
        let luma = |at: u32| {
            let x = at % width;
            let y = at / width;
            let is_hidden = somebody && (20..60).contains(&x) && y > 30;
            if is_hidden { 20 } else { (60 + 50 * ((x / 14 + y / 18) % 3)) as u8 }
        };
        let rgb: Vec<u8> = (0..width * height).flat_map(|at| [luma(at); 3]).collect();
        let frame = Frame::new(Image { width, height, rgb: rgb.into() }, "made up".into());
        pipeline.see(frame, start + Duration::from_secs(seconds)).is_some()
    };
    assert!(sees(false, 0), "the first picture");
    let minute = Duration::from_mins(1);
    change.send_replace(LiveSettings { interval: minute, cooldown: minute, ..live.clone() });
    assert!((10..50).step_by(5).all(|second| !sees(true, second)), "it is too soon");
    change.send_replace(live);
    assert!(sees(true, 50), "as the file has it");
}
