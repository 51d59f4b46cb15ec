//! What the device hears and sees. Each source has one OS thread, which blocks on it and hands over through a bounded queue.
//!
//! [`AudioSource`] and [`FrameSource`] are what a back end implements: [`files`] has both, [`camera`] a capture device.

pub mod camera;
pub mod endpoint;
pub mod files;
pub mod gate;
pub mod mailbox;

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::{Faults, millis};
use crate::event::{Frame, Utterance};
use crate::heartbeat::Pulse;
use crate::senses::endpoint::{Cut, Endpoint, EndpointConfig};
use crate::senses::files::FileMicrophone;
use crate::senses::gate::Gate;
use crate::senses::mailbox::{Receiver, Sender, mailbox};
use outpost_runtime::Audio;

/// Utterances that wait for the agent at most; a live microphone then drops the oldest.
const HEARD_CAPACITY: usize = 32;

/// Pause before a microphone that failed is read again.
const RETRY: Duration = Duration::from_secs(1);
/// A live source that gives nothing, not even an error, for so long is stuck.
const STUCK: Duration = Duration::from_mins(1);

/// A source of sound, read by a thread of its own.
pub trait AudioSource: Send {
    /// Samples a second of what [`AudioSource::read`] gives.
    fn rate(&self) -> u32;

    /// Waits for the next sound and appends it to `chunk`; false at the end of the source.
    ///
    /// # Errors
    /// When the source failed. It may be read again: a device can come back.
    fn read(&mut self, chunk: &mut Vec<f32>) -> Result<bool, SenseError>;

    /// Lets a while pass unheard, since nobody may be heard now. A recording waits in the meantime.
    fn skip(&mut self);

    /// What is being read: a device or file name.
    fn name(&self) -> String;

    /// Whether sound is lost when it is not read in time.
    fn is_live(&self) -> bool;
}

/// A source of pictures, read by a thread of its own.
pub trait FrameSource: Send {
    /// Waits for the next picture; none at the end of the source.
    ///
    /// # Errors
    /// When the source failed. It may be read again: a device can come back.
    fn read(&mut self) -> Result<Option<Frame>, SenseError>;

    /// Lets a picture pass unseen, since nobody may look now; false at the end of the source.
    ///
    /// # Errors
    /// As [`FrameSource::read`].
    fn skip(&mut self) -> Result<bool, SenseError> {
        self.read().map(|frame| frame.is_some())
    }

    /// What is being read: a device or file name.
    fn name(&self) -> String;

    /// Whether pictures are lost when they are not read in time.
    fn is_live(&self) -> bool;
}

/// A source that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SenseError {
    /// A file cannot be used.
    #[error(transparent)]
    Media(#[from] outpost_runtime::Error),
    /// The path names nothing to play or show.
    #[error("{}: {reason}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what would do.
        reason: String,
    },
    /// The capture device.
    #[error(transparent)]
    Camera(#[from] camera::raw::CameraError),
    /// The thread of the source could not be started.
    #[error("starting the thread of a sense: {0}")]
    Thread(#[source] std::io::Error),
}

/// `[microphone]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MicrophoneConfig {
    /// A WAV file or a folder of them, played in the order of their names; none: no microphone.
    pub path: Option<PathBuf>,
    /// Whether to begin anew at the end.
    pub repeat: bool,
    /// Whether the sound takes its time.
    pub pace: Pace,
    /// Silence after each file.
    #[serde(with = "millis", rename = "gap_ms")]
    pub gap: Duration,
    /// How utterances are cut out.
    pub endpoint: EndpointConfig,
}

impl Default for MicrophoneConfig {
    fn default() -> Self {
        Self {
            path: None,
            repeat: false,
            pace: Pace::Realtime,
            gap: Duration::from_secs(1),
            endpoint: EndpointConfig::default(),
        }
    }
}

impl MicrophoneConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        self.endpoint.check(faults);
    }
}

/// How fast a recording is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// A second of sound takes a second, as from a microphone.
    Realtime,
    /// As fast as it is understood.
    Fast,
}

/// What the microphone's thread tells the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Speech began.
    Started,
    /// It was too short to be an utterance.
    Dropped,
    /// An utterance ended.
    Utterance(Utterance),
}

/// A running sense: its queue, and its thread.
#[derive(Debug)]
pub struct Sense<T> {
    /// What it found.
    pub receiver: Receiver<T>,
    /// Ends by itself once the receiver is dropped.
    pub thread: JoinHandle<()>,
}

/// Opens the microphone of a configuration, if there is one, and starts its thread. It hears while the gate is open; `pulse` tells
/// that it goes on.
///
/// # Errors
/// When the source cannot be opened.
pub fn start_microphone(
    config: &MicrophoneConfig,
    gate: Gate,
    pulse: Pulse,
) -> Result<Option<Sense<Heard>>, SenseError> {
    let Some(path) = &config.path else { return Ok(None) };
    let source = FileMicrophone::open(path, config.repeat, config.pace, config.gap)?;
    listen(Box::new(source), config.endpoint.clone(), gate, pulse).map(Some)
}

/// Starts the thread that cuts a source into utterances.
///
/// # Errors
/// When the thread cannot be started.
pub fn listen(
    mut source: Box<dyn AudioSource>,
    endpoint: EndpointConfig,
    gate: Gate,
    pulse: Pulse,
) -> Result<Sense<Heard>, SenseError> {
    let (sender, receiver) = mailbox(HEARD_CAPACITY);
    let run = move || {
        let mut chunk = Vec::new();
        let mut cutter = Cutter::new(endpoint, source.rate(), source.name());
        let mut was_open = true;
        loop {
            if source.is_live() {
                pulse.promise(Instant::now() + STUCK);
            }
            let is_open = gate.is_open();
            if !is_open {
                if was_open {
                    cutter.close(&sender, source.is_live());
                }
                if sender.is_closed() {
                    return;
                }
                was_open = false;
                source.skip();
                continue;
            }
            was_open = true;
            chunk.clear();
            let more = match source.read(&mut chunk) {
                Ok(more) => more,
                Err(error) => {
                    warn!(%error, "the microphone cannot be read");
                    cutter.finish(&sender, source.is_live());
                    if sender.is_closed() {
                        return;
                    }
                    std::thread::sleep(RETRY);
                    continue;
                }
            };
            if source.rate() != cutter.rate || source.name() != cutter.source {
                cutter.finish(&sender, source.is_live());
                cutter = Cutter::new(cutter.config.clone(), source.rate(), source.name());
            }
            if !cutter.push(&chunk, &sender, source.is_live()) {
                return;
            }
            if !more {
                cutter.finish(&sender, source.is_live());
                info!("the microphone's source has ended");
                return;
            }
        }
    };
    start("microphone", receiver, run)
}

fn start<T>(
    name: &str,
    receiver: Receiver<T>,
    run: impl FnOnce() + Send + 'static,
) -> Result<Sense<T>, SenseError> {
    let thread =
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(SenseError::Thread)?;
    Ok(Sense { receiver, thread })
}

/// Turns the sound of one source into messages to the agent.
struct Cutter {
    config: EndpointConfig,
    rate: u32,
    source: String,
    endpoint: Endpoint,
    cuts: Vec<Cut>,
}

impl Cutter {
    fn new(config: EndpointConfig, rate: u32, source: String) -> Self {
        Self {
            endpoint: Endpoint::new(config.clone(), rate),
            config,
            rate,
            source,
            cuts: Vec::new(),
        }
    }

    /// False once nobody listens.
    fn push(&mut self, chunk: &[f32], sender: &Sender<Heard>, live: bool) -> bool {
        self.endpoint.push(chunk, &mut self.cuts);
        self.send(sender, live) && !sender.is_closed()
    }

    /// The button came up: what was said so far is the utterance; if that is none, the agent need not wait for one.
    fn close(&mut self, sender: &Sender<Heard>, live: bool) {
        self.endpoint.finish(&mut self.cuts);
        if self.cuts.is_empty() {
            self.cuts.push(Cut::Dropped);
        }
        self.send(sender, live);
        self.endpoint = Endpoint::new(self.config.clone(), self.rate);
    }

    fn finish(&mut self, sender: &Sender<Heard>, live: bool) {
        self.endpoint.finish(&mut self.cuts);
        self.send(sender, live);
    }

    fn send(&mut self, sender: &Sender<Heard>, live: bool) -> bool {
        for cut in self.cuts.drain(..) {
            let heard = match cut {
                Cut::Started => Heard::Started,
                Cut::Dropped => Heard::Dropped,
                Cut::Utterance { samples, start } => {
                    let audio = Audio { samples: samples.into(), rate: self.rate };
                    Heard::Utterance(Utterance { audio, start, source: self.source.clone() })
                }
            };
            if !(if live { sender.push(heard) } else { sender.push_waiting(heard) }) {
                return false;
            }
        }
        true
    }
}
