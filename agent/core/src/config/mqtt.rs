//! `[mqtt]`: the broker, how to reach it, and the outbox.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::seconds;
use crate::config::name;

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Name of the device in topics. Default: the host's, as an [`id`](crate::config::id).
    pub device: String,
    /// Group of the device.
    pub group: Option<String>,
    /// The broker's host. Default: an embedded broker on the loopback interface.
    pub host: Option<String>,
    /// The broker's port.
    pub port: u16,
    /// Protocol version: `3.1.1` or `5`.
    pub version: Version,
    /// `tcp`, or `ws` for WebSocket.
    pub transport: Transport,
    /// WebSocket path.
    pub ws_path: String,
    /// Address of the embedded broker. Default: port 1883 of the loopback interface if it is free, else another.
    pub listen: Option<SocketAddr>,
    /// Whether the embedded broker may listen beyond this machine.
    pub listen_public: bool,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// File with the password. Default: the systemd credential `mqtt-password`, if there is one.
    pub password_file: Option<PathBuf>,
    /// Keep-alive interval.
    #[serde(with = "seconds", rename = "keep_alive_seconds")]
    pub keep_alive: Duration,
    /// Outbox file; in memory if left out.
    pub outbox: Option<PathBuf>,
    /// File that keeps the desired configuration that was accepted last. Default: `desired.json` in systemd's state directory;
    /// without one, in the outbox.
    pub desired: Option<PathBuf>,
    /// Maximum number of reports kept.
    pub outbox_limit: usize,
    /// Maximum size of the outbox, KiB.
    pub outbox_kib: usize,
    /// Maximum age of a report.
    #[serde(with = "seconds", rename = "outbox_seconds")]
    pub outbox_age: Duration,
    /// `[mqtt.tls]`
    pub tls: TlsConfig,
    /// `[mqtt.home_assistant]`
    pub home_assistant: HomeAssistantConfig,
}

/// `[mqtt.tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Whether to use TLS.
    pub enabled: bool,
    /// PEM file of trusted authorities. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate chain.
    pub certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
}

/// `[mqtt.home_assistant]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HomeAssistantConfig {
    /// Whether to publish discovery messages.
    pub enabled: bool,
    /// Discovery prefix that Home Assistant is configured with.
    pub prefix: String,
}

impl Default for HomeAssistantConfig {
    fn default() -> Self {
        Self { enabled: false, prefix: "homeassistant".into() }
    }
}

/// A version of MQTT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Version {
    /// MQTT 3.1.1.
    #[default]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.
    #[serde(rename = "5")]
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// Transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A TCP connection.
    #[default]
    Tcp,
    /// A WebSocket.
    Ws,
}

/// A secret: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            device: name::of_host(),
            group: None,
            host: None,
            port: 1883,
            version: Version::V311,
            transport: Transport::Tcp,
            ws_path: "/mqtt".into(),
            listen: None,
            listen_public: false,
            username: None,
            password: None,
            password_file: None,
            keep_alive: Duration::from_secs(15),
            outbox: None,
            desired: None,
            outbox_limit: 10_000,
            outbox_kib: 16 * 1024,
            outbox_age: Duration::from_hours(7 * 24),
            tls: TlsConfig::default(),
            home_assistant: HomeAssistantConfig::default(),
        }
    }
}

impl MqttConfig {
    /// Configured files, so that relative paths can be resolved.
    pub(crate) fn paths(&mut self) -> [&mut Option<PathBuf>; 6] {
        let tls = &mut self.tls;
        let tls = [&mut tls.ca, &mut tls.certificate, &mut tls.key];
        let [ca, certificate, key] = tls;
        [&mut self.password_file, &mut self.outbox, &mut self.desired, ca, certificate, key]
    }

    pub(crate) fn check(&self, faults: &mut Faults) {
        if !is_name(&self.device) {
            let remedy = "use a name without / + # @: it is part of topics";
            faults.add("mqtt.device", format!("{:?}", self.device), remedy);
        }
        if let Some(group) = self.group.as_ref().filter(|group| !is_name(group)) {
            let remedy = "use a name without / + # @: it is part of topics";
            faults.add("mqtt.group", format!("{group:?}"), remedy);
        }
        if let Some(host) = &self.host
            && let Some(remedy) = host_remedy(host)
        {
            faults.add("mqtt.host", format!("{host:?}"), remedy);
        }
        if self.host.is_none() {
            self.check_embedded(faults);
        } else if self.listen.is_some() {
            let remedy = "leave it out: with mqtt.host no embedded broker is started";
            faults.add("mqtt.listen", "", remedy);
        }
        if let Some(listen) = self.listen.filter(|listen| !listen.ip().is_loopback())
            && !self.listen_public
        {
            let remedy = "use an address of this machine such as 127.0.0.1:1883, or set mqtt.listen_public = true and give \
                          mqtt.username and a password: whoever reaches the broker commands the device";
            faults.add("mqtt.listen", listen, remedy);
        }
        self.check_credentials(faults);
        let prefix = &self.home_assistant.prefix;
        if prefix.is_empty() || prefix.contains(['+', '#', '\0']) || prefix.starts_with("outpost/")
        {
            let remedy = "use the discovery prefix that Home Assistant is configured with";
            faults.add("mqtt.home_assistant.prefix", format!("{prefix:?}"), remedy);
        }
        // The range that rumqttc accepts for both versions.
        if !(5..=65_535).contains(&self.keep_alive.as_secs()) {
            let seconds = self.keep_alive.as_secs();
            faults.add("mqtt.keep_alive_seconds", seconds, "use a value from 5 to 65535");
        }
        if !self.ws_path.starts_with('/') {
            faults.add("mqtt.ws_path", format!("{:?}", self.ws_path), "begin it with /");
        }
        let bounds =
            [("mqtt.outbox_limit", self.outbox_limit), ("mqtt.outbox_kib", self.outbox_kib)];
        for (key, _) in bounds.into_iter().filter(|(_, value)| *value == 0) {
            faults.add(key, 0, "use 1 or more");
        }
        if self.outbox_age.is_zero() {
            faults.add("mqtt.outbox_seconds", 0, "use more than 0");
        }
    }

    fn check_embedded(&self, faults: &mut Faults) {
        if self.group.is_some() {
            faults.add("mqtt.group", "", "give mqtt.host too: a group shares a broker");
        }
        let remedy = "give mqtt.host too: the embedded broker speaks MQTT 3.1.1 over plain TCP";
        if self.version == Version::V5 {
            faults.add("mqtt.version", "\"5\"", remedy);
        }
        if self.transport == Transport::Ws {
            faults.add("mqtt.transport", "\"ws\"", remedy);
        }
        if self.tls.enabled {
            faults.add("mqtt.tls.enabled", true, remedy);
        }
    }

    fn check_credentials(&self, faults: &mut Faults) {
        for (key, given) in [
            ("mqtt.password", self.password.is_some()),
            ("mqtt.password_file", self.password_file.is_some()),
        ] {
            if given && self.username.is_none() {
                faults.add(key, "", "give mqtt.username too");
            }
        }
        if self.password.is_some() && self.password_file.is_some() {
            faults.add("mqtt.password", "", "leave it out, or mqtt.password_file");
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            let remedy = "give both mqtt.tls.certificate and mqtt.tls.key, or neither";
            faults.add("mqtt.tls.certificate", "", remedy);
        }
        let named = [&self.tls.ca, &self.tls.certificate].into_iter().any(Option::is_some);
        if named && !self.tls.enabled {
            faults.add("mqtt.tls.enabled", false, "set it to true, or leave out the certificates");
        }
    }
}

/// Whether a name is a valid topic level, and not that of a group.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '@']) && !name.contains(char::is_control)
}
/// What to write in place of an address that is more than the name of a host.
fn host_remedy(host: &str) -> Option<String> {
    let (scheme, rest) = host.split_once("://").unwrap_or(("", host));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // An IPv6 address has colons of its own, in brackets or not.
    let (name, port) = match place.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
        _ => (place, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if host.trim().is_empty() {
        return Some(
            "write the name or address of the broker, or leave it out for the embedded one".into(),
        );
    }
    if host == name && !host.contains(char::is_whitespace) {
        return None;
    }
    let mut lines = vec![format!("mqtt.host = {:?}", name.trim())];
    lines.extend(
        port.filter(|port| port.parse::<u16>().is_ok()).map(|port| format!("mqtt.port = {port}")),
    );
    if matches!(scheme, "ws" | "wss") {
        lines.push("mqtt.transport = \"ws\"".into());
    }
    if matches!(scheme, "mqtts" | "ssl" | "tls" | "wss") {
        lines.push("mqtt.tls.enabled = true".into());
    }
    if authority != place {
        lines.push("mqtt.username and mqtt.password_file".into());
    }
    Some(format!("the name or address alone goes here: write {}", lines.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_broker_listens_beyond_this_machine_only_where_that_is_written() {
        for (listen, public, fits) in [
            ("127.0.0.1:1883", false, true),
            ("[::1]:1883", false, true),
            ("0.0.0.0:1883", false, false),
            ("[::]:1883", false, false),
            ("192.0.2.1:1883", false, false),
            ("0.0.0.0:1883", true, true),
        ] {
            let mut faults = Faults::default();
            let listen = Some(listen.parse().unwrap());
            MqttConfig { listen, listen_public: public, ..MqttConfig::default() }
                .check(&mut faults);
            assert_eq!(faults.is_empty(), fits, "{listen:?} {faults}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_more() {
        for host in ["broker", "broker.example.org", "192.0.2.1", "::1", "2001:db8::1"] {
            assert_eq!(host_remedy(host), None, "{host}");
        }
        for (host, wanted) in [
            ("h:1883", "write mqtt.host = \"h\", mqtt.port = 1883"),
            ("mqtt://h", "write mqtt.host = \"h\""),
            (
                "mqtts://h:8883/",
                "write mqtt.host = \"h\", mqtt.port = 8883, mqtt.tls.enabled = true",
            ),
            ("ws://h/mqtt", "mqtt.transport = \"ws\""),
            ("mqtt://me:secret@h", "mqtt.username"),
            ("[::1]:1883", "write mqtt.host = \"::1\", mqtt.port = 1883"),
            (" h", "write mqtt.host = \"h\""),
            ("", "leave it out"),
        ] {
            let remedy = host_remedy(host).unwrap();
            assert!(remedy.contains(wanted), "{host}: {remedy}");
        }
    }
}
