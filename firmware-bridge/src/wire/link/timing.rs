//! How long the link waits for what.

/// Milliseconds of any clock that does not go back.
pub type Millis = u64;

/// How long the link waits for what, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timing {
    /// From one hello to the next.
    pub greet_ms: Millis,
    /// A message that was not acknowledged by then is sent again.
    pub resend_ms: Millis,
    /// Times that it is sent again before the session ends.
    pub tries: u8,
    /// With nothing else to say, a sign of life is sent after this time.
    pub heartbeat_ms: Millis,
    /// Without a sign of life for this time, the session ends.
    pub silence_ms: Millis,
    /// A refusal stands for this long after the last foreign frame.
    pub refusal_ms: Millis,
}

impl Default for Timing {
    /// For a line of 115,200 baud or more.
    fn default() -> Self {
        Self {
            greet_ms: 200,
            resend_ms: 150,
            tries: 8,
            heartbeat_ms: 400,
            silence_ms: 1500,
            refusal_ms: 3000,
        }
    }
}

impl Timing {
    /// For a line of so many baud: a message is not sent again while a window of others may still be on the line.
    pub fn for_line(baud: u32, window: usize) -> Self {
        const BITS_PER_BYTE: u64 = 10;
        let frames = u64::try_from(window).unwrap_or(u64::MAX).saturating_add(1);
        let bits = frames.saturating_mul(MAX_DATA).saturating_mul(BITS_PER_BYTE);
        let on_the_line = bits.saturating_mul(1000).checked_div(u64::from(baud)).unwrap_or(0);
        let base = Self::default();
        Self { resend_ms: base.resend_ms.max(on_the_line.saturating_add(50)), ..base }
    }
}

/// Most bytes of a frame that is not a hello: a text of 96, and what goes around it. A test holds that true.
const MAX_DATA: u64 = 112;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_lines_get_more_time() {
        assert_eq!(Timing::for_line(1_000_000, 8), Timing::default());
        assert_eq!(Timing::for_line(9600, 1).resend_ms, 50 + 2 * 112 * 10 * 1000 / 9600);
    }
}
