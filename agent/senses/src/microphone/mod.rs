//! The microphone: a sound card or files → utterances, on a thread of its own.
//!
//! [`AudioSource`] (a [`device`] on [`pcm`], or files) → gate → [`meter`] → [`ear`] ([`attention`] with a spotter of its word, endpoint with a [`judge`]) → [`Heard`].
//! While the gate is closed nothing passes it, and what was under way is dropped.

pub mod attention;
pub mod device;
pub mod ear;
pub mod gate;
pub mod meter;
pub mod pcm;
pub mod samples;
mod spotter;
mod stillness;

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
use crate::microphone::ear::Ear;
use crate::microphone::gate::MicGate;
use crate::microphone::meter::Meter;
use crate::microphone::pcm::{Pcm, PcmOptions};
use crate::{AudioSource, STUCK, Sense, SenseError, start};

/// Messages that wait for the agent at most; a live microphone then drops the oldest.
const HEARD_CAPACITY: usize = 32;
/// Pause before a file that failed is read again.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// Opens the microphone of a configuration, if there is one, and starts its thread. It hears while the gate is open; `pulse` tells
/// that it goes on.
///
/// # Errors
/// When a file cannot be read. A device may be missing: it is opened when it comes.
pub fn start_microphone(
    config: &MicrophoneConfig,
    gate: MicGate,
    pulse: Pulse,
) -> Result<Option<Sense<Heard>>, SenseError> {
    let Some(source) = open(config)? else { return Ok(None) };
    listen(source, config.clone(), gate, pulse).map(Some)
}

/// The source of a configuration, if there is one.
///
/// # Errors
/// When a file cannot be read.
pub fn open(config: &MicrophoneConfig) -> Result<Option<Box<dyn AudioSource>>, SenseError> {
    if let Some(name) = config.device.clone() {
        let (period, buffer) = (config.period, config.buffer);
        let options = PcmOptions { name: name.clone(), period, buffer };
        let open = move || Ok(Box::new(Pcm::open(&options)?) as Box<dyn Capture>);
        return Ok(Some(Box::new(Device::new(name, Box::new(open)))));
    }
    let Some(path) = &config.path else { return Ok(None) };
    let files = FileMicrophone::open(path, config.repeat, config.pace, config.gap)?;
    Ok(Some(Box::new(files)))
}

/// Starts the thread that cuts a source into utterances.
///
/// # Errors
/// When the wake word cannot be read or the thread not be started.
pub fn listen(
    source: Box<dyn AudioSource>,
    config: MicrophoneConfig,
    gate: MicGate,
    pulse: Pulse,
) -> Result<Sense<Heard>, SenseError> {
    let (sender, receiver) = mailbox(HEARD_CAPACITY);
    let ear = Ear::new(&config, source.name())?;
    let shown = source.state();
    gate.set_state(shown.clone());
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
    gate: MicGate,
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
