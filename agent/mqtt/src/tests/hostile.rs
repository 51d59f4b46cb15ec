//! Payloads of strangers: the seeds of `agent/fuzz`, whole, cut and damaged. `agent/fuzz` has a target for each topic.

use std::path::Path;
use std::sync::Arc;

use outpost_agent_core::config::{Config, Faults, LiveSettings};
use outpost_agent_core::event::Inbound;
use outpost_agent_core::live::desired::Desired;
use outpost_runtime::media::{image_from_bytes, wav_from_bytes};
use outpost_tools::bus::Nowhere;
use outpost_tools::remote::{RemoteConfig, Switchboard};
use outpost_tools::requests::{Heard, Requests};
use outpost_tools::{PolicyRules, Registry};

use crate::inbound::{MAX_MEDIA, decode};
use crate::session::Arrival;
use crate::topics::Topics;

const TOPICS: [&str; 8] = [
    "ask",
    "ask/audio",
    "ask/image",
    "get/evidence",
    "set/camera",
    "set/confirm",
    "set/listen",
    "set/mute",
];

/// A message arrives everywhere. What is taken keeps the bounds.
fn arrive(payload: &[u8], tools: &Tools) {
    tools.arrive(payload);
    let topics = Topics::new("desk");
    for path in TOPICS {
        let topic = topics.below(path);
        let payload = payload.to_vec();
        let arrival = Arrival { topic, payload, ..Arrival::default() };
        if let Ok(Some(Inbound::Ask(ask))) = decode(&arrival, &topics) {
            let media = ask.images.iter().chain(&ask.audio).map(Vec::len).sum::<usize>();
            assert!(media <= MAX_MEDIA && ask.prompt.chars().count() <= 4000);
            ask.images.iter().for_each(|image| drop(image_from_bytes(image)));
            ask.audio.iter().for_each(|audio| drop(wav_from_bytes(audio)));
        }
    }
}

/// A document says what is desired. What is taken of it keeps the bounds.
fn desire(payload: &[u8]) {
    let mut file = Config::default();
    let mut faults = Faults::default();
    let desired = Desired::read(payload, &file, &mut faults);
    if faults.is_empty() {
        desired.lay_over(&mut file);
        let LiveSettings { max_steps, retries, watch, .. } = LiveSettings::of(&file);
        assert!((1..=16).contains(&max_steps) && retries <= 5 && watch.len() <= 64);
    } else {
        assert!(faults.bounded().to_string().len() < 64 * 1024);
    }
}

#[test]
fn no_document_stops_the_reading_of_what_is_desired() {
    let whole = include_bytes!("../../../fuzz/seeds/config_desired");
    for end in 0..=whole.len() {
        desire(&whole[..end]);
    }
    for at in 0..whole.len() {
        for byte in [0, b'"', b'{', b'9', b'\\', 0x80] {
            let mut damaged = whole.to_vec();
            damaged[at] = byte;
            desire(&damaged);
        }
    }
}

/// Where programs that offer tools are listened to.
struct Tools {
    registry: Arc<Registry>,
    switchboard: Switchboard,
}

impl Tools {
    fn new() -> Self {
        let registry = Arc::new(Registry::new(PolicyRules::default()));
        let settings = (RemoteConfig::default(), Vec::new());
        let switchboard =
            Switchboard::new(registry.clone(), Arc::new(Nowhere), settings, Requests::default());
        Self { registry, switchboard }
    }

    /// Whatever is said, the tools are one at most, and small.
    fn arrive(&self, payload: &[u8]) {
        self.switchboard.define("x", payload).ok();
        let heard = |topic: &str| Heard {
            topic: topic.into(),
            payload: payload.to_vec(),
            ..Heard::default()
        };
        self.switchboard.result("x", &heard("x")).ok();
        self.switchboard.other(&heard("a/available"));
        let specs = self.registry.specs();
        assert!(specs.len() <= 1);
        for spec in specs {
            assert!(spec.description.chars().count() <= 300);
            assert!(spec.schema.to_string().len() <= 32 * 1024);
        }
    }
}

#[test]
fn no_payload_stops_the_reading_of_messages() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let mut read = 0;
    let tools = Tools::new();
    for seed in std::fs::read_dir(seeds).unwrap() {
        let whole = std::fs::read(seed.unwrap().path()).unwrap();
        // The first byte is for the fuzz target.
        let whole = &whole[1..];
        for end in 0..=whole.len() {
            arrive(&whole[..end], &tools);
        }
        for at in 0..whole.len() {
            for byte in [0, b'"', b'{', b'\\', 0x80, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[at] = byte;
                arrive(&damaged, &tools);
            }
        }
        read += 1;
    }
    assert!(read > 5, "the seeds are there");
}
