//! Checks sound cards, as the kernel lists them, and whether this user may record.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use crate::doctor::{Finding, names, text};

const AREA: &str = "sound";

/// Checks all capture devices.
pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let cards = root.join("proc/asound");
    if !cards.exists() {
        let remedy = "plug in a microphone, or load its kernel module; files do without one (microphone.path)";
        return vec![Finding::note(AREA, "this system has no ALSA sound", remedy)];
    }
    let pcms = text(&cards.join("pcm"));
    let captures: Vec<Finding> =
        pcms.lines().filter_map(Pcm::parse).map(|pcm| pcm.examine(root)).collect();
    if captures.is_empty() {
        let remedy = "plug in a microphone; a card that only plays does not hear";
        return vec![Finding::note(AREA, "no sound card records", remedy)];
    }
    captures
}

/// A capture device.
struct Pcm<'a> {
    card: u32,
    device: u32,
    name: &'a str,
}

impl<'a> Pcm<'a> {
    /// Parses a line of `/proc/asound/pcm`, such as `01-00: USB Audio : USB Audio : capture 1`;
    /// `None` for playback.
    fn parse(line: &'a str) -> Option<Self> {
        let mut parts = line.split(':').map(str::trim);
        let (card, device) = parts.next()?.split_once('-')?;
        let name = parts.next()?;
        let records = parts.any(|part| part.starts_with("capture"));
        records.then_some(Self { card: card.parse().ok()?, device: device.parse().ok()?, name })
    }

    fn examine(&self, root: &Path) -> Finding {
        let Self { card, device, name } = self;
        let id = text(&root.join(format!("proc/asound/card{card}/id")));
        // Its id is stable when the card number changes.
        let pcm = format!("plughw:CARD={id},DEV={device}");
        let found = format!("{pcm}  {name}");
        let node = format!("dev/snd/pcmC{card}D{device}c");
        if in_use(root, *card, *device) {
            let remedy =
                "fine if that is the agent; else stop the program (`fuser -v /dev/snd/*` names it)";
            return Finding::note(AREA, format!("{found}, in use"), remedy);
        }
        // Opening an idle device file returns immediately.
        match File::open(root.join(&node)) {
            Ok(_) => Finding::ok(AREA, found),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let remedy = "put the user into the group audio: `usermod -aG audio USER`, then log in again";
                Finding::wrong(AREA, format!("{found}, which this user may not open"), remedy)
            }
            Err(error) => {
                let remedy =
                    "unplug the card and plug it in again; `dmesg` tells what its driver says";
                Finding::wrong(AREA, format!("{found}: /{node}: {error}"), remedy)
            }
        }
    }
}

/// Whether it is in use.
fn in_use(root: &Path, card: u32, device: u32) -> bool {
    let folder = root.join(format!("proc/asound/card{card}/pcm{device}c"));
    let subs = names(&folder).into_iter().filter(|name| name.starts_with("sub"));
    let statuses: Vec<String> = subs.map(|sub| text(&folder.join(sub).join("status"))).collect();
    !statuses.is_empty() && statuses.iter().all(|status| status != "closed")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn devices_that_record_are_named_as_the_configuration_takes_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(examine(root)[0].verdict, Verdict::Note);
        for folder in ["proc/asound/card0/pcm0c/sub0", "proc/asound/card1", "dev/snd"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let pcms = "00-00: USB Audio : USB Audio : playback 1 : capture 1\n00-03: HDMI 0 : HDMI 0 : playback 1\n\
                    01-00: Loopback PCM : Loopback PCM : capture 8\n";
        fs::write(root.join("proc/asound/pcm"), pcms).unwrap();
        fs::write(root.join("proc/asound/card0/id"), "Headset\n").unwrap();
        fs::write(root.join("proc/asound/card0/pcm0c/sub0/status"), "state: RUNNING\n").unwrap();
        fs::write(root.join("proc/asound/card1/id"), "Loopback\n").unwrap();
        let found = examine(root);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].found, "plughw:CARD=Headset,DEV=0  USB Audio, in use");
        assert_eq!(found[1].verdict, Verdict::Wrong);
        fs::write(root.join("dev/snd/pcmC1D0c"), "").unwrap();
        assert_eq!(examine(root)[1], Finding::ok(AREA, "plughw:CARD=Loopback,DEV=0  Loopback PCM"));
    }
}
