//! How sure the model was of what it decided.

/// Log-probabilities of the tokens that decided an answer: call or not, the tool's name, each argument. Each is taken among the
/// tokens that the grammar allowed in its place; a token without an alternative decides nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// Their mean.
    pub mean: f32,
    /// The least.
    pub least: f32,
    /// How many there were.
    pub tokens: usize,
}

impl Confidence {
    /// Of a single decision.
    pub fn of(log_probability: f32) -> Self {
        Self { mean: log_probability, least: log_probability, tokens: 1 }
    }

    /// Of these decisions and others.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let tokens = self.tokens + other.tokens;
        let sum = self.mean * self.tokens as f32 + other.mean * other.tokens as f32;
        Self { mean: sum / tokens.max(1) as f32, least: self.least.min(other.least), tokens }
    }

    /// The mean and the least as probabilities.
    pub fn probabilities(self) -> (f32, f32) {
        (self.mean.exp(), self.least.exp())
    }
}

/// The log-probability of a token among those that are allowed.
pub(crate) fn log_probability(logits: &[f32], id: u32, allowed: impl Fn(u32) -> bool) -> f32 {
    let chosen = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let others = || {
        let known = logits.iter().enumerate().filter(|(id, logit)| {
            !logit.is_nan() && allowed(u32::try_from(*id).unwrap_or(u32::MAX))
        });
        known.map(|(_, logit)| *logit)
    };
    let highest = others().fold(chosen, f32::max);
    let sum: f32 = others().map(|logit| (logit - highest).exp()).sum();
    (chosen - highest - sum.max(f32::MIN_POSITIVE).ln()).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_taken_among_what_is_allowed() {
        let logits = [0.0, 3_f32.ln(), f32::NAN, 100.0];
        let allowed = |id: u32| id < 3;
        let near = |log: f32, probability: f32| assert!((log.exp() - probability).abs() < 1e-6);
        near(log_probability(&logits, 0, allowed), 0.25);
        near(log_probability(&logits, 1, allowed), 0.75);
        near(log_probability(&logits, 0, |id| id == 0), 1.0);
    }

    #[test]
    fn the_least_counts_beside_the_mean() {
        let both = Confidence::of(-1.0).and(Confidence::of(-3.0)).and(Confidence::of(-2.0));
        assert_eq!(both, Confidence { mean: -2.0, least: -3.0, tokens: 3 });
        let (mean, least) = Confidence::of(0.5_f32.ln()).probabilities();
        assert!((mean - 0.5).abs() < 1e-6 && (least - 0.5).abs() < 1e-6);
    }
}
