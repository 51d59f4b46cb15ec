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

    /// Nucleus sampling (Holtzman et al. 2020, section 3.1).
    fn nucleus(
        &mut self,
        mut candidates: Vec<(u32, f32)>,
        temperature: f32,
        top_p: f32,
    ) -> Option<u32> {
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        let highest = candidates.first()?.1;
        let temperature = temperature.max(f32::MIN_POSITIVE);
        for (_, logit) in &mut candidates {
            *logit = ((*logit - highest) / temperature).exp();
        }
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut mass = 0.0;
        let kept = candidates.iter().take_while(|(_, weight)| {
            let within = mass < top_p * total;
            mass += weight;
            within
        });
        let kept: Vec<_> = kept.copied().collect();
        let kept = if kept.is_empty() { &candidates[..1] } else { &kept };
        let mut left =
            self.rng.random::<f32>() * kept.iter().map(|(_, weight)| weight).sum::<f32>();
        for (id, weight) in kept {
            left -= weight;
            if left <= 0.0 {
                return Some(*id);
            }
        }
        kept.last().map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
