//! V4L2: the one file that names the crate `v4l`.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use outpost_agent_core::config::PixelFormat;
use tracing::{error, info};
use v4l::buffer::{Flags as BufferFlags, Type};
use v4l::capability::Flags;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream as Mapped;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture as _;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC};

use crate::camera::negotiate::{Mode, Range, Wish, choose};
use crate::camera::pixels::Layout;
use crate::camera::raw::{CameraError, RawCamera, RawFrame, RawStream};

/// Buffers asked of the driver: it fills one while another is read.
const BUFFERS: u32 = 4;
/// A camera that sends nothing for so long has stalled.
const PATIENCE: Duration = Duration::from_secs(5);
/// `POLLIN` of poll(2).
const POLLIN: i16 = 1;

// errno(3) of Linux.
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// A capture device by its path, which the kernel may give to another device later: best one below `/dev/v4l/by-id`.
#[derive(Debug)]
pub struct V4l2Camera {
    path: String,
    wish: Wish,
}

impl V4l2Camera {
    /// The camera at a path, such as `/dev/video0`; opened later.
    pub fn new(path: String, wish: Wish) -> Self {
        Self { path, wish }
    }
}

impl RawCamera for V4l2Camera {
    fn open(&mut self) -> Result<Box<dyn RawStream>, CameraError> {
        let device = open(&self.path)?;
        let path = self.path.as_str();
        let fault = |step| move |error| system(path, step, error);
        let modes = modes(&device, self.wish.size).map_err(fault("asking for its formats"))?;
        let mode = choose(&modes, self.wish).ok_or_else(|| self.nothing_to_read(&modes))?;
        let asked = Format::new(mode.width, mode.height, FourCC::new(&mode.format.fourcc()));
        let given = device.set_format(&asked).map_err(fault("setting its format"))?;
        let format = PixelFormat::from_fourcc(given.fourcc.repr)
            .ok_or_else(|| self.nothing_to_read(&modes))?;
        // Not every driver lets its rate be set; the pace is kept in any case.
        let rate = Parameters::with_fps(self.wish.fps.ceil().max(1.0) as u32);
        drop(device.set_params(&rate));
        let stride = if format == PixelFormat::Mjpg { 0 } else { given.stride };
        let layout = Layout { format, width: given.width, height: given.height, stride };
        let mut mapped = Mapped::with_buffers(&device, Type::VideoCapture, BUFFERS)
            .map_err(fault("asking for buffers"))?;
        // The first buffer is queued by the first call of `next`. A driver may have given fewer than were asked for.
        for index in 1..BUFFERS as usize {
            if CaptureStream::queue(&mut mapped, index).is_err() {
                break;
            }
        }
        mapped.start().map_err(fault("starting the stream"))?;
        info!(camera = self.path, %format, width = given.width, height = given.height, "camera open");
        Ok(Box::new(V4l2Stream { path: self.path.clone(), mapped: Some(mapped), layout }))
    }

    fn name(&self) -> String {
        self.path.clone()
    }
}

impl V4l2Camera {
    fn nothing_to_read(&self, modes: &[Mode]) -> CameraError {
        let known: Vec<String> = PixelFormat::ALL.iter().map(ToString::to_string).collect();
        let reason = match self.wish.format {
            Some(format) if !modes.is_empty() => {
                format!("does not offer {format}: leave camera.format out")
            }
            _ => format!("offers none of {}", known.join(", ")),
        };
        CameraError::Unfit { device: self.path.clone(), reason }
    }
}

/// Opens a path and makes sure that it is a camera.
pub(super) fn open(path: &str) -> Result<Device, CameraError> {
    if path.contains('\0') {
        return Err(CameraError::Missing { device: path.to_owned() });
    }
    let device =
        Device::with_path(Path::new(path)).map_err(|error| system(path, "opening it", error))?;
    let unfit =
        |reason: &str| CameraError::Unfit { device: path.to_owned(), reason: reason.into() };
    let about = device.query_caps().map_err(|_| unfit("is no video device"))?;
    let can = |flag| about.capabilities.contains(flag);
    if can(Flags::VIDEO_CAPTURE) && can(Flags::STREAMING) {
        return Ok(device);
    }
    Err(if can(Flags::VIDEO_CAPTURE_MPLANE) {
        unfit(
            "is a multi-planar device, which is not supported: use the camera's other device, or a v4l2loopback in front of it",
        )
    } else {
        unfit("gives no pictures (a metadata or output device): use the camera's other device")
    })
}

/// The modes that can be read; of a range of sizes, the one nearest to `size`.
pub(super) fn modes(device: &Device, size: [u32; 2]) -> io::Result<Vec<Mode>> {
    let mut modes = Vec::new();
    for offer in device.enum_formats()? {
        let Some(format) = PixelFormat::from_fourcc(offer.fourcc.repr) else { continue };
        // A driver that tells no sizes takes what it is asked for.
        let sizes = device.enum_framesizes(offer.fourcc).unwrap_or_default();
        let mut given: Vec<[u32; 2]> = sizes
            .into_iter()
            .map(|offered| match offered.size {
                FrameSizeEnum::Discrete(one) => [one.width, one.height],
                FrameSizeEnum::Stepwise(range) => [
                    Range { min: range.min_width, max: range.max_width, step: range.step_width }
                        .nearest(size[0]),
                    Range { min: range.min_height, max: range.max_height, step: range.step_height }
                        .nearest(size[1]),
                ],
            })
            .collect();
        if given.is_empty() {
            given.push(size);
        }
        modes.extend(given.into_iter().map(|[width, height]| Mode {
            format,
            width,
            height,
            fps: fastest(device, offer.fourcc, width, height),
        }));
    }
    Ok(modes)
}

/// Asks for a buffer and gives it back: refused while another program has some.
pub(super) fn try_buffers(device: &Device) -> io::Result<()> {
    Mapped::with_buffers(device, Type::VideoCapture, 1).map(drop)
}

/// Most pictures a second at a size, where the driver says.
fn fastest(device: &Device, fourcc: FourCC, width: u32, height: u32) -> Option<f64> {
    let intervals = device.enum_frameintervals(fourcc, width, height).ok()?;
    let rate = |interval: &FrameIntervalEnum| {
        let shortest = match interval {
            FrameIntervalEnum::Discrete(one) => one,
            FrameIntervalEnum::Stepwise(range) => &range.min,
        };
        f64::from(shortest.denominator) / f64::from(shortest.numerator.max(1))
    };
    intervals.iter().map(|offered| rate(&offered.interval)).reduce(f64::max)
}

/// What the system's error means for a camera.
pub(super) fn system(path: &str, step: &'static str, source: io::Error) -> CameraError {
    let device = path.to_owned();
    match source.raw_os_error() {
        Some(ENOENT | ENODEV | ENXIO) => CameraError::Missing { device },
        Some(EBUSY) => CameraError::Busy { device },
        _ if source.kind() == ErrorKind::PermissionDenied => CameraError::Denied { device },
        _ => CameraError::System { device, step, source },
    }
}

struct V4l2Stream {
    path: String,
    /// There until the stream is dropped.
    mapped: Option<Mapped<'static>>,
    layout: Layout,
}

impl V4l2Stream {
    /// Waits for a picture before the crate does, since that gives up when a signal arrives.
    fn wait(&self, mapped: &Mapped<'_>) -> Result<(), CameraError> {
        let started = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            match mapped.handle().poll(POLLIN, left.as_millis() as i32) {
                Ok(0) => {
                    return Err(CameraError::Silent {
                        device: self.path.clone(),
                        waited: PATIENCE,
                    });
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(system(&self.path, "waiting for a picture", error)),
            }
        }
    }
}

impl RawStream for V4l2Stream {
    fn next(&mut self) -> Result<RawFrame<'_>, CameraError> {
        let gone = || CameraError::Unplugged { device: self.path.clone() };
        let layout = self.layout;
        self.wait(self.mapped.as_ref().ok_or_else(gone)?)?;
        let path = &self.path;
        let mapped =
            self.mapped.as_mut().ok_or_else(|| CameraError::Unplugged { device: path.clone() })?;
        let (bytes, about) = mapped.next().map_err(|error| match error.raw_os_error() {
            Some(ENODEV) => CameraError::Unplugged { device: path.clone() },
            _ => system(path, "taking a picture", error),
        })?;
        let used = bytes.len().min(about.bytesused as usize);
        let damaged = about.flags.contains(BufferFlags::ERROR);
        Ok(RawFrame { bytes: &bytes[..used], layout, damaged })
    }
}

impl Drop for V4l2Stream {
    /// The crate panics where a stream cannot be stopped for any reason but that the device is gone; it is better left open.
    fn drop(&mut self) {
        let Some(mut mapped) = self.mapped.take() else { return };
        if let Err(fault) = mapped.stop()
            && fault.raw_os_error() != Some(ENODEV)
        {
            error!(camera = self.path, %fault, "cannot be stopped and is left open");
            std::mem::forget(mapped);
        }
    }
}
