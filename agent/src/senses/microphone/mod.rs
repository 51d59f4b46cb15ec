//! The microphone: a sound card or files → utterances, on a thread of its own.
//!
//! [`AudioSource`] (a [`device`] on [`pcm`], or files) → gate → [`meter`] → [`ear`] ([`attention`] with a spotter of its word, endpoint with a [`judge`]) → [`Heard`].
//! While the gate is closed nothing passes it, and what was under way is dropped.

pub mod attention;
pub mod device;
pub mod ear;
pub mod judge;
pub mod meter;
pub mod pcm;
pub mod samples;
mod spotter;
pub mod status;
mod stillness;

use std::path::PathBuf;
use std::time::Duration;

use outpost_runtime::media::Channel;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::{Faults, millis};
use crate::event::Utterance;
use crate::heartbeat::Pulse;
use crate::senses::endpoint::EndpointConfig;
use crate::senses::files::FileMicrophone;
use crate::senses::gate::Gate;
use crate::senses::mailbox::{Sender, mailbox};
use crate::senses::microphone::attention::WakeConfig;
use crate::senses::microphone::device::{Capture, Device};
use crate::senses::microphone::ear::Ear;
use crate::senses::microphone::judge::Vad;
use crate::senses::microphone::meter::Meter;
use crate::senses::microphone::pcm::{Pcm, PcmOptions};
use crate::senses::microphone::status::{MicrophoneState, Status};
use crate::senses::{AudioSource, Pace, STUCK, Sense, SenseError, start};

/// Messages that wait for the agent at most; a live microphone then drops the oldest.
const HEARD_CAPACITY: usize = 32;
/// Pause before a file that failed is read again.
const RETRY: Duration = Duration::from_secs(1);

/// `[microphone]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MicrophoneConfig {
    /// An ALSA device, as `arecord -L` lists it; none, and no path: no microphone.
    pub device: Option<String>,
    /// Sound that the device hands over at a time.
    #[serde(with = "millis", rename = "period_ms")]
    pub period: Duration,
    /// Sound that the device keeps until it is read.
    #[serde(with = "millis", rename = "buffer_ms")]
    pub buffer: Duration,
    /// Which channel is heard: `auto`, the mean where they agree and else the loudest; `mix`; or a number from 1 on.
    #[serde(with = "channel")]
    pub channel: Channel,
    /// In place of a device: a sound file or a folder of them, played in the order of their names.
    pub path: Option<PathBuf>,
    /// Whether to begin anew at the end of the files.
    pub repeat: bool,
    /// Whether the files take their time.
    pub pace: Pace,
    /// Silence after each file.
    #[serde(with = "millis", rename = "gap_ms")]
    pub gap: Duration,
    /// What tells speech from other sound.
    pub vad: Vad,
    /// Whether it is heard only while `set/listen` is on or the board's button is down.
    pub push_to_talk: bool,
    /// How utterances are cut out.
    pub endpoint: EndpointConfig,
    /// Whether a word has to be said first.
    pub wake: WakeConfig,
}

impl Default for MicrophoneConfig {
    fn default() -> Self {
        Self {
            device: None,
            period: Duration::from_millis(20),
            buffer: Duration::from_millis(500),
            channel: Channel::Auto,
            path: None,
            repeat: false,
            pace: Pace::Realtime,
            gap: Duration::from_secs(1),
            vad: Vad::Silero,
            push_to_talk: false,
            endpoint: EndpointConfig::default(),
            wake: WakeConfig::default(),
        }
    }
}

/// A word or a number.
mod channel {
    use outpost_runtime::media::Channel;
    use serde::de::{Deserialize, Deserializer, Error};

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Word(String),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Channel, D::Error> {
        let text = match Written::deserialize(from) {
            Ok(Written::Number(number)) => number.to_string(),
            Ok(Written::Word(word)) => word,
            Err(_) => "this".to_owned(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl MicrophoneConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if let (Some(device), Some(_)) = (&self.device, &self.path) {
            faults.add("microphone.device", device, "give a device or a path, not both");
        }
        if !(5..=500).contains(&self.period.as_millis()) {
            faults.add(
                "microphone.period_ms",
                self.period.as_millis(),
                "use a value from 5 to 500",
            );
        }
        if self.buffer < self.period * 2 || self.buffer > Duration::from_secs(10) {
            faults.add(
                "microphone.buffer_ms",
                self.buffer.as_millis(),
                "use two periods or more, and at most 10000",
            );
        }
        self.endpoint.check(faults);
        self.wake.check(faults);
    }

    /// The gate that this microphone needs, where the board has a button for it or not.
    pub fn gate(&self, has_button: bool) -> Gate {
        let needs_holding = self.push_to_talk || has_button && self.wake.word.is_none();
        if needs_holding { Gate::held() } else { Gate::open() }
    }
}

/// Why nothing is made of what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// It was loud, but no speech.
    Noise,
    /// It was speech, but too short to be a command.
    TooShort,
    /// Nobody spoke while the agent waited for it.
    Timeout,
    /// Mute was set meanwhile.
    Muted,
}

impl Unheard {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::TooShort => "too_short",
            Self::Timeout => "timeout",
            Self::Muted => "muted",
        }
    }
}

/// What the microphone's thread tells the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Speech began.
    Started,
    /// The speaker paused: if nothing more is said, this is the utterance.
    Paused(Utterance),
    /// The speaker went on.
    Resumed,
    /// Nothing is made of it.
    Nothing {
        /// Why.
        why: Unheard,
        /// The device or file.
        source: String,
        /// Where in the stream it began.
        start: Duration,
        /// How long it was.
        duration: Duration,
    },
    /// An utterance ended.
    Utterance(Utterance),
    /// The microphone came, went, is clipping or is dead: see its status.
    Changed,
}

#[cfg(test)]
mod tests;

/// Opens the microphone of a configuration, if there is one, and starts its thread. It hears while the gate is open; `pulse` tells
/// that it goes on.
///
/// # Errors
/// When a file cannot be read. A device may be missing: it is opened when it comes.
pub fn start_microphone(
    config: &MicrophoneConfig,
    (gate, status): (Gate, Status),
    pulse: Pulse,
) -> Result<Option<Sense<Heard>>, SenseError> {
    let Some(source) = open(config)? else { return Ok(None) };
    listen(source, config.clone(), (gate, status), pulse).map(Some)
}

/// The source of a configuration, if there is one.
///
/// # Errors
/// When a file cannot be read.
pub fn open(config: &MicrophoneConfig) -> Result<Option<Box<dyn AudioSource>>, SenseError> {
    if let Some(name) = config.device.clone() {
        let (period, buffer) = (config.period, config.buffer);
        let options = PcmOptions { name: name.clone(), period, buffer, channel: config.channel };
        let open = move || Ok(Box::new(Pcm::open(&options)?) as Box<dyn Capture>);
        return Ok(Some(Box::new(Device::new(name, Box::new(open)))));
    }
    let Some(path) = &config.path else { return Ok(None) };
    let files = FileMicrophone::open(path, config)?;
    Ok(Some(Box::new(files)))
}

/// Starts the thread that cuts a source into utterances.
///
/// # Errors
/// When the wake word cannot be read or the thread not be started.
pub fn listen(
    source: Box<dyn AudioSource>,
    config: MicrophoneConfig,
    (gate, status): (Gate, Status),
    pulse: Pulse,
) -> Result<Sense<Heard>, SenseError> {
    let (sender, receiver) = mailbox(HEARD_CAPACITY);
    let ear = Ear::new(&config, source.name())?;
    let shown = source.state();
    status.set(shown.clone());
    let mut listener = Listener {
        name: source.name(),
        source,
        config,
        ear,
        meter: Meter::default(),
        shown,
        was_open: gate.is_open(),
        mutes: gate.mutes(),
        gate,
        status,
        sender,
        is_held: false,
    };
    start("microphone", receiver, move || {
        let mut chunk = Vec::new();
        while listener.round(&mut chunk) {
            if listener.source.is_live() {
                pulse.promise(Instant::now() + STUCK);
            }
        }
    })
}

/// What the microphone's thread has.
struct Listener {
    source: Box<dyn AudioSource>,
    name: String,
    config: MicrophoneConfig,
    ear: Ear,
    meter: Meter,
    shown: MicrophoneState,
    gate: Gate,
    status: Status,
    sender: Sender<Heard>,
    is_held: bool,
    was_open: bool,
    /// How often mute had been set at the last look.
    mutes: u64,
}

impl Listener {
    /// Reads once; false when it is over.
    fn round(&mut self, chunk: &mut Vec<f32>) -> bool {
        let mut heard = Vec::new();
        let mutes = self.gate.mutes();
        let was_muted = std::mem::replace(&mut self.mutes, mutes) != mutes;
        if was_muted || !self.gate.is_open() {
            if std::mem::take(&mut self.was_open) {
                if was_muted || self.gate.is_muted() {
                    self.ear.mute(&mut heard);
                } else {
                    self.ear.close(&mut heard);
                }
                self.is_held = false;
                // What a muted microphone measured is nobody's business either.
                self.meter = Meter::default();
            }
            self.source.skip();
            return self.show(&mut heard) && self.send(heard);
        }
        self.was_open = true;
        chunk.clear();
        let read = self.source.read(chunk);
        // Closed in the meantime: what was read then is dropped, and the next round ends what is under way.
        if self.gate.mutes() != self.mutes || !self.gate.is_open() {
            return true;
        }
        self.follow_button(&mut heard);
        let more = match read {
            Ok(more) => more,
            Err(error) => {
                warn!(%error, "the microphone cannot be read");
                self.ear.finish(&mut heard);
                std::thread::sleep(RETRY);
                true
            }
        };
        self.follow_source(&mut heard);
        self.meter.push(chunk);
        self.ear.push(chunk, &mut heard);
        if !more {
            self.ear.finish(&mut heard);
            info!("the microphone's source has ended");
        }
        self.show(&mut heard) && self.send(heard) && more
    }

    /// A button beside the wake word stands for it.
    fn follow_button(&mut self, heard: &mut Vec<Heard>) {
        let is_held = self.gate.is_held();
        match (std::mem::replace(&mut self.is_held, is_held), is_held) {
            (false, true) => self.ear.attend(),
            (true, false) => self.ear.close(heard),
            _ => {}
        }
    }

    /// Another file is another stream, and so is a device that came back.
    fn follow_source(&mut self, heard: &mut Vec<Heard>) {
        let reopened = self.source.state().reopened != self.shown.reopened;
        if self.source.name() == self.name && !reopened {
            return;
        }
        self.ear.finish(heard);
        self.name = self.source.name();
        match Ear::new(&self.config, self.name.clone()) {
            Ok(ear) => self.ear = ear,
            Err(error) => warn!(%error, "the wake word cannot be read again; it goes on as before"),
        }
    }

    /// Shows how the microphone is; what is worth telling is said at once.
    fn show(&mut self, heard: &mut Vec<Heard>) -> bool {
        let mut now = MicrophoneState { level: self.meter.level(), ..self.source.state() };
        // Files pause with zeros.
        now.level.dead &= self.config.device.is_some();
        if !now.is_alike(&self.shown) {
            heard.push(Heard::Changed);
            if now.level.dead && !self.shown.level.dead {
                warn!(
                    device = self.name,
                    "the microphone gives only zeros: is it switched off or not plugged in?"
                );
            }
            if now.level.clipping && !self.shown.level.clipping {
                warn!(
                    device = self.name,
                    "the microphone is clipping: lower its gain with `alsamixer`"
                );
            }
        }
        self.status.set(now.clone());
        self.shown = now;
        !self.sender.is_closed()
    }

    fn send(&self, heard: Vec<Heard>) -> bool {
        let live = self.source.is_live();
        heard.into_iter().all(|heard| {
            if live { self.sender.push(heard) } else { self.sender.push_waiting(heard) }
        })
    }
}
