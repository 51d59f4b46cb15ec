//! An ALSA capture device: any PCM, in whatever format it offers.

use std::time::Duration;

use alsa::pcm::{Access, Format, HwParams, PCM, State};
use alsa::{Direction, ValueOr};
use outpost_runtime::media::{Channel, Mixer};

use crate::microphone::device::{Capture, Lost, Taken};
use crate::microphone::samples::{Encoding, mix_down};

/// Preferred formats, best first: what speech needs, then what loses least.
const FORMATS: [(Format, Encoding); 6] = [
    (Format::S16LE, Encoding::S16),
    (Format::S32LE, Encoding::S32),
    (Format::FloatLE, Encoding::Float),
    (Format::S24LE, Encoding::S24),
    (Format::S243LE, Encoding::S24Packed),
    (Format::U8, Encoding::U8),
];
/// Hints; the device picks the nearest.
const RATE: u32 = outpost_runtime::audio::RATE;
/// Longest wait of one read, so that the thread notices shutdown.
const TIMEOUT_MS: u32 = 200;

/// End of the error message for a device that another program uses, perhaps the agent.
pub const IN_USE: &str =
    ": another program has it open; use `default` or a dsnoop device to share it";

/// How a device is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcmOptions {
    /// As `arecord -L` lists it.
    pub name: String,
    /// Period; the device may round it.
    pub period: Duration,
    /// Buffer; the device may round it.
    pub buffer: Duration,
    /// Which of its channels is heard.
    pub channel: Channel,
}

/// An open device.
pub struct Pcm {
    handle: PCM,
    rate: u32,
    channels: usize,
    encoding: Encoding,
    mixer: Mixer,
    format: String,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Pcm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pcm").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Pcm {
    /// Opens a device and starts it.
    ///
    /// # Errors
    /// If the device does not exist, is in use, or offers no supported format.
    pub fn open(options: &PcmOptions) -> Result<Self, Lost> {
        let failed = |step: &'static str| move |fault: alsa::Error| lost(step, fault);
        // Non-blocking open: a device in use is an error, rather than a thread that hangs.
        let pcm = PCM::new(&options.name, Direction::Capture, true).map_err(failed("open"))?;
        let encoding = negotiate(&pcm, options).map_err(failed("ask for a format"))?;
        let Some(encoding) = encoding else {
            return Err(Lost("it offers none of S16, S32, FLOAT, S24, S24_3 and U8".into()));
        };
        let chosen = pcm.hw_params_current().map_err(failed("ask for its format"))?;
        let rate = chosen.get_rate().map_err(failed("ask for its rate"))?;
        let channels = chosen.get_channels().map_err(failed("ask for its channels"))?;
        let period = chosen.get_period_size().map_err(failed("ask for its period"))?;
        drop(chosen);
        if let Channel::Only(number) = options.channel
            && u32::from(number) > channels
        {
            return Err(Lost(format!(
                "it has {channels} channels, and no channel {number}: set microphone.channel to one that it has"
            )));
        }
        pcm.start().map_err(failed("start"))?;
        let frame = encoding.bytes() * channels as usize;
        Ok(Self {
            format: format!("{rate} Hz, {channels} channels, {encoding:?}"),
            bytes: vec![0; frame * usize::try_from(period).unwrap_or(0).max(1)],
            channels: channels as usize,
            mixer: Mixer::new(options.channel),
            handle: pcm,
            rate,
            encoding,
        })
    }
}

/// Configures the device. Returns the encoding, if it offers a supported one.
fn negotiate(pcm: &PCM, options: &PcmOptions) -> alsa::Result<Option<Encoding>> {
    let params = HwParams::any(pcm)?;
    // Disable the plug-in's resampler (linear interpolation): ours is better.
    params.set_rate_resample(false)?;
    params.set_access(Access::RWInterleaved)?;
    let offered = FORMATS.iter().find(|(format, _)| params.test_format(*format).is_ok());
    let Some((format, encoding)) = offered else { return Ok(None) };
    params.set_format(*format)?;
    // A single one where all is mixed; where one is to be heard, those up to it.
    params.set_channels_near(match options.channel {
        Channel::Only(number) => number.into(),
        Channel::Auto | Channel::Mix => 1,
    })?;
    params.set_rate_near(RATE, ValueOr::Nearest)?;
    params.set_period_time_near(micros(options.period), ValueOr::Nearest)?;
    params.set_buffer_time_near(micros(options.buffer), ValueOr::Nearest)?;
    pcm.hw_params(&params)?;
    Ok(Some(*encoding))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl Capture for Pcm {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn format(&self) -> &str {
        &self.format
    }

    fn take(&mut self, mono: &mut Vec<f32>) -> Result<Taken, Lost> {
        let read = match self.handle.wait(Some(TIMEOUT_MS)) {
            Ok(false) => return Ok(Taken::Nothing),
            Ok(true) => {
                // A plug-in may deliver less than it reports; don't process stale samples again.
                self.bytes.fill(0);
                self.handle.io_bytes().readi(&mut self.bytes)
            }
            Err(fault) => Err(fault),
        };
        match read {
            Ok(0) => Ok(Taken::Nothing),
            Ok(frames) => {
                let length = frames * self.channels * self.encoding.bytes();
                let layout = (self.encoding, self.channels);
                mix_down(&self.bytes[..length], layout, &mut self.mixer, mono);
                Ok(Taken::Sound)
            }
            Err(fault) if fault.errno() == libc::EAGAIN => Ok(Taken::Nothing),
            Err(fault) if matches!(fault.errno(), libc::EPIPE | libc::ESTRPIPE | libc::EINTR) => {
                self.handle.try_recover(fault, true).map_err(|fault| lost("recover", fault))?;
                if self.handle.state() != State::Running {
                    self.handle.start().map_err(|fault| lost("start again", fault))?;
                }
                Ok(Taken::Overrun)
            }
            Err(fault) => Err(lost("read", fault)),
        }
    }
}

fn lost(step: &str, fault: alsa::Error) -> Lost {
    let remedy = match fault.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EBADFD => {
            ": it is not there; `arecord -L` lists the devices"
        }
        libc::EBUSY => IN_USE,
        libc::EACCES | libc::EPERM => ": add the user to the group `audio`",
        libc::EINVAL => ": it does not offer what was asked for; try its `plughw:` name",
        _ => "",
    };
    Lost(format!("cannot {step} ({}){remedy}", std::io::Error::from_raw_os_error(fault.errno())))
}
