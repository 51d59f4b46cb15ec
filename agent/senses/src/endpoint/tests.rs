use outpost_agent_core::config::{EndOfSpeech, Vad};

use super::*;
use crate::vad::detector;

fn tone(milliseconds: usize, gain: f32) -> Vec<f32> {
    (0..milliseconds * 16).map(|i| gain * (i as f32 * 0.2).sin()).collect()
}

fn endpoint(vad: Vad, config: EndpointConfig) -> Endpoint {
    let detector = detector(vad, &config);
    Endpoint::new(config, detector)
}

fn cut_by(vad: Vad, stream: &[f32], chunk: usize) -> Vec<Cut> {
    let mut endpoint = endpoint(vad, EndpointConfig::default());
    let mut cuts = Vec::new();
    for chunk in stream.chunks(chunk) {
        endpoint.push(chunk, &mut cuts);
    }
    endpoint.finish(&mut cuts);
    cuts
}

fn cut(stream: &[f32], chunk: usize) -> Vec<Cut> {
    cut_by(Vad::Energy, stream, chunk)
}

/// Where utterances begin and how long they are, in milliseconds.
fn utterances(cuts: &[Cut]) -> Vec<(u128, usize)> {
    cuts.iter()
        .filter_map(|cut| match cut {
            Cut::Utterance(Piece { samples, start }) => {
                Some((start.as_millis(), samples.len() / 16))
            }
            _ => None,
        })
        .collect()
}

fn spoken(name: &str) -> Vec<f32> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano/samples/");
    let path = std::path::PathBuf::from(format!("{root}{name}.wav"));
    let audio = outpost_runtime::media::read_wav(&path).expect("a sample");
    outpost_runtime::audio::at_16_khz(&audio).expect("resampled").samples.to_vec()
}

#[test]
fn pauses_separate_utterances_and_the_chunk_size_does_not_matter() {
    let stream = [
        tone(1000, 0.0005),
        tone(1500, 0.3),
        tone(150, 0.0005),
        tone(500, 0.3),
        tone(1200, 0.0005),
        tone(900, 0.1),
        tone(300, 0.0005),
    ]
    .concat();
    let whole = cut(&stream, stream.len());
    assert_eq!(utterances(&whole), [(650, 2700), (4000, 1450)]);
    for chunk in [1, 7, 160, 1024, 9999] {
        assert_eq!(cut(&stream, chunk), whole, "chunks of {chunk}");
    }
}

#[test]
fn speech_is_cut_the_same_however_it_is_chunked() {
    let quiet = tone(800, 0.0005);
    let stream =
        [&quiet, &spoken("lock_the_front_door"), &quiet, &quiet].map(|part| &part[..]).concat();
    let whole = cut_by(Vad::Silero, &stream, stream.len());
    assert_eq!(utterances(&whole).len(), 1, "{:?}", utterances(&whole));
    for chunk in [13, 160, 4096] {
        assert_eq!(cut_by(Vad::Silero, &stream, chunk), whole, "chunks of {chunk}");
    }
}

#[test]
fn what_was_told_at_the_pause_is_the_utterance_unless_the_speaker_goes_on() {
    let stream = [tone(500, 0.0), tone(900, 0.3), tone(300, 0.0), tone(400, 0.3), tone(900, 0.0)];
    let cuts = cut(&stream.concat(), 160);
    let [
        Cut::Started,
        Cut::Paused(first),
        Cut::Resumed,
        Cut::Paused(second),
        Cut::Utterance(whole),
    ] = &cuts[..]
    else {
        panic!("{cuts:?}")
    };
    assert!(first.samples.len() < second.samples.len());
    assert_eq!(second, whole);
}

#[test]
fn a_click_is_too_short_and_silence_gives_nothing() {
    let click = [tone(1000, 0.0), tone(80, 0.5), tone(1000, 0.0)].concat();
    let cuts = cut(&click, 160);
    assert!(matches!(&cuts[..], [Cut::Started, Cut::TooShort { .. }]), "{cuts:?}");
    assert_eq!(cut(&tone(5000, 0.0), 160), []);
}

#[test]
fn a_loud_sound_that_is_no_speech_is_noise() {
    let hum = [tone(1000, 0.001), tone(2000, 0.3), tone(1500, 0.001)].concat();
    let cuts = cut_by(Vad::Silero, &hum, 160);
    let [Cut::Noise { loud, end }] = &cuts[..] else { panic!("{cuts:?}") };
    assert!((1500..=2100).contains(&loud.as_millis()), "{loud:?}");
    assert!((3000..=4000).contains(&end.as_millis()), "{end:?}");
}

#[test]
fn an_endless_utterance_is_cut_at_the_bound() {
    let cuts = cut(&tone(16_000, 0.3), 160);
    let lengths: Vec<usize> = utterances(&cuts).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [15_000, 1000]);
}

#[test]
fn steady_noise_becomes_the_floor() {
    let noise = tone(60_000, 0.02);
    let late = [noise, tone(1000, 0.4), tone(800, 0.02)].concat();
    let cuts = cut(&late, 160);
    let last = utterances(&cuts).pop().expect("the loud part is heard");
    assert!(last.0 > 59_000 && last.1 < 2_500, "{last:?}");
}

#[test]
fn an_end_of_speech_to_taste_waits_longer_or_shorter() {
    let stream =
        [tone(500, 0.0), tone(600, 0.3), tone(500, 0.0), tone(600, 0.3), tone(1500, 0.0)].concat();
    for (end_of_speech, count) in
        [(EndOfSpeech::Relaxed, 1), (EndOfSpeech::Default, 1), (EndOfSpeech::Aggressive, 2)]
    {
        let config = EndpointConfig { end_of_speech, ..EndpointConfig::default() };
        let mut endpoint = endpoint(Vad::Energy, config);
        let mut cuts = Vec::new();
        endpoint.push(&stream, &mut cuts);
        assert_eq!(utterances(&cuts).len(), count, "{end_of_speech:?}");
    }
}

#[test]
fn what_is_skipped_is_not_heard_and_counts() {
    let mut endpoint = endpoint(Vad::Energy, EndpointConfig::default());
    let mut cuts = Vec::new();
    endpoint.push(&tone(400, 0.3), &mut cuts);
    endpoint.skip(16_000 * 9);
    endpoint.push(&tone(600, 0.0), &mut cuts);
    assert_eq!(endpoint.now(), Duration::from_secs(10));
    assert_eq!(utterances(&cuts), []);
}

#[test]
fn nothing_is_left_of_what_was_forgotten() {
    let mut endpoint = endpoint(Vad::Energy, EndpointConfig::default());
    let mut cuts = Vec::new();
    endpoint.push(&[tone(500, 0.0), tone(800, 0.3)].concat(), &mut cuts);
    assert!(endpoint.forget());
    cuts.clear();
    endpoint.push(&tone(2000, 0.0), &mut cuts);
    endpoint.finish(&mut cuts);
    assert_eq!(cuts, []);
}
