//! A simulated day of sound in minutes: does endpointing miss commands, take other sounds for
//! speech, or leak? Pure: the day comes from a seed, and time is a count of samples.

use outpost_agent_core::config::{EndpointConfig, Vad};
use outpost_runtime::audio::RATE;
use outpost_senses::endpoint::{Cut, Endpoint};
use outpost_senses::vad::detector;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Chunk size.
const CHUNK: usize = RATE as usize / 50;

/// Tally of a day, or part of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Commands spoken.
    pub spoken: u64,
    /// Commands less than half of which is in an utterance.
    pub missed: u64,
    /// Utterances without speech.
    pub false_alarms: u64,
    /// Reports of noise.
    pub noises: u64,
}

/// A sound over the noise of the room.
enum Scene {
    Nothing,
    Command(usize),
    /// Chords with a beat, at this level.
    Music(f32),
    /// A machine, at this level.
    Machine(f32),
    /// A door or a dropped pan.
    Bang,
}

/// A simulated day and its tally.
#[derive(Debug)]
pub struct Day {
    rng: StdRng,
    clips: Vec<Vec<f32>>,
    room: f32,
    pink: [f32; 3],
    brown: f32,
    endpoint: Endpoint,
    now: u64,
    /// Recent commands, as ranges of samples.
    spoken: Vec<(u64, u64)>,
    utterances: Vec<(u64, u64)>,
    tally: Tally,
}

impl Day {
    /// A day with these 16 kHz clips as commands.
    pub fn new(clips: Vec<Vec<f32>>, vad: Vad, config: &EndpointConfig, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            clips,
            room: 0.001,
            pink: [0.0; 3],
            brown: 0.0,
            endpoint: Endpoint::new(config.clone(), detector(vad, config)),
            now: 0,
            spoken: Vec::new(),
            utterances: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Runs at least this many seconds; returns their tally.
    pub fn go_on(&mut self, seconds: f64) -> Tally {
        let end = self.now + (seconds * f64::from(RATE)) as u64;
        self.room = 10f32.powf(self.rng.random_range(-75.0..-45.0) / 20.0);
        while self.now < end {
            let scene = self.next_scene();
            self.play(&scene);
        }
        // Everything has ended by then.
        self.silence(2.0);
        std::mem::take(&mut self.tally)
    }

    fn next_scene(&mut self) -> Scene {
        let level = 10f32.powf(self.rng.random_range(-40.0..-15.0) / 20.0);
        match self.rng.random_range(0..100) {
            0..40 if !self.clips.is_empty() => {
                Scene::Command(self.rng.random_range(0..self.clips.len()))
            }
            40..50 => Scene::Music(level),
            50..60 => Scene::Machine(level),
            60..80 => Scene::Bang,
            _ => Scene::Nothing,
        }
    }

    /// Plays a sound, then room noise.
    fn play(&mut self, scene: &Scene) {
        let seconds = self.rng.random_range(10.0..60.0);
        match scene {
            Scene::Command(clip) => self.speak(*clip),
            Scene::Music(level) => {
                let base = self.rng.random_range(80.0..300.0);
                let beat = self.rng.random_range(0.3..0.8);
                let chord = [1.0, 1.26, 1.5, 2.0].map(|ratio| base * ratio);
                let level = *level;
                let mut second = 0.0f32;
                self.sound(seconds, |_| {
                    second += 1.0 / RATE as f32;
                    let decay = (-3.0 * (second % beat) / beat).exp();
                    let tones = chord.map(|hertz| (std::f32::consts::TAU * hertz * second).sin());
                    level * decay * tones.iter().sum::<f32>() / 2.0
                });
            }
            Scene::Machine(level) => {
                let level = *level;
                self.sound(seconds, |day| {
                    day.brown = 0.98 * day.brown + 0.2 * day.white();
                    level * day.brown
                });
            }
            Scene::Bang => {
                let mut decay = 0.8;
                self.sound(0.5, |day| {
                    decay *= 0.9992;
                    decay * day.white()
                });
            }
            Scene::Nothing => {}
        }
        let rest = self.rng.random_range(3.0..90.0);
        self.silence(rest);
        self.score();
    }

    fn speak(&mut self, clip: usize) {
        let clip = self.clips[clip].clone();
        let loudest = clip.iter().fold(1e-3f32, |loudest, sample| loudest.max(sample.abs()));
        let gain = 10f32.powf(self.rng.random_range(-20.0..-3.0) / 20.0) / loudest;
        self.spoken.push((self.now, self.now + clip.len() as u64));
        self.tally.spoken += 1;
        let mut samples = clip.iter();
        let seconds = clip.len() as f64 / f64::from(RATE);
        self.sound(seconds, |_| gain * samples.next().unwrap_or(&0.0));
    }

    fn silence(&mut self, seconds: f64) {
        self.sound(seconds, |_| 0.0);
    }

    /// Adds a sound.
    fn sound(&mut self, seconds: f64, mut next: impl FnMut(&mut Self) -> f32) {
        let mut left = (seconds * f64::from(RATE)) as usize;
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut cuts = Vec::new();
        while left > 0 {
            chunk.clear();
            for _ in 0..left.min(CHUNK) {
                let sample = next(self) + self.room * self.pink();
                chunk.push(sample.clamp(-1.0, 1.0));
            }
            left -= chunk.len();
            self.now += chunk.len() as u64;
            self.endpoint.push(&chunk, &mut cuts);
            for cut in cuts.drain(..) {
                match cut {
                    Cut::Utterance(piece) => {
                        let start = (piece.start.as_secs_f64() * f64::from(RATE)) as u64;
                        self.utterances.push((start, start + piece.samples.len() as u64));
                    }
                    Cut::Noise { .. } => self.tally.noises += 1,
                    _ => {}
                }
            }
        }
    }

    fn white(&mut self) -> f32 {
        self.rng.random_range(-1.0..1.0)
    }

    /// Pink noise (Paul Kellet's three-pole filter).
    fn pink(&mut self) -> f32 {
        let white = self.white();
        let poles = [(0.997_65, 0.099_046), (0.963, 0.296_516_4), (0.57, 1.052_691_3)];
        for (state, (pole, gain)) in self.pink.iter_mut().zip(poles) {
            *state = pole * *state + gain * white;
        }
        0.5 * (self.pink.iter().sum::<f32>() + 0.184_8 * white)
    }

    /// Compares commands with utterances, once both have ended.
    fn score(&mut self) {
        if self.endpoint.is_speaking() {
            return;
        }
        let overlap = |a: (u64, u64), b: (u64, u64)| a.1.min(b.1).saturating_sub(a.0.max(b.0));
        for spoken in &self.spoken {
            let heard: u64 = self.utterances.iter().map(|heard| overlap(*heard, *spoken)).sum();
            self.tally.missed += u64::from(heard * 2 < spoken.1 - spoken.0);
        }
        let is_false =
            |heard: &&(u64, u64)| self.spoken.iter().all(|spoken| overlap(*spoken, **heard) == 0);
        self.tally.false_alarms += self.utterances.iter().filter(is_false).count() as u64;
        self.spoken.clear();
        self.utterances.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_quarter_of_an_hour_no_command_is_missed_and_hardly_anything_else_taken_for_one() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/nano/samples/");
        let clips = ["lock_the_front_door", "turn_on_the_kitchen_light", "what_does_the_sign_say"];
        let clips = clips.map(|name| {
            let path = std::path::PathBuf::from(format!("{root}{name}.wav"));
            outpost_runtime::media::read_wav(&path).expect("a sample").samples.to_vec()
        });
        let config = EndpointConfig::default();
        let mut day = Day::new(clips.to_vec(), Vad::Silero, &config, 7);
        let tally = day.go_on(900.0);
        assert!(tally.spoken > 3, "{tally:?}");
        assert_eq!(tally.missed, 0, "{tally:?}");
        assert!(tally.false_alarms <= 1, "{tally:?}");
    }
}
