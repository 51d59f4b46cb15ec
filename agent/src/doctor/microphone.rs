//! Checks the configured microphone: opens it and listens for a moment.

use outpost_agent_core::config::MicrophoneConfig;
use outpost_agent_core::report::{MicrophoneState, Presence};
use outpost_runtime::audio::RATE;
use outpost_senses::microphone::meter::Meter;
use outpost_senses::microphone::open;
use outpost_senses::microphone::pcm::IN_USE;

use crate::doctor::Finding;

const AREA: &str = "sound";
/// Sound to listen to: long enough to notice a microphone that is switched off.
const SAMPLES: usize = 6 * RATE as usize;
/// Reads without sound after which the device is given up.
const MOST_SILENT_READS: usize = 20;

/// Checks the configured device, if any.
pub(super) fn examine(config: &MicrophoneConfig) -> Vec<Finding> {
    let Some(name) = &config.device else { return Vec::new() };
    let state = listen(config);
    let level = state.level;
    let found = format!(
        "microphone.device = {name}: {}, level {:.0} dBFS, peak {:.0} dBFS",
        state.format.as_deref().unwrap_or("not open"),
        level.rms_dbfs,
        level.peak_dbfs
    );
    let finding = match &state.condition {
        Presence::Lost(reason) if reason.ends_with(IN_USE) => {
            let remedy =
                "fine if that is the agent; else stop the program (`fuser -v /dev/snd/*` names it)";
            Finding::note(AREA, format!("microphone.device = {name}, in use"), remedy)
        }
        Presence::Lost(reason) => {
            let remedy =
                "use a name that is listed here as a sound card, or that `arecord -L` lists";
            Finding::wrong(AREA, format!("microphone.device = {name}: {reason}"), remedy)
        }
        _ if level.dead => {
            let remedy = "only zeros come from it: switch the microphone on, or choose the input with `alsamixer`";
            Finding::wrong(AREA, found, remedy)
        }
        _ if level.clipping => Finding::note(
            AREA,
            found,
            "it is cut off at full scale: lower the gain with `alsamixer`",
        ),
        _ => Finding::ok(AREA, found),
    };
    vec![finding]
}

fn listen(config: &MicrophoneConfig) -> MicrophoneState {
    let mut meter = Meter::default();
    let mut chunk = Vec::new();
    let mut samples = 0;
    let mut silent_reads = 0;
    let Ok(Some(mut source)) = open(config) else { return MicrophoneState::default() };
    // Reads never fail: a lost device is reopened.
    while samples < SAMPLES && silent_reads < MOST_SILENT_READS && source.read(&mut chunk).is_ok() {
        silent_reads = if chunk.is_empty() { silent_reads + 1 } else { 0 };
        samples += chunk.len();
        meter.push(&chunk);
        chunk.clear();
    }
    MicrophoneState { level: meter.level(), ..source.state() }
}
