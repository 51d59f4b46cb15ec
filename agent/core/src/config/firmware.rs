//! `[firmware]`: the board behind the firmware link.

use std::time::Duration;

use outpost_firmware_bridge::host::PortChoice;
use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::seconds;

/// `[firmware]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FirmwareConfig {
    /// The board's serial port, a path or `usb:VENDOR:PRODUCT`; none: no board.
    pub port: Option<String>,
    /// Bits per second of the line.
    pub baud: u32,
    /// The checksum that the firmware uses.
    pub check: CheckChoice,
    /// A command that is not answered by then has failed.
    #[serde(with = "seconds", rename = "timeout_seconds")]
    pub timeout: Duration,
    /// The name of the board's button that opens the microphone while it is held; none: the microphone is always open.
    pub push_to_talk: Option<String>,
    /// The name of the board's button that sets and lifts mute; none: only `set/mute` does.
    pub mute: Option<String>,
    /// The name of the board's button that says yes to a call which waits for it; none: only `set/confirm` and a voice do.
    pub confirm: Option<String>,
}

impl Default for FirmwareConfig {
    fn default() -> Self {
        Self {
            port: None,
            baud: 115_200,
            check: CheckChoice::Crc32,
            timeout: Duration::from_secs(2),
            push_to_talk: None,
            mute: None,
            confirm: None,
        }
    }
}

/// How frames are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckChoice {
    /// Four bytes a frame.
    Crc32,
    /// Two bytes a frame.
    Crc16,
}

impl FirmwareConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if let Some(port) = &self.port
            && let Err(fault) = port.parse::<PortChoice>()
        {
            faults.add("firmware.port", format!("{port:?}"), fault.to_string());
        }
        if self.baud < 1200 {
            faults.add("firmware.baud", self.baud, "use 1200 or more");
        }
        if self.timeout.is_zero() {
            faults.add("firmware.timeout_seconds", 0, "use more than 0");
        }
        let buttons = [
            ("push_to_talk", &self.push_to_talk),
            ("mute", &self.mute),
            ("confirm", &self.confirm),
        ];
        for (key, button) in buttons {
            if button.is_some() && self.port.is_none() {
                let remedy = "give firmware.port too: without a board there is no button";
                faults.add(format!("firmware.{key}"), "", remedy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &FirmwareConfig) -> String {
        let mut faults = Faults::default();
        config.check(&mut faults);
        faults.to_string()
    }

    #[test]
    fn unusable_values_are_named_with_their_remedy() {
        assert_eq!(faults(&FirmwareConfig::default()), "");
        let config = FirmwareConfig {
            port: Some("usb:2e8a".into()),
            baud: 300,
            timeout: Duration::ZERO,
            ..FirmwareConfig::default()
        };
        let text = faults(&config);
        for part in ["usb:VENDOR:PRODUCT", "firmware.baud = 300", "firmware.timeout_seconds"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let config =
            FirmwareConfig { push_to_talk: Some("talk".into()), ..FirmwareConfig::default() };
        assert!(faults(&config).contains("give firmware.port too"));
    }
}
