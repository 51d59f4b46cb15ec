//! Payloads of strangers: the seeds of `agent/fuzz`, whole, cut and damaged. `agent/fuzz` has a target for each topic.

use std::path::Path;

use crate::event::Inbound;
use crate::mqtt::inbound::{MAX_MEDIA, decode};
use crate::mqtt::session::Arrival;
use crate::mqtt::topics::Topics;

const TOPICS: [&str; 6] =
    ["ask", "ask/audio", "ask/image", "set/mute", "set/camera", "set/confirm"];

/// A message arrives everywhere. What is taken keeps the bounds.
fn arrive(payload: &[u8]) {
    let topics = Topics::new("desk");
    for path in TOPICS {
        let (topic, payload) = (topics.below(path), payload.to_vec());
        let arrival = Arrival { topic, payload, ..Arrival::default() };
        if let Ok(Some(Inbound::Ask(ask))) = decode(&arrival, &topics) {
            let media = ask.images.iter().chain(&ask.audio).map(Vec::len).sum::<usize>();
            assert!(media <= MAX_MEDIA && ask.prompt.chars().count() <= 4000);
        }
    }
}

#[test]
fn no_payload_stops_the_reading_of_messages() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut read = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let whole = std::fs::read(seed.unwrap().path()).unwrap();
        // The first byte is for the fuzz target.
        let whole = &whole[1..];
        for end in 0..=whole.len() {
            arrive(&whole[..end]);
        }
        for at in 0..whole.len() {
            for byte in [0, b'"', b'{', b'\\', 0x80, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[at] = byte;
                arrive(&damaged);
            }
        }
        read += 1;
    }
    assert!(read > 5, "the seeds are there");
}
