use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use outpost_agent_core::config::{MicrophoneConfig, Vad};
use outpost_agent_core::heartbeat::Heartbeats;
use outpost_agent_core::microphone::{Heard, Holder, Microphone as _};
use outpost_agent_core::report::Unheard;

use super::*;

/// A microphone in front of which somebody speaks without a pause; it gives a chunk for each beat.
struct Talker {
    beat: mpsc::Receiver<()>,
    read: Arc<AtomicUsize>,
    at: usize,
}

impl Talker {
    fn wait(&mut self) -> bool {
        self.beat.recv().is_ok()
    }
}

impl AudioSource for Talker {
    fn read(&mut self, chunk: &mut Vec<f32>) -> Result<bool, SenseError> {
        if !self.wait() {
            return Ok(false);
        }
        chunk.extend((0..1600).map(|i| 0.4 * ((self.at + i) as f32 * 0.2).sin()));
        self.at += 1600;
        self.read.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }

    fn skip(&mut self) {
        self.wait();
    }

    fn name(&self) -> String {
        "talker".into()
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// A sound card whose driver hangs while it is opened, which is what the first read does.
struct Hanging {
    began: mpsc::SyncSender<()>,
    let_go: mpsc::Receiver<()>,
}

impl AudioSource for Hanging {
    fn read(&mut self, _chunk: &mut Vec<f32>) -> Result<bool, SenseError> {
        self.began.send(()).expect("the test waits");
        self.let_go.recv().ok();
        Ok(false)
    }

    fn skip(&mut self) {}

    fn name(&self) -> String {
        "hanging".into()
    }

    fn is_live(&self) -> bool {
        true
    }
}

#[test]
fn a_device_that_hangs_when_it_is_first_opened_is_noticed() {
    let ((began, has_begun), (let_go, gone)) = (mpsc::sync_channel(1), mpsc::sync_channel(0));
    let source = Hanging { began, let_go: gone };
    let config = MicrophoneConfig { vad: Vad::Energy, ..MicrophoneConfig::default() };
    let parts = Heartbeats::default();
    let pulse = parts.part("microphone");
    let sense = listen(Box::new(source), config, MicGate::always_open(), pulse).expect("a thread");
    has_begun.recv().expect("it is opened");
    let now = Instant::now();
    assert!(parts.stuck(now).is_empty(), "it still has time");
    assert_eq!(parts.stuck(now + STUCK), ["microphone"]);
    drop(let_go);
    sense.thread.join().expect("it ends");
}

struct Bench {
    sense: Sense<Heard>,
    beat: mpsc::SyncSender<()>,
    read: Arc<AtomicUsize>,
    gate: MicGate,
}

fn bench(gate: MicGate) -> Bench {
    let (beat, beats) = mpsc::sync_channel(0);
    let read = Arc::<AtomicUsize>::default();
    let talker = Talker { beat: beats, read: read.clone(), at: 0 };
    let config = MicrophoneConfig { vad: Vad::Energy, ..MicrophoneConfig::default() };
    let pulse = Heartbeats::default().part("microphone");
    let sense = listen(Box::new(talker), config, gate.clone(), pulse).expect("a thread");
    Bench { sense, beat, read, gate }
}

impl Bench {
    /// So many tenths of a second.
    fn pass(&self, beats: usize) {
        (0..beats).for_each(|_| self.beat.send(()).expect("the thread lives"));
    }

    async fn next(&mut self) -> Heard {
        loop {
            match self.sense.receiver.recv().await.expect("the thread lives") {
                Heard::Changed => {}
                heard => return heard,
            }
        }
    }

    /// Ends the microphone; what it still said.
    async fn end(self) -> Vec<Heard> {
        drop(self.beat);
        // Only a microphone that is heard sees the end of its source.
        self.gate.mute(false);
        self.gate.hold(Holder::Board, true);
        let mut receiver = self.sense.receiver;
        let mut rest = Vec::new();
        while let Some(heard) = receiver.recv().await {
            rest.push(heard);
        }
        rest
    }
}

#[tokio::test]
async fn mute_throws_away_what_was_being_said_and_lets_nothing_through() {
    let mut bench = bench(MicGate::always_open());
    bench.pass(12);
    assert_eq!(bench.next().await, Heard::Started);
    bench.gate.mute(true);
    bench.pass(3);
    let why = Unheard::Muted;
    assert!(matches!(bench.next().await, Heard::Nothing { why: heard, .. } if heard == why));
    let read = bench.read.load(Ordering::SeqCst);
    bench.pass(200);
    assert_eq!(bench.read.load(Ordering::SeqCst), read, "nothing is even read");
    assert_eq!(
        bench.gate.state().level,
        outpost_agent_core::report::Level::default(),
        "nor is its level known"
    );
    let rest = bench.end().await;
    assert!(!rest.iter().any(|heard| matches!(heard, Heard::Utterance(_))), "{rest:?}");
}

#[tokio::test]
async fn a_mute_that_is_lifted_at_once_throws_away_what_was_being_said_too() {
    let mut bench = bench(MicGate::always_open());
    bench.pass(12);
    assert_eq!(bench.next().await, Heard::Started);
    bench.gate.mute(true);
    bench.gate.mute(false);
    bench.pass(12);
    let why = Unheard::Muted;
    assert!(matches!(bench.next().await, Heard::Nothing { why: heard, .. } if heard == why));
    assert_eq!(bench.next().await, Heard::Started);
}

#[tokio::test]
async fn a_button_that_comes_up_ends_the_utterance() {
    let mut bench = bench(MicGate::push_to_talk());
    bench.gate.hold(Holder::Board, true);
    bench.pass(10);
    assert_eq!(bench.next().await, Heard::Started);
    bench.gate.hold(Holder::Board, false);
    bench.pass(2);
    let Heard::Utterance(utterance) = bench.next().await else { panic!("no utterance") };
    assert!(utterance.duration() > Duration::from_millis(700), "{:?}", utterance.duration());
    assert_eq!(bench.end().await, []);
}

#[tokio::test]
async fn a_button_that_is_pressed_and_released_between_two_looks_is_a_time_out() {
    let mut bench = bench(MicGate::push_to_talk());
    bench.pass(2);
    bench.gate.hold(Holder::Mqtt, true);
    bench.gate.hold(Holder::Mqtt, false);
    bench.pass(2);
    let why = Unheard::Timeout;
    assert!(matches!(bench.next().await, Heard::Nothing { why: heard, .. } if heard == why));
    bench.pass(2);
    assert!(!bench.end().await.iter().any(|heard| matches!(heard, Heard::Nothing { .. })));
}

#[test]
fn a_button_under_which_nobody_spoke_is_a_time_out() {
    let mut pipeline =
        SpeechPipeline::new(&MicrophoneConfig::default(), "talker".into()).expect("a pipeline");
    let mut heard = Vec::new();
    pipeline.push(&vec![0.0; 16_000], &mut heard);
    pipeline.close(&mut heard);
    let [Heard::Nothing { why: Unheard::Timeout, start, .. }] = heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(start, Duration::from_secs(1));
}
