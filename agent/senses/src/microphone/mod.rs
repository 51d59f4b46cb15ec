//! The microphone: sound card or files → utterances, on its own thread.
//!
//! [`AudioSource`] (a [`device`] on [`pcm`], or files) → [`gate`] → [`meter`] → [`pipeline`]:
//! [`wake_window`], then endpointing with a VAD → [`Heard`]. No sound passes a closed gate, and
//! closing it drops the utterance in progress.

pub mod device;
pub mod gate;
pub mod meter;
pub mod pcm;
pub mod pipeline;
mod quiet;
pub mod samples;
pub mod wake_window;
mod wake_word;

use std::time::Duration;

use outpost_agent_core::config::MicrophoneConfig;
use outpost_agent_core::heartbeat::Pulse;
use outpost_agent_core::mailbox::{Sender, mailbox};
use outpost_agent_core::microphone::{Heard, Microphone as _};
use outpost_agent_core::report::MicrophoneState;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::files::FileMicrophone;
use crate::microphone::device::{Capture, Device};
use crate::microphone::gate::MicGate;
use crate::microphone::meter::Meter;
use crate::microphone::pcm::{Pcm, PcmOptions};
use crate::microphone::pipeline::SpeechPipeline;
use crate::{AudioSource, STUCK, Sense, SenseError, start};

/// Queue to the agent. When full, a live microphone drops the oldest message.
const HEARD_CAPACITY: usize = 32;
/// Pause before a failed file is read again.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// Opens the configured microphone, if any, and starts its thread. `pulse` reports progress.
///
/// # Errors
/// If a file cannot be read. A missing device is no error: it is opened when it appears.
pub fn start_microphone(
    config: &MicrophoneConfig,
    gate: MicGate,
    pulse: Pulse,
) -> Result<Option<Sense<Heard>>, SenseError> {
    let Some(source) = open(config)? else { return Ok(None) };
    listen(source, config.clone(), gate, pulse).map(Some)
}

/// Opens the configured source, if any.
///
/// # Errors
/// When a file cannot be read.
pub fn open(config: &MicrophoneConfig) -> Result<Option<Box<dyn AudioSource>>, SenseError> {
    if let Some(name) = config.device.clone() {
        let period = config.period;
        let buffer = config.buffer;
        let options = PcmOptions { name: name.clone(), period, buffer, channel: config.channel };
        let open = move || Ok(Box::new(Pcm::open(&options)?) as Box<dyn Capture>);
        return Ok(Some(Box::new(Device::new(name, Box::new(open)))));
    }
    let Some(path) = &config.path else { return Ok(None) };
    let files = FileMicrophone::open(path, config)?;
    Ok(Some(Box::new(files)))
}

/// Starts the thread that turns a source into utterances.
///
/// # Errors
/// If the wake word cannot be loaded or the thread cannot be started.
pub fn listen(
    source: Box<dyn AudioSource>,
    config: MicrophoneConfig,
    gate: MicGate,
    pulse: Pulse,
) -> Result<Sense<Heard>, SenseError> {
    let (sender, receiver) = mailbox(HEARD_CAPACITY);
    let pipeline = SpeechPipeline::new(&config, source.name())?;
    let shown = source.state();
    gate.set_state(shown.clone());
    let mut thread = MicrophoneThread {
        name: source.name(),
        source,
        config,
        pipeline,
        meter: Meter::default(),
        shown,
        was_open: gate.is_open(),
        mutes: gate.mutes(),
        presses: gate.presses(),
        gate,
        sender,
        is_held: false,
    };
    start("microphone", receiver, move || {
        let mut chunk = Vec::new();
        loop {
            // Also before the first round, which opens the device and may hang.
            if thread.source.is_live() {
                pulse.promise(Instant::now() + STUCK);
            }
            if !thread.round(&mut chunk) {
                return;
            }
        }
    })
}

/// State of the microphone's thread.
struct MicrophoneThread {
    source: Box<dyn AudioSource>,
    name: String,
    config: MicrophoneConfig,
    pipeline: SpeechPipeline,
    meter: Meter,
    shown: MicrophoneState,
    gate: MicGate,
    sender: Sender<Heard>,
    is_held: bool,
    was_open: bool,
    /// [`MicGate::mutes`] at the last look.
    mutes: u64,
    /// [`MicGate::presses`] at the last look.
    presses: u64,
}

impl MicrophoneThread {
    /// Reads once. Returns false at the end.
    fn round(&mut self, chunk: &mut Vec<f32>) -> bool {
        let mut heard = Vec::new();
        let mutes = self.gate.mutes();
        let was_muted = std::mem::replace(&mut self.mutes, mutes) != mutes;
        let presses = self.gate.presses();
        let was_pressed = std::mem::replace(&mut self.presses, presses) != presses;
        if was_muted || !self.gate.is_open() {
            // Whoever pressed and released it waits to be told what was heard, if only that it was nothing.
            if std::mem::take(&mut self.was_open) || was_pressed {
                if was_muted || self.gate.is_muted() {
                    self.pipeline.mute(&mut heard);
                } else {
                    self.pipeline.close(&mut heard);
                }
                self.is_held = false;
                // Mute also discards what the meter has measured.
                self.meter = Meter::default();
            }
            self.source.skip();
            return self.show(&mut heard) && self.send(heard);
        }
        self.was_open = true;
        chunk.clear();
        let read = self.source.read(chunk);
        // Closed during the read: drop what was read. The next round ends the utterance in
        // progress.
        if self.gate.mutes() != self.mutes || !self.gate.is_open() {
            return true;
        }
        self.follow_button(was_pressed, &mut heard);
        let more = match read {
            Ok(more) => more,
            Err(error) => {
                warn!(%error, "the microphone cannot be read");
                self.pipeline.finish(&mut heard);
                std::thread::sleep(RETRY);
                true
            }
        };
        self.follow_source(&mut heard);
        self.meter.push(chunk);
        self.pipeline.push(chunk, &mut heard);
        if !more {
            self.pipeline.finish(&mut heard);
            info!("the microphone's input ended");
        }
        self.show(&mut heard) && self.send(heard) && more
    }

    /// Push-to-talk counts as the wake word.
    fn follow_button(&mut self, was_pressed: bool, heard: &mut Vec<Heard>) {
        let is_held = self.gate.is_held();
        match (std::mem::replace(&mut self.is_held, is_held), is_held) {
            (false, true) => self.pipeline.open(),
            (true, false) => self.pipeline.close(heard),
            (false, false) if was_pressed => self.pipeline.close(heard),
            _ => {}
        }
    }

    /// A new file, or a reopened device, starts a new stream.
    fn follow_source(&mut self, heard: &mut Vec<Heard>) {
        let reopened = self.source.state().reopened != self.shown.reopened;
        if self.source.name() == self.name && !reopened {
            return;
        }
        self.pipeline.finish(heard);
        self.name = self.source.name();
        match SpeechPipeline::new(&self.config, self.name.clone()) {
            Ok(pipeline) => self.pipeline = pipeline,
            Err(error) => warn!(%error, "cannot reload the wake word: keeping the current one"),
        }
    }

    /// Publishes the state, and sends [`Heard::Changed`] if it changed.
    fn show(&mut self, heard: &mut Vec<Heard>) -> bool {
        let mut now = MicrophoneState { level: self.meter.level(), ..self.source.state() };
        // Silence between files is all zeros, and not a dead device.
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
        self.gate.set_state(now.clone());
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
