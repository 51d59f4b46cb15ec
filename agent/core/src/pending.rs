//! Pending events: voice before ask before camera. Pure and bounded.

use std::collections::VecDeque;

use crate::event::{Event, Payload};

/// Maximum pending utterances; then the oldest is dropped.
const VOICE_CAPACITY: usize = 8;
/// Maximum pending asks; then new ones are rejected.
const ASK_CAPACITY: usize = 16;

/// The pending events.
#[derive(Debug, Default)]
pub struct Pending {
    voice: VecDeque<Event>,
    ask: VecDeque<Event>,
    /// Only the latest picture matters.
    frame: Option<Event>,
    dropped: u64,
}

impl Pending {
    /// Adds an event. Returns an ask if its queue is full, so that it can be rejected.
    pub fn push(&mut self, event: Event) -> Option<Event> {
        match event.payload {
            Payload::Utterance(_) => {
                if self.voice.len() == VOICE_CAPACITY {
                    self.voice.pop_front();
                    self.dropped += 1;
                }
                self.voice.push_back(event);
            }
            Payload::Ask(_) if self.ask.len() == ASK_CAPACITY => return Some(event),
            Payload::Ask(_) => self.ask.push_back(event),
            Payload::Frame(_) => {
                if self.frame.replace(event).is_some() {
                    self.dropped += 1;
                }
            }
        }
        None
    }

    /// Next event. Pictures wait while someone speaks.
    pub fn pop(&mut self, listening: bool) -> Option<Event> {
        let frame = if listening { &mut None } else { &mut self.frame };
        self.voice.pop_front().or_else(|| self.ask.pop_front()).or_else(|| frame.take())
    }

    /// Requeues the picture of an interrupted turn, unless a newer one waits.
    pub fn put_back(&mut self, event: Event) {
        self.frame.get_or_insert(event);
    }

    /// Whether an utterance is pending.
    pub fn has_voice(&self) -> bool {
        !self.voice.is_empty()
    }

    /// Whether there is room for an utterance.
    pub fn has_room_for_voice(&self) -> bool {
        self.voice.len() < VOICE_CAPACITY
    }

    /// Whether there is room for a picture.
    pub fn has_room_for_frame(&self) -> bool {
        self.frame.is_none()
    }

    /// Drops pending utterances, as after mute.
    pub fn forget_voice(&mut self) -> Vec<Event> {
        self.voice.drain(..).collect()
    }

    /// Number of dropped utterances and pictures.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use outpost_runtime::{Audio, Image};

    use super::*;
    use crate::event::{Ask, Frame, Utterance};

    fn voice(source: &str) -> Event {
        let audio = Audio { samples: vec![].into(), rate: 16_000 };
        Event::now(Payload::Utterance(Utterance {
            audio,
            word: None,
            start: std::time::Duration::ZERO,
            source: source.into(),
        }))
    }

    fn ask() -> Event {
        Event::now(Payload::Ask(Ask { prompt: "next song".into(), ..Ask::default() }))
    }

    fn frame() -> Event {
        let image = Image { width: 1, height: 1, rgb: vec![0; 3].into() };
        Event::now(Payload::Frame(Frame::new(image, "sign.png".into())))
    }

    #[test]
    fn voice_comes_before_ask_before_camera() {
        let mut pending = Pending::default();
        let events = [frame(), ask(), voice("a"), voice("b")];
        events.iter().cloned().for_each(|event| assert_eq!(pending.push(event), None));
        for (index, listening) in [(2, false), (3, true), (1, true)] {
            assert_eq!(pending.pop(listening).map(|event| event.id), Some(events[index].id));
        }
        assert_eq!(pending.pop(true), None);
        assert_eq!(pending.pop(false).map(|event| event.id), Some(events[0].id));
    }

    #[test]
    fn bounds_drop_the_oldest_sound_and_picture_and_refuse_questions() {
        let mut pending = Pending::default();
        let first = voice("first");
        pending.push(first.clone());
        (0..VOICE_CAPACITY).for_each(|_| assert_eq!(pending.push(voice("later")), None));
        pending.push(frame());
        pending.push(frame());
        assert_eq!(pending.dropped(), 2);
        assert_ne!(pending.pop(false).map(|event| event.id), Some(first.id));
        (0..ASK_CAPACITY).for_each(|_| assert_eq!(pending.push(ask()), None));
        let refused = ask();
        assert_eq!(pending.push(refused.clone()), Some(refused));
    }
}
