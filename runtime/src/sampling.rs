//! Logits → token id.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::request::Sampling;

/// Chooses tokens; keeps the generator's state across the tokens of one answer.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: StdRng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Nucleus { seed, .. } => seed,
        };
        Self { sampling, rng: StdRng::seed_from_u64(seed) }
    }

    /// The chosen id among those that are `allowed`; `None` if nothing is allowed or no logit is a number.
    pub(crate) fn choose(&mut self, logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<u32> {
        let candidates = logits
            .iter()
            .enumerate()
            .map(|(id, logit)| (id as u32, *logit))
            .filter(|(id, logit)| !logit.is_nan() && allowed(*id));
        match self.sampling {
            // The first of equals wins, as in the reference's argmax.
            Sampling::Greedy => candidates
                .reduce(|best, next| if next.1 > best.1 { next } else { best })
                .map(|(id, _)| id),
            Sampling::Nucleus { temperature, top_p, .. } => {
                self.nucleus(candidates.collect(), temperature, top_p)
            }
        }
    }

    /// Nucleus sampling (Holtzman et al. 2020, section 3.1). Only the candidates of the nucleus are brought into order, and
    /// hardly ever more than [`FEW`]: sorting a whole vocabulary takes longer than the rest of a token on a small GPU.
    fn nucleus(
        &mut self,
        mut candidates: Vec<(u32, f32)>,
        temperature: f32,
        top_p: f32,
    ) -> Option<u32> {
        let highest = candidates.iter().map(|(_, logit)| *logit).max_by(f32::total_cmp)?;
        let temperature = temperature.max(f32::MIN_POSITIVE);
        for (_, logit) in &mut candidates {
            *logit = ((*logit - highest) / temperature).exp();
        }
        let mass = f64::from(top_p) * sum(&candidates);
        let mut count = FEW;
        let kept = loop {
            let found = heaviest(&mut candidates, count);
            let (kept, ordered) = (cut(found, mass), found.len());
            // Where all of them belong to the nucleus, those behind may too.
            if kept < ordered || ordered == candidates.len() {
                break &candidates[..kept.max(1)];
            }
            count *= 8;
        };
        let mut left = f64::from(self.rng.random::<f32>()) * sum(kept);
        for (id, weight) in kept {
            left -= f64::from(*weight);
            if left <= 0.0 {
                return Some(*id);
            }
        }
        kept.last().map(|(id, _)| *id)
    }
}

/// Candidates that are brought into order at first.
const FEW: usize = 64;

/// The weights of candidates, added up in f64: their order makes no difference that matters.
fn sum(candidates: &[(u32, f32)]) -> f64 {
    candidates.iter().map(|(_, weight)| f64::from(*weight)).sum()
}

/// Brings the heaviest `count` to the front, in order; of equals, those with the lower id come first.
fn heaviest(candidates: &mut [(u32, f32)], count: usize) -> &[(u32, f32)] {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let count = count.min(candidates.len());
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, order);
    }
    candidates[..count].sort_unstable_by(order);
    &candidates[..count]
}

/// How many of some candidates in order it takes to reach a mass.
fn cut(candidates: &[(u32, f32)], mass: f64) -> usize {
    let mut reached = 0.0;
    let within = candidates.iter().take_while(|(_, weight)| {
        let within = reached < mass;
        reached += f64::from(*weight);
        within
    });
    within.count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by sorting everything first.
    fn by_sorting(logits: &[f32], temperature: f32, top_p: f32, seed: u64) -> u32 {
        let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let highest = all[0].1;
        for (_, logit) in &mut all {
            *logit = ((*logit - highest) / temperature).exp();
        }
        let (mass, mut reached) = (f64::from(top_p) * sum(&all), 0.0);
        let mut kept = Vec::new();
        for (id, weight) in all {
            if reached >= mass && !kept.is_empty() {
                break;
            }
            reached += f64::from(weight);
            kept.push((id, weight));
        }
        let mut left = f64::from(StdRng::seed_from_u64(seed).random::<f32>()) * sum(&kept);
        let chosen = kept.iter().find(|(_, weight)| {
            left -= f64::from(*weight);
            left <= 0.0
        });
        chosen.unwrap_or(&kept[kept.len() - 1]).0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Narrow and wide distributions, with many equals among them: nuclei of one, of some, and of nearly all.
        #[test]
        fn what_is_cut_first_is_chosen_as_by_sorting(
            levels in prop::collection::vec(0_u8..60, 1..3000),
            width in 0.001_f32..0.5,
            temperature in 0.1_f32..2.0,
            top_p in 0.01_f32..=1.0,
            seed: u64,
        ) {
            let logits: Vec<f32> = levels.iter().map(|level| f32::from(*level) * width).collect();
            let mut sampler = Sampler::new(Sampling::Nucleus { temperature, top_p, seed });
            let found = sampler.choose(&logits, |_| true);
            prop_assert_eq!(found, Some(by_sorting(&logits, temperature, top_p, seed)));
        }
    }

    #[test]
    fn greedy_takes_the_highest_allowed_logit() {
        let mut sampler = Sampler::new(Sampling::Greedy);
        assert_eq!(sampler.choose(&[1.0, 5.0, f32::NAN, 4.0], |id| id != 1), Some(3));
        assert_eq!(sampler.choose(&[2.0, 2.0], |_| true), Some(0));
        assert_eq!(sampler.choose(&[2.0], |_| false), None);
    }

    #[test]
    fn nucleus_stays_within_top_p_and_repeats_under_a_seed() {
        let sampling = Sampling::Nucleus { temperature: 1.0, top_p: 0.6, seed: 7 };
        let draw = || {
            let mut sampler = Sampler::new(sampling);
            (0..200)
                .map(|_| sampler.choose(&[2.0, 2.0, -3.0, -9.0], |_| true).unwrap())
                .collect::<Vec<_>>()
        };
        let drawn = draw();
        assert!(drawn.contains(&0) && drawn.contains(&1));
        assert!(drawn.iter().all(|id| *id < 2));
        assert_eq!(drawn, draw());
    }
}
