//! `outpost look`: one picture of the camera, for setting one up. No model is needed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use image::RgbImage;
use outpost_agent_core::config::{CameraConfig, Config, PixelFormat};
use outpost_runtime::Image;
use outpost_senses::camera::area::{blacken, crop};
use outpost_senses::camera::negotiate::ModeRequest;
use outpost_senses::camera::pixels::{FrameError, to_image};
use outpost_senses::camera::raw::{RawCamera as _, RawStream};
use outpost_senses::camera::v4l2::V4l2Camera;
use outpost_senses::files::FileCamera;
use outpost_senses::{FrameSource as _, SenseError};
use serde_json::json;

use crate::cli::out::out;

/// A camera that sends nothing but damaged pictures is given up after so many.
const MOST_DAMAGED: u32 = 10;

/// Take a picture with the camera: what was agreed on with it, and what the agent gets to see.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration whose `[camera]` is used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A capture device instead, such as /dev/video0.
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    device: Option<String>,
    /// A picture file or a folder of them instead, of which the first is taken.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The pixel format to ask for.
    #[arg(long, value_enum)]
    format: Option<PixelFormat>,
    /// The size to ask for; the nearest that the camera offers is taken.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    size: Option<[u32; 2]>,
    /// Keep the picture here, as PNG or JPEG by the name's ending.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write one JSON object.
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
    sides.ok_or_else(|| "write it as 640x480".into())
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = camera(args)?;
    let Taken { from, format, image, damaged } = match (&config.device, &config.path) {
        (Some(device), _) => {
            let mut stream = V4l2Camera::new(device.clone(), ModeRequest::from(&config)).open()?;
            take(device, stream.as_mut(), config.warm_up)?
        }
        (None, Some(path)) => read(path)?,
        (None, None) => bail!(
            "no camera: give --device, --file, or a configuration with camera.device or camera.path"
        ),
    };
    let image = blacken(image, &config.privacy);
    let image = match config.region {
        Some(region) => crop(&image, region),
        None => image,
    };
    if let Some(path) = &args.save {
        save(&image, path)?;
    }
    show(args.json, &from, &format, &image, damaged);
    Ok(ExitCode::SUCCESS)
}

fn camera(args: &Args) -> anyhow::Result<CameraConfig> {
    let configured = args.config.as_deref().map(Config::read).transpose()?;
    let mut config = configured.map(|config| config.camera).unwrap_or_default();
    if args.device.is_some() || args.file.is_some() {
        config.device.clone_from(&args.device);
        config.path.clone_from(&args.file);
    }
    config.format = args.format.or(config.format);
    config.size = args.size.unwrap_or(config.size);
    Ok(config)
}

/// A picture, and how it was come by.
struct Taken {
    from: String,
    format: String,
    image: Image,
    /// Pictures before it that could not be used.
    damaged: u32,
}

/// The first picture of a file or folder.
fn read(path: &Path) -> Result<Taken, SenseError> {
    let mut camera = FileCamera::open(path, false, Duration::ZERO)?;
    let mut damaged = 0;
    loop {
        match camera.read() {
            Ok(Some(frame)) => {
                let format = Path::new(&frame.source).extension().unwrap_or_default();
                let format = format.to_string_lossy().to_lowercase();
                return Ok(Taken { from: frame.source, format, image: frame.image, damaged });
            }
            Err(_) => damaged += 1,
            Ok(None) => {
                return Err(SenseError::Path {
                    path: path.to_owned(),
                    reason: "there is no picture".into(),
                });
            }
        }
    }
}

/// The first whole picture after the warm-up.
fn take(device: &str, stream: &mut dyn RawStream, warm_up: u32) -> anyhow::Result<Taken> {
    for _ in 0..warm_up {
        stream.next()?;
    }
    let mut damaged = 0;
    loop {
        let raw = stream.next()?;
        let image =
            if raw.damaged { Err(FrameError::Marked) } else { to_image(raw.bytes, raw.layout) };
        match image {
            Ok(image) => {
                let (from, format) = (device.to_owned(), raw.layout.format.to_string());
                return Ok(Taken { from, format, image, damaged });
            }
            Err(last) => {
                damaged += 1;
                if damaged == MOST_DAMAGED {
                    bail!("{damaged} damaged pictures in a row, the last: {last}");
                }
            }
        }
    }
}

fn save(image: &Image, path: &Path) -> anyhow::Result<()> {
    let picture = RgbImage::from_raw(image.width, image.height, image.rgb.to_vec())
        .context("a picture of the wrong size")?;
    picture.save(path).with_context(|| path.display().to_string())
}

/// The mean of each colour, from 0 to 255.
fn mean(image: &Image) -> [f64; 3] {
    let mut sums = [0u64; 3];
    for pixel in image.rgb.chunks_exact(3) {
        sums.iter_mut().zip(pixel).for_each(|(sum, colour)| *sum += u64::from(*colour));
    }
    let pixels = (image.rgb.len() / 3).max(1) as f64;
    sums.map(|sum| (sum as f64 / pixels * 10.0).round() / 10.0)
}

fn show(as_json: bool, device: &str, format: &str, image: &Image, damaged: u32) {
    let Image { width, height, .. } = *image;
    let mean = mean(image);
    if as_json {
        out!(
            "{}",
            json!({"device": device, "format": format, "width": width, "height": height,
                "mean": mean, "damaged": damaged})
        );
        return;
    }
    let [red, green, blue] = mean;
    out!(
        "{device}  {format}, {width}x{height}, mean colour {red:.0} {green:.0} {blue:.0}, {damaged} damaged before it"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_wrong_ones_refused() {
        assert_eq!(size("640x480"), Ok([640, 480]));
        for wrong in ["640", "640x", "x480", "-1x5", "640*480"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_mean_colour_is_of_all_pixels() {
        let image = Image { width: 2, height: 1, rgb: vec![0, 10, 255, 1, 30, 255].into() };
        assert!(mean(&image).iter().zip([0.5, 20.0, 255.0]).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
