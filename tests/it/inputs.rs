//! Sounds and pictures as people have them: each format gives what the plain one gives. The files are made by
//! `tests/fixtures/inputs/make.sh`.

use std::path::PathBuf;
use std::time::Duration;

use outpost_agent_core::config::{Config, MicrophoneConfig, Pace};
use outpost_runtime::Audio;
use outpost_runtime::audio::at_16_khz;
use outpost_runtime::media::{Channel, read_audio, read_image};
use outpost_senses::files::{FileCamera, FileMicrophone};
use outpost_senses::{AudioSource as _, FrameSource as _};
use outpost_tests::daemon::{Daemon, Line, Script};
use outpost_tests::media::{silence, tone, write_png, write_wav};
use outpost_tests::root;
use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/inputs").join(name)
}

fn sample(name: &str) -> PathBuf {
    root().join("models/nano/samples").join(name)
}

fn heard(path: &std::path::Path) -> Audio {
    at_16_khz(&read_audio(path, Channel::Auto).unwrap()).unwrap()
}

/// How much two sounds have in common, from -1 to 1, at the delay where it is most: encoders begin with some silence.
fn likeness(one: &[f32], other: &[f32]) -> f64 {
    let at = |delay: usize| {
        let pairs = one[6000..16_000].iter().zip(&other[6000 + delay..]);
        let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
        for (a, b) in pairs.map(|(a, b)| (f64::from(*a), f64::from(*b))) {
            both += a * b;
            first += a * a;
            second += b * b;
        }
        both / (first * second).sqrt()
    };
    (0..1600).map(at).fold(-1.0, f64::max)
}

#[test]
fn every_sound_format_gives_the_same_speech() {
    let wav = heard(&sample("lock_the_front_door.wav"));
    // The least likeness that the loss of the codec leaves.
    for (name, least) in [
        ("lock.flac", 1.0),
        ("lock.aiff", 1.0),
        ("lock.alac.m4a", 1.0),
        ("lock.alaw.wav", 0.999),
        ("lock.mulaw.wav", 0.999),
        ("lock.adpcm_ms.wav", 0.99),
        ("lock.adpcm_ima.wav", 0.99),
        ("lock.mp3", 0.95),
        ("lock.ogg", 0.95),
        ("lock.opus", 0.9),
        ("lock.webm", 0.9),
        ("lock.live.webm", 0.9),
        ("lock.m4a", 0.95),
        ("lock.aac", 0.95),
    ] {
        let sound = heard(&fixture(name));
        let (length, wanted) = (sound.samples.len(), wav.samples.len());
        assert!((wanted..wanted + 4000).contains(&length), "{name}: {length} samples for {wanted}");
        let likeness = likeness(&wav.samples, &sound.samples);
        assert!(likeness >= least - 1e-6, "{name}: {likeness}");
    }
}

#[test]
fn the_extension_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recording.wav");
    std::fs::copy(fixture("lock.opus"), &path).unwrap();
    assert_eq!(
        read_audio(&path, Channel::Auto).unwrap(),
        read_audio(&fixture("lock.opus"), Channel::Auto).unwrap()
    );
}

#[test]
fn every_picture_format_shows_the_same_sign() {
    let png = read_image(&sample("sign.png")).unwrap();
    for (name, scale) in [("sign.jpg", 1), ("sign.cmyk.jpg", 1), ("sign.webp", 2), ("sign.gif", 4)]
    {
        let picture = read_image(&fixture(name)).unwrap();
        assert_eq!(
            (picture.width * scale, picture.height * scale),
            (png.width, png.height),
            "{name}"
        );
        let mean =
            |rgb: &[u8]| rgb.iter().map(|value| f64::from(*value)).sum::<f64>() / rgb.len() as f64;
        assert!((mean(&picture.rgb) - mean(&png.rgb)).abs() < 4.0, "{name}");
    }
}

#[test]
fn a_folder_of_recordings_may_mix_formats() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lock.opus", "lock.flac", "lock.mp3"] {
        std::fs::copy(fixture(name), dir.path().join(name)).unwrap();
    }
    let config =
        MicrophoneConfig { pace: Pace::Fast, gap: Duration::ZERO, ..MicrophoneConfig::default() };
    let mut microphone = FileMicrophone::open(dir.path(), &config).unwrap();
    let mut names = vec![microphone.name()];
    let (mut samples, mut chunk) = (0, Vec::new());
    while microphone.read(&mut chunk).unwrap() {
        samples += chunk.len();
        chunk.clear();
        if names.last() != Some(&microphone.name()) {
            names.push(microphone.name());
        }
    }
    assert_eq!(names, ["lock.flac", "lock.mp3", "lock.opus"]);
    assert!(samples >= 3 * 29_055, "{samples}");
}

#[test]
fn a_camera_on_a_folder_names_the_file_that_failed_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    for name in ["a.jpg", "c.jpg"] {
        std::fs::write(dir.path().join(name), heic).unwrap();
    }
    for name in ["b.png", "d.png"] {
        write_png(&dir.path().join(name), 64, 48).unwrap();
    }
    let mut camera = FileCamera::open(dir.path(), false, Duration::ZERO).unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let shown = match camera.read() {
            Ok(frame) => frame.map_or_else(String::new, |frame| frame.source),
            Err(error) => {
                assert!(
                    error.to_string().contains("HEIC, which is not read: convert it"),
                    "{error}"
                );
                "no picture".to_owned()
            }
        };
        seen.push((camera.name(), shown));
    }
    let wanted =
        [("a.jpg", "no picture"), ("b.png", "b.png"), ("c.jpg", "no picture"), ("d.png", "d.png")];
    assert_eq!(seen, wanted.map(|(file, shown)| (file.to_owned(), shown.to_owned())));
    std::fs::remove_file(dir.path().join("b.png")).unwrap();
    std::fs::remove_file(dir.path().join("d.png")).unwrap();
    assert!(
        FileCamera::open(dir.path(), false, Duration::ZERO).is_err(),
        "there is nothing to show"
    );
}

#[tokio::test]
async fn an_ask_with_silence_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::new([Line::Say("Guten Tag.")]);
    let mut daemon = Daemon::scripted(Config::default(), &script).await.unwrap();
    let silent =
        std::fs::read(write_wav(&dir.path().join("a.wav"), &silence(1.0)).unwrap()).unwrap();
    daemon.tell_bytes("ask/audio", silent).await;
    let answer = daemon.expect("answer").await;
    assert!(answer["error"].as_str().unwrap().contains("1.0 s are silent"), "{answer}");
    // What is no speech may be heard all the same: the detector is not always right.
    let loud = std::fs::read(write_wav(&dir.path().join("b.wav"), &tone(0.5)).unwrap()).unwrap();
    daemon.tell_bytes("ask/audio", loud).await;
    assert_eq!(daemon.expect("answer").await["text"], json!("Guten Tag."));
    assert!(daemon.end().await);
}
