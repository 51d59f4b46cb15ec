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
    /// Serial port of the board: a path or `usb:VENDOR:PRODUCT`. No board if left out.
    pub port: Option<String>,
    /// Baud rate.
    pub baud: u32,
    /// Checksum that the firmware uses.
    pub check: CheckChoice,
    /// Timeout of a command.
    #[serde(with = "seconds", rename = "timeout_seconds")]
    pub timeout: Duration,
    /// Push-to-talk button. Without one the microphone is always open.
    pub push_to_talk: Option<String>,
    /// Button that toggles mute.
    pub mute: Option<String>,
    /// Button that confirms the pending call.
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

/// Checksum of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckChoice {
    /// Four bytes per frame.
    Crc32,
    /// Two bytes per frame.
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
