//! `outpost look`: one picture of the camera, for setting one up. No model is needed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use image::RgbImage;
use outpost_agent_core::config::{CameraConfig, Config, PixelFormat};
use outpost_runtime::Image;
use outpost_senses::camera::area::{blacken, crop};
use outpost_senses::camera::negotiate::ModeRequest;
use outpost_senses::camera::pixels::{FrameError, to_image};
use outpost_senses::camera::raw::{RawCamera as _, RawStream};
use outpost_senses::camera::v4l2::V4l2Camera;
use serde_json::json;

/// A camera that sends nothing but damaged pictures is given up after so many.
const MOST_DAMAGED: u32 = 10;

/// Take a picture with the camera: what was agreed on with it, and what the agent gets to see.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration whose `[camera]` is used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A capture device instead, such as /dev/video0.
    #[arg(long, value_name = "PATH")]
    device: Option<String>,
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
    let Some(device) = config.device.clone() else {
        bail!("no camera: give --device, or a configuration with camera.device")
    };
    let mut stream = V4l2Camera::new(device.clone(), ModeRequest::from(&config)).open()?;
    let (format, image, damaged) = take(stream.as_mut(), config.warm_up)?;
    let image = blacken(image, &config.privacy);
    let image = match config.region {
        Some(region) => crop(&image, region),
        None => image,
    };
    if let Some(path) = &args.save {
        save(&image, path)?;
    }
    show(args.json, &device, format, &image, damaged);
    Ok(ExitCode::SUCCESS)
}

fn camera(args: &Args) -> anyhow::Result<CameraConfig> {
    let configured = args.config.as_deref().map(Config::read).transpose()?;
    let mut config = configured.map(|config| config.camera).unwrap_or_default();
    config.device = args.device.clone().or(config.device);
    config.format = args.format.or(config.format);
    config.size = args.size.unwrap_or(config.size);
    Ok(config)
}

/// The first whole picture after the warm-up, and how many were damaged before it.
fn take(stream: &mut dyn RawStream, warm_up: u32) -> anyhow::Result<(PixelFormat, Image, u32)> {
    for _ in 0..warm_up {
        stream.next()?;
    }
    let mut damaged = 0;
    loop {
        let raw = stream.next()?;
        let image =
            if raw.damaged { Err(FrameError::Marked) } else { to_image(raw.bytes, raw.layout) };
        match image {
            Ok(image) => return Ok((raw.layout.format, image, damaged)),
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

#[expect(clippy::print_stdout, reason = "the command's output")]
fn show(as_json: bool, device: &str, format: PixelFormat, image: &Image, damaged: u32) {
    let Image { width, height, .. } = *image;
    let mean = mean(image);
    if as_json {
        println!(
            "{}",
            json!({"device": device, "format": format.to_string(), "width": width, "height": height,
                "mean": mean, "damaged": damaged})
        );
        return;
    }
    let [red, green, blue] = mean;
    println!(
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
