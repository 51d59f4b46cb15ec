//! A sound card that may stall, vanish and come back. It is reopened with back-off for as long as
//! it takes.

use std::time::Duration;

use outpost_agent_core::back_off::BackOff;
use outpost_agent_core::report::{MicrophoneState, Presence};
use outpost_runtime::audio::Stream;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{AudioSource, SenseError};

/// Back-off before a lost device is reopened.
const BACK_OFF: BackOff = BackOff::new(Duration::from_millis(500), Duration::from_secs(10));
/// Reopen the device after this long without audio.
const STALLED: Duration = Duration::from_secs(3);
/// A read without a device returns this often, so that the thread notices shutdown.
const ROUND: Duration = Duration::from_millis(100);

/// Why a device cannot be used, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Result of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Sound.
    Sound,
    /// Overrun: sound was lost because it was not read in time. The device continues.
    Overrun,
    /// Nothing yet.
    Nothing,
}

/// An open device: ALSA, or a script in tests.
pub trait Capture: Send {
    /// Samples per second.
    fn rate(&self) -> u32;

    /// The negotiated format, for people.
    fn format(&self) -> &str;

    /// Waits briefly for sound and appends it.
    ///
    /// # Errors
    /// When the device is gone.
    fn take(&mut self, mono: &mut Vec<f32>) -> Result<Taken, Lost>;
}

/// Opens the device.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Capture>, Lost> + Send>;

/// A device by name, present or not.
pub struct Device {
    name: String,
    open: Open,
    opened: Option<Opened>,
    state: MicrophoneState,
    back_off: BackOff,
    retry_at: Instant,
}

struct Opened {
    capture: Box<dyn Capture>,
    stream: Stream,
    mono: Vec<f32>,
    last_sound: Instant,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device {
    /// Creates a device that is opened by the first read.
    pub fn new(name: String, open: Open) -> Self {
        Self {
            name,
            open,
            opened: None,
            state: MicrophoneState::default(),
            back_off: BACK_OFF,
            retry_at: Instant::now(),
        }
    }

    fn lose(&mut self, why: &Lost) {
        if self.opened.take().is_some() || self.state.condition == Presence::Opening {
            warn!(device = self.name, reason = %why, "microphone lost: retrying");
        }
        self.state.format = None;
        self.state.condition = Presence::Lost(why.to_string());
        self.retry_at = Instant::now() + self.back_off.pause();
    }

    fn open(&mut self) {
        let opened = (self.open)().and_then(|capture| {
            let stream = Stream::new(capture.rate()).map_err(|fault| Lost(fault.to_string()))?;
            Ok(Opened { capture, stream, mono: Vec::new(), last_sound: Instant::now() })
        });
        match opened {
            Err(why) => self.lose(&why),
            Ok(opened) => {
                let format = opened.capture.format().to_owned();
                info!(device = self.name, format, "the microphone is open");
                self.state.reopened += u64::from(self.state.condition != Presence::Opening);
                self.state.format = Some(format);
                self.state.condition = Presence::Open;
                self.opened = Some(opened);
            }
        }
    }

    /// Reads the device if it is open.
    fn take(&mut self, chunk: &mut Vec<f32>) -> Result<(), Lost> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        opened.mono.clear();
        match opened.capture.take(&mut opened.mono)? {
            Taken::Sound => {
                opened.last_sound = Instant::now();
                self.back_off.reset();
                opened.stream.push(&opened.mono, chunk).map_err(|fault| Lost(fault.to_string()))
            }
            Taken::Overrun => {
                self.state.overruns += 1;
                Ok(())
            }
            Taken::Nothing if opened.last_sound.elapsed() >= STALLED => {
                Err(Lost(format!("it gave no sound for {} s", STALLED.as_secs())))
            }
            Taken::Nothing => Ok(()),
        }
    }
}

impl AudioSource for Device {
    fn read(&mut self, chunk: &mut Vec<f32>) -> Result<bool, SenseError> {
        let now = Instant::now();
        if self.opened.is_none() && now < self.retry_at {
            std::thread::sleep(ROUND.min(self.retry_at - now));
        } else if self.opened.is_none() {
            self.open();
        } else if let Err(why) = self.take(chunk) {
            self.lose(&why);
        }
        Ok(true)
    }

    fn skip(&mut self) {
        // Keep reading, so that the device does not overrun and its loss is noticed; drop the sound
        // here.
        let mut unheard = Vec::new();
        // Reads never fail: a lost device is reopened.
        drop(self.read(&mut unheard));
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn state(&self) -> MicrophoneState {
        MicrophoneState { source: self.name.clone(), ..self.state.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

    type Script = Arc<Mutex<VecDeque<Result<Taken, Lost>>>>;

    struct Scripted(Script);

    impl Capture for Scripted {
        fn rate(&self) -> u32 {
            16_000
        }

        fn format(&self) -> &'static str {
            "16000 Hz"
        }

        fn take(&mut self, mono: &mut Vec<f32>) -> Result<Taken, Lost> {
            let next = self.0.lock().unwrap().pop_front().unwrap_or(Ok(Taken::Nothing));
            if next == Ok(Taken::Sound) {
                mono.extend([0.5; 160]);
            }
            next
        }
    }

    /// A device that opens when `present` says so, and then does what the script says.
    fn device(
        present: impl IntoIterator<Item = bool>,
        script: impl IntoIterator<Item = Result<Taken, Lost>>,
    ) -> Device {
        let mut present: VecDeque<bool> = present.into_iter().collect();
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let open = move || match present.pop_front() {
            Some(false) => Err(Lost("cannot open (No such device)".into())),
            _ => Ok(Box::new(Scripted(Arc::clone(&script))) as Box<dyn Capture>),
        };
        Device::new("hw:0".into(), Box::new(open))
    }

    /// Reads until there is sound.
    fn hear(device: &mut Device) -> Vec<f32> {
        let mut chunk = Vec::new();
        while chunk.is_empty() {
            assert!(device.read(&mut chunk).unwrap());
        }
        chunk
    }

    #[test]
    fn a_device_that_is_unplugged_is_opened_again_and_counted() {
        let gone = Err(Lost("cannot read (No such device)".into()));
        let mut device = device([true, false, true], [Ok(Taken::Sound), gone, Ok(Taken::Sound)]);
        assert_eq!(hear(&mut device), [0.5; 160]);
        assert_eq!(device.state().condition, Presence::Open);
        device.read(&mut Vec::new()).unwrap();
        assert!(
            matches!(device.state().condition, Presence::Lost(why) if why.contains("No such device"))
        );
        assert_eq!(hear(&mut device), [0.5; 160]);
        assert_eq!((device.state().condition, device.state().reopened), (Presence::Open, 1));
    }

    #[test]
    fn overruns_are_counted_and_the_sound_goes_on() {
        let mut device = device([], [Ok(Taken::Overrun), Ok(Taken::Overrun), Ok(Taken::Sound)]);
        assert_eq!(hear(&mut device), [0.5; 160]);
        assert_eq!((device.state().overruns, device.state().reopened), (2, 0));
    }

    #[test]
    fn what_is_skipped_is_heard_by_nobody_and_a_loss_is_noticed_meanwhile() {
        let gone = Err(Lost("cannot read (No such device)".into()));
        let mut device = device([true, true], [Ok(Taken::Sound), gone]);
        (0..3).for_each(|_| device.skip());
        assert!(matches!(device.state().condition, Presence::Lost(_)));
    }
}
