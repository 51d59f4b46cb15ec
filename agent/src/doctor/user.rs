//! As whom the checks ran: root may read and write what the agent's user may not.

use std::os::unix::fs::MetadataExt as _;

use crate::doctor::Finding;

/// The unit that the documentation installs.
const UNIT: &str = include_str!("../../../packaging/outpost.service");
/// Its settings that decide what the agent can reach.
const REACH: [&str; 10] = [
    "DynamicUser",
    "SupplementaryGroups",
    "StateDirectory",
    "CacheDirectory",
    "LoadCredential",
    "DevicePolicy",
    "DeviceAllow",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
];

/// Whether this process is root's.
pub fn is_root() -> bool {
    // The owner of a process's folder is its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// Says so where that is root and not a service.
pub(super) fn examine() -> Option<Finding> {
    let is_service = std::env::var_os("INVOCATION_ID").is_some();
    (is_root() && !is_service).then(|| {
        let remedy = format!("add --user NAME; for the unit, run\n{}", as_the_unit());
        Finding::note(
            "user",
            "these checks ran as root, which may more than the agent's user",
            remedy,
        )
    })
}

/// The command that runs the doctor as the unit runs the agent, whose user is there only while it runs.
pub fn as_the_unit() -> String {
    let settings = UNIT
        .lines()
        .filter(|line| line.split_once('=').is_some_and(|(key, _)| REACH.contains(&key)))
        .map(|setting| {
            let quote = if setting.contains(' ') { "'" } else { "" };
            format!("-p {quote}{setting}{quote}")
        });
    let settings: Vec<String> = settings.collect();
    format!(
        "systemd-run --pipe --wait -p User=outpost {} outpost doctor --config /etc/outpost/outpost.toml",
        settings.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_what_the_unit_lets_its_user_reach() {
        let command = as_the_unit();
        for part in [
            "-p DynamicUser=yes",
            "-p 'SupplementaryGroups=audio video dialout'",
            "-p StateDirectory=outpost",
            "-p LoadCredential=mqtt-password:outpost.mqtt-password",
            "-p 'DeviceAllow=char-alsa rw'",
            "-p ProtectHome=yes",
        ] {
            assert!(command.contains(part), "{part} is not in {command}");
        }
        for key in REACH {
            assert!(command.contains(&format!("{key}=")), "the unit has no {key}");
        }
    }
}
