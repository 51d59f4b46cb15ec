//! What it costs to watch: `cargo nextest run --workspace --run-ignored only --no-capture -E 'test(camera::cost)'` measures it.

use std::sync::Arc;

use image::codecs::jpeg::JpegEncoder;
use outpost_agent_core::config::{Config, LiveSettings, MotionConfig, PixelFormat};

use super::motion::MotionDetector;
use super::pixels::{PixelLayout, to_image};
use super::thumbnail::Thumbnail;
use super::*;

const SIZE: [u32; 2] = [640, 480];
const FRAMES: u32 = 300;
const FPS: f64 = 5.0;

/// Time that this thread has had on a core, seconds.
fn on_core() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Runs `each` on a few pictures with a sensor's noise in turn; the share of a core that it takes at [`FPS`].
fn share(pictures: &[Vec<u8>], mut each: impl FnMut(&[u8])) -> f64 {
    let start = on_core();
    for frame in 0..FRAMES {
        each(&pictures[frame as usize % pictures.len()]);
    }
    (on_core() - start) / f64::from(FRAMES) * FPS
}

/// A room with shelves, in noise that differs from picture to picture.
fn luma(seed: u32) -> impl Iterator<Item = u8> {
    let mut noise = seed;
    (0..SIZE[0] * SIZE[1]).map(move |at| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let x = at % SIZE[0];
        let y = at / SIZE[0];
        (60 + 50 * ((x / 70 + y / 90) % 3) + (noise >> 29)) as u8
    })
}

fn yuyv(seed: u32) -> Vec<u8> {
    luma(seed).flat_map(|luma| [luma, 128]).collect()
}

fn mjpg(seed: u32) -> Vec<u8> {
    let rgb: Vec<u8> = luma(seed).flat_map(|luma| [luma; 3]).collect();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 85);
    encoder.encode(&rgb, SIZE[0], SIZE[1], image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

#[test]
#[ignore = "a measurement, with nothing to hold it against on an unknown machine"]
fn watching_a_still_scene() {
    for (format, make) in
        [(PixelFormat::Yuyv, yuyv as fn(u32) -> Vec<u8>), (PixelFormat::Mjpg, mjpg)]
    {
        let pictures: Vec<Vec<u8>> = (1..9).map(make).collect();
        let layout = PixelLayout { format, width: SIZE[0], height: SIZE[1], stride: 0 };
        let decode = share(&pictures, |bytes| drop(to_image(bytes, layout).unwrap()));
        let shared = Shared::new(
            Arc::new(Deaf),
            tokio::sync::watch::channel(LiveSettings::of(&Config::default())).1,
        );
        let counters = shared.counters.clone();
        let config = CameraConfig { device: Some("made up".into()), ..CameraConfig::default() };
        let mut pipeline = CameraPipeline::new(&config, shared);
        let start = Instant::now();
        let mut count = 0;
        let whole = share(&pictures, |bytes| {
            count += 1;
            let now = start + Duration::from_millis(200) * count;
            let image = to_image(bytes, layout).unwrap();
            drop(pipeline.see(Frame::new(image, "made up".into()), now));
        });
        assert_eq!(counters.looks.get(), 1, "the scene is still");
        let image = to_image(&pictures[0], layout).unwrap();
        let mut scene = MotionDetector::new(MotionConfig::default());
        let gate = share(&pictures, |_| {
            scene.see(Thumbnail::new(&image), start);
        });
        println!(
            "{format} {}x{} at {FPS} a second, of one core: decoding {:.2} %, gate {:.2} %, all {:.2} %",
            SIZE[0],
            SIZE[1],
            decode * 100.0,
            gate * 100.0,
            whole * 100.0
        );
    }
}

/// Hears of everything and does nothing.
#[derive(Debug)]
struct Deaf;

impl outpost_agent_core::report::Sink for Deaf {
    fn intend<'a>(
        &'a self,
        _intent: &'a outpost_agent_core::report::Intent,
    ) -> outpost_tools::tool::BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn act(
        &self,
        _: outpost_agent_core::report::Act,
        _: tokio::time::Instant,
    ) -> outpost_tools::tool::BoxFuture<'_, Result<(), outpost_tools::ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn send(&self, _: outpost_agent_core::report::Report) {}
}
