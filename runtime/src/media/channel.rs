//! Several channels → one: their mean where they agree, else the loudest.

use std::fmt;
use std::str::FromStr;

/// Which channel of a recording or a microphone is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Channel {
    /// The mean where the channels agree, else the loudest one.
    #[default]
    Auto,
    /// The mean of all.
    Mix,
    /// One of them; the first is 1.
    Only(u16),
}

/// A text that names no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no channel: use `auto`, `mix`, or a number; the first channel is 1")]
pub struct ChannelError(String);

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(text: &str) -> Result<Self, ChannelError> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("mix", _) => Ok(Self::Mix),
            (_, Ok(number @ 1..)) => Ok(Self::Only(number)),
            _ => Err(ChannelError(text.to_owned())),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Mix => f.write_str("mix"),
            Self::Only(number) => number.fmt(f),
        }
    }
}

/// How frames become mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mixing {
    /// The mean of all channels.
    Mean,
    /// One channel, counted from 0.
    One(usize),
}

impl Mixing {
    /// The sample of a frame.
    pub(super) fn of(self, frame: &[f32]) -> f32 {
        match self {
            Self::Mean => frame.iter().sum::<f32>() / frame.len().max(1) as f32,
            Self::One(index) => frame.get(index).copied().unwrap_or(0.0),
        }
    }
}

/// Brings a stream of several channels to one, and goes by what was heard of late where nothing is said.
#[derive(Debug)]
pub struct Mixer {
    channel: Channel,
    mixing: Mixing,
    survey: Survey,
    /// Frames since the channels were compared.
    frames: u32,
    has_cancelled: bool,
}

impl Mixer {
    /// Frames from a comparison to the next: 0.1 s at 16 kHz.
    const ROUND: u32 = 1600;
    /// What was heard a second ago counts for half.
    const FADE: f64 = 0.93;

    /// A mixer at the start of a stream.
    pub fn new(channel: Channel) -> Self {
        let mixing = match channel {
            Channel::Auto | Channel::Mix => Mixing::Mean,
            Channel::Only(number) => Mixing::One(usize::from(number.saturating_sub(1))),
        };
        Self { channel, mixing, survey: Survey::default(), frames: 0, has_cancelled: false }
    }

    /// The sample of the next frame.
    pub fn mix(&mut self, frame: &[f32]) -> f32 {
        if self.channel == Channel::Auto && frame.len() > 1 {
            self.survey.add(frame);
            self.frames += 1;
            if self.frames == Self::ROUND {
                self.compare();
            }
        }
        self.mixing.of(frame)
    }

    fn compare(&mut self) {
        let mixing = match self.survey.finding() {
            Finding::Alike => Mixing::Mean,
            Finding::Differ(index) => Mixing::One(index),
            Finding::Cancel(index) => {
                if !std::mem::replace(&mut self.has_cancelled, true) {
                    tracing::warn!(
                        channel = index + 1,
                        "the microphone's channels cancel each other, as where one is wired the wrong way round: one \
                         alone is heard"
                    );
                }
                Mixing::One(index)
            }
        };
        // Of two that are about as loud the one stays that is heard.
        let stays = match (self.mixing, mixing) {
            (Mixing::One(old), Mixing::One(new)) => {
                self.survey.power(new) < 4.0 * self.survey.power(old)
            }
            (old, new) => old == new,
        };
        if !stays {
            tracing::debug!(?mixing, "another channel is heard");
            self.mixing = mixing;
        }
        self.survey.fade(Self::FADE);
        self.frames = 0;
    }
}

/// How loud each channel is, and how loud their mean.
#[derive(Debug, Clone, Default)]
pub(super) struct Survey {
    channels: Vec<Power>,
    mean: Power,
}

/// Sums over samples, without those that are no number.
#[derive(Debug, Clone, Copy, Default)]
struct Power {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Power {
    fn add(&mut self, sample: f32) {
        if sample.is_finite() {
            let sample = f64::from(sample);
            self.count += 1.0;
            self.sum += sample;
            self.squares += sample * sample;
        }
    }

    /// Variance: an offset is not loud.
    fn value(self) -> f64 {
        let count = self.count.max(1.0);
        (self.squares / count - (self.sum / count).powi(2)).max(0.0)
    }

    fn fade(&mut self, share: f64) {
        self.count *= share;
        self.sum *= share;
        self.squares *= share;
    }
}

/// What a [`Survey`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// The channels agree.
    Alike,
    /// They differ; this one is the loudest.
    Differ(usize),
    /// They cancel each other, as with one that is wired the wrong way round; this one is the loudest.
    Cancel(usize),
}

impl Survey {
    /// A power below this is silence: half a step of 16 bits.
    const SILENCE: f64 = 1e-10;
    /// The mean of channels that agree has this share of the loudest one's power at least.
    const ALIKE: f64 = 0.5;
    /// Channels that have nothing to do with each other keep 1 / n of their power in the mean; with less than this share of
    /// that they cancel.
    const CANCEL: f64 = 0.1;

    /// Takes a frame: a sample of each channel.
    pub(super) fn add(&mut self, frame: &[f32]) {
        self.channels.resize(frame.len(), Power::default());
        for (power, sample) in self.channels.iter_mut().zip(frame) {
            power.add(*sample);
        }
        self.mean.add(Mixing::Mean.of(frame));
    }

    /// Weighs what was taken so far by a share, so that what comes counts for more.
    pub(super) fn fade(&mut self, share: f64) {
        self.channels.iter_mut().chain([&mut self.mean]).for_each(|power| power.fade(share));
    }

    fn power(&self, channel: usize) -> f64 {
        self.channels.get(channel).map_or(0.0, |power| power.value())
    }

    /// What the channels are to each other.
    pub(super) fn finding(&self) -> Finding {
        let powers: Vec<f64> = self.channels.iter().map(|power| power.value()).collect();
        let loudest = powers.iter().copied().enumerate();
        let Some((index, most)) = loudest.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return Finding::Alike;
        };
        let (mean, count) = (self.mean.value(), powers.len() as f64);
        let apart = powers.iter().sum::<f64>() / count / count;
        if most < Self::SILENCE || mean >= Self::ALIKE * most {
            Finding::Alike
        } else if mean < Self::CANCEL * apart {
            Finding::Cancel(index)
        } else {
            Finding::Differ(index)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(frame: impl Fn(f32) -> Vec<f32>) -> Finding {
        let mut survey = Survey::default();
        for index in 0..1600 {
            survey.add(&frame(index as f32));
        }
        survey.finding()
    }

    fn tone(index: f32, pitch: f32) -> f32 {
        (index * pitch).sin() * 0.5
    }

    #[test]
    fn channels_are_alike_differ_or_cancel() {
        let voice = |index| tone(index, 0.1);
        assert_eq!(finding(|i| vec![voice(i)]), Finding::Alike);
        assert_eq!(finding(|i| vec![voice(i), 0.8 * voice(i)]), Finding::Alike);
        assert_eq!(finding(|_| vec![0.0, 0.0]), Finding::Alike);
        assert_eq!(finding(|i| vec![0.0, voice(i)]), Finding::Differ(1));
        assert_eq!(finding(|i| vec![0.0, 0.0, voice(i), 0.0, 0.0, 0.0]), Finding::Differ(2));
        assert_eq!(finding(|i| vec![tone(i, 0.37) * 0.4, voice(i)]), Finding::Differ(1));
        assert_eq!(finding(|i| vec![voice(i), -voice(i)]), Finding::Cancel(1));
        assert_eq!(finding(|i| vec![voice(i), -0.95 * voice(i)]), Finding::Cancel(0));
        // An offset is not loud, and a sample that is no number is left out.
        assert_eq!(finding(|i| vec![0.9, 0.2 * voice(i)]), Finding::Differ(1));
        assert_eq!(
            finding(|i| vec![if (i - 3.0).abs() < 0.5 { f32::NAN } else { 0.0 }, voice(i)]),
            Finding::Differ(1)
        );
    }

    #[test]
    fn a_stream_goes_over_to_the_channel_that_speaks() {
        let peak = |channel, gains: [f32; 2], seconds: usize| {
            let mut mixer = Mixer::new(channel);
            let mixed = (0..seconds * 16_000)
                .map(|index| mixer.mix(&gains.map(|gain| gain * tone(index as f32, 0.1))));
            mixed.skip((seconds - 1) * 16_000).fold(0.0f32, |most, sample| most.max(sample.abs()))
        };
        let near = |value: f32, wanted: f32| {
            assert!((value - wanted).abs() < 0.01, "{value} for {wanted}");
        };
        near(peak(Channel::Auto, [1.0, 1.0], 2), 0.5);
        near(peak(Channel::Auto, [1.0, -1.0], 2), 0.5);
        near(peak(Channel::Auto, [0.0, 1.0], 2), 0.5);
        near(peak(Channel::Mix, [0.0, 1.0], 2), 0.25);
        near(peak(Channel::Only(1), [0.0, 1.0], 2), 0.0);
        // The one that was heard goes silent, and the other speaks.
        let mut mixer = Mixer::new(Channel::Auto);
        for index in 0..32_000 {
            mixer.mix(&[tone(index as f32, 0.1), 0.0]);
        }
        let late = (0..80_000).map(|index| mixer.mix(&[0.0, tone(index as f32, 0.1)]));
        near(late.skip(64_000).fold(0.0, |most, sample: f32| most.max(sample.abs())), 0.5);
    }

    #[test]
    fn channels_are_named_from_1() {
        for (text, channel) in
            [("auto", Channel::Auto), ("mix", Channel::Mix), ("6", Channel::Only(6))]
        {
            assert_eq!(text.parse(), Ok(channel));
            assert_eq!(channel.to_string(), text);
        }
        for text in ["", "0", "-1", "left", "1.5"] {
            assert!(text.parse::<Channel>().unwrap_err().to_string().contains("auto"), "{text}");
        }
    }
}
