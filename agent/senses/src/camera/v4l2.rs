//! V4L2. The only file that names the crate `v4l`.

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

use crate::camera::negotiate::{Mode, ModeRequest, Range, choose};
use crate::camera::pixels::PixelLayout;
use crate::camera::raw::{CameraError, RawCamera, RawFrame, RawStream};

/// Requested buffers: the driver fills one while another is read.
const BUFFERS: u32 = 4;
/// A camera that sends nothing for this long has stalled.
const TIMEOUT: Duration = Duration::from_secs(5);
/// `POLLIN` of poll(2).
const POLLIN: i16 = 1;

// errno(3) of Linux.
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// A capture device by path. The kernel may reuse `/dev/videoN` for another device; prefer a path
/// below `/dev/v4l/by-id`.
#[derive(Debug)]
pub struct V4l2Camera {
    path: String,
    request: ModeRequest,
}

impl V4l2Camera {
    /// The camera at a path, such as `/dev/video0`; opened later.
    pub fn new(path: String, request: ModeRequest) -> Self {
        Self { path, request }
    }
}

impl RawCamera for V4l2Camera {
    fn open(&mut self) -> Result<Box<dyn RawStream>, CameraError> {
        let device = open(&self.path)?;
        let path = self.path.as_str();
        let fault = |step| move |error| system(path, step, error);
        let modes = modes(&device, self.request.size).map_err(fault("asking for its formats"))?;
        let mode = choose(&modes, self.request).ok_or_else(|| self.nothing_to_read(&modes))?;
        let asked = Format::new(mode.width, mode.height, FourCC::new(&mode.format.fourcc()));
        let given = device.set_format(&asked).map_err(fault("setting its format"))?;
        let format = PixelFormat::from_fourcc(given.fourcc.repr)
            .ok_or_else(|| self.nothing_to_read(&modes))?;
        // Not every driver supports setting the rate; the rate is limited anyway.
        let rate = Parameters::with_fps(self.request.fps.ceil().max(1.0) as u32);
        drop(device.set_params(&rate));
        let stride = if format == PixelFormat::Mjpg { 0 } else { given.stride };
        let layout = PixelLayout { format, width: given.width, height: given.height, stride };
        let mut mapped = Mapped::with_buffers(&device, Type::VideoCapture, BUFFERS)
            .map_err(fault("asking for buffers"))?;
        // The first call of `next` queues the first buffer. A driver may grant fewer buffers than
        // requested.
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
        let reason = match self.request.format {
            Some(format) if !modes.is_empty() => {
                format!("does not offer {format}: leave camera.format out")
            }
            _ => format!("offers none of {}", known.join(", ")),
        };
        CameraError::Unfit { device: self.path.clone(), reason }
    }
}

/// Opens a path and checks that it is a camera.
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

/// Supported modes; of a range of sizes, the nearest to `size`.
pub(super) fn modes(device: &Device, size: [u32; 2]) -> io::Result<Vec<Mode>> {
    let mut modes = Vec::new();
    for offer in device.enum_formats()? {
        let Some(format) = PixelFormat::from_fourcc(offer.fourcc.repr) else { continue };
        // A driver that lists no sizes takes what is requested.
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

/// Requests and releases a buffer; refused while another program streams.
pub(super) fn try_buffers(device: &Device) -> io::Result<()> {
    Mapped::with_buffers(device, Type::VideoCapture, 1).map(drop)
}

/// Maximum frame rate at a size, if known.
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

/// Maps a system error to what it means for a camera.
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
    /// Present until the stream is dropped.
    mapped: Option<Mapped<'static>>,
    layout: PixelLayout,
}

impl V4l2Stream {
    /// Polls before the crate does, since the crate gives up on a signal.
    fn wait(&self, mapped: &Mapped<'_>) -> Result<(), CameraError> {
        let started = Instant::now();
        loop {
            let left = TIMEOUT.saturating_sub(started.elapsed());
            match mapped.handle().poll(POLLIN, left.as_millis() as i32) {
                Ok(0) => {
                    return Err(CameraError::Silent { device: self.path.clone(), waited: TIMEOUT });
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
    /// The crate panics if a stream cannot be stopped for any reason other than a lost device; leak
    /// it instead.
    fn drop(&mut self) {
        let Some(mut mapped) = self.mapped.take() else { return };
        if let Err(fault) = mapped.stop()
            && fault.raw_os_error() != Some(ENODEV)
        {
            error!(camera = self.path, %fault, "cannot be stopped: leaving it open");
            std::mem::forget(mapped);
        }
    }
}
