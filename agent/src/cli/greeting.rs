//! What `outpost run` says once it is ready: what it hears and sees, where it reports, and the command that talks to it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;

use outpost_agent_core::config::{Config, MqttConfig, Transport};
use outpost_broker::Broker;
use outpost_mqtt::client::LinkStatus;

/// Something that the bundled model can do.
const COMMAND: &str = "turn on the kitchen light";

/// The greeting. `embedded` is where the embedded broker listens, if there is one.
pub(super) fn greeting(config: &Config, embedded: Option<SocketAddr>, link: &LinkStatus) -> String {
    let Config { microphone, camera, mqtt, .. } = config;
    let hears = source(microphone.device.as_deref(), microphone.path.as_deref());
    let sees = source(camera.device.as_deref(), camera.path.as_deref());
    let nothing = |key: &str| {
        format!(
            "nothing: set {key}.device to one that `outpost doctor` lists, or {key}.path to files"
        )
    };
    let is_up = *link == LinkStatus::Up;
    let ready = if is_up { "ready" } else { "ready, but without its broker" };
    [
        format!("{ready}: device {}", mqtt.device),
        format!("  hears    {}", hears.unwrap_or_else(|| nothing("microphone"))),
        format!("  sees     {}", sees.unwrap_or_else(|| nothing("camera"))),
        format!("  reports  {}", reports(mqtt, embedded, link)),
        format!("  talk     {}", command(mqtt, embedded)),
    ]
    .join("\n")
}

fn source(device: Option<&str>, path: Option<&Path>) -> Option<String> {
    device.map(str::to_owned).or_else(|| path.map(|path| path.display().to_string()))
}

fn reports(mqtt: &MqttConfig, embedded: Option<SocketAddr>, link: &LinkStatus) -> String {
    let topics = format!("on outpost/{}/#", mqtt.device);
    let broker = match (&mqtt.host, embedded) {
        (None, Some(address)) if address == Broker::USUAL || mqtt.listen.is_some() => {
            format!("its own broker on {address}")
        }
        (None, Some(address)) => {
            format!("its own broker on {address} (port {} is taken)", Broker::USUAL.port())
        }
        (host, _) => format!("{}:{}", host.as_deref().unwrap_or_default(), mqtt.port),
    };
    match link {
        LinkStatus::Up => format!("{topics} to {broker}"),
        LinkStatus::Connecting => format!("{topics}, once {broker} answers"),
        LinkStatus::Down(reason) | LinkStatus::Refused(reason) => {
            format!("{topics}, once it can: {broker}: {reason}")
        }
    }
}

/// The command that talks to the agent.
fn command(mqtt: &MqttConfig, embedded: Option<SocketAddr>) -> String {
    let (host, port) = match (&mqtt.host, embedded) {
        (None, Some(address)) => (address.ip().to_string(), address.port()),
        (host, _) => (host.clone().unwrap_or_default(), mqtt.port),
    };
    let topic = format!("outpost/{}/ask", mqtt.device);
    if mqtt.transport == Transport::Ws {
        return format!("publish {COMMAND:?} on {topic}");
    }
    let mut words = vec!["mosquitto_pub".into(), "-h".into(), quoted(&host)];
    words.extend(["-p".into(), port.to_string().into()]);
    if let Some(user) = &mqtt.username {
        words.extend(["-u".into(), quoted(user), "-P".into(), "PASSWORD".into()]);
    }
    if mqtt.tls.enabled {
        let ca = mqtt.tls.ca.as_ref().map(|path| path.display().to_string());
        words.extend(match &ca {
            Some(path) => ["--cafile".into(), Cow::Owned(quoted(path).into_owned())],
            None => ["--capath".into(), "/etc/ssl/certs".into()],
        });
    }
    words.extend(["-t".into(), quoted(&topic), "-m".into()]);
    format!("{} \"{COMMAND}\"", words.join(" "))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greet(text: &str, embedded: Option<&str>, link: &LinkStatus) -> String {
        let config = Config::parse(text, "test.toml").unwrap();
        greeting(&config, embedded.map(|address| address.parse().unwrap()), link)
    }

    #[test]
    fn without_devices_it_says_what_is_missing_and_how_to_talk_to_it() {
        let text = greet("[mqtt]\ndevice = 'desk'\n", Some("127.0.0.1:1883"), &LinkStatus::Up);
        let readme = include_str!("../../../README.md");
        assert!(
            readme.contains(&format!("```text\n{text}\n```")),
            "the README shows another:\n{text}"
        );
        for part in ["hears    nothing: ", "sees     nothing: ", "-p 1883 -t outpost/desk/ask -m"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn another_port_is_named_and_so_is_a_broker_that_refuses() {
        let text = greet("", Some("127.0.0.1:34567"), &LinkStatus::Up);
        assert!(text.contains("127.0.0.1:34567 (port 1883 is taken)"), "{text}");
        assert!(text.contains("-p 34567 "), "{text}");
        let own = "[mqtt]\ndevice = \"Ann's\"\nhost = 'hub'\nport = 8883\nusername = 'desk'\n[mqtt.tls]\nenabled = true\n\
                   [microphone]\ndevice = 'default'\n[camera]\npath = 'signs'\n";
        let refused = LinkStatus::Refused("the broker does not accept user desk".into());
        let text = greet(own, None, &refused);
        for part in [
            "ready, but without its broker: device Ann's",
            "hears    default",
            "sees     signs",
            "once it can: hub:8883: the broker does not accept user desk",
            r"-h hub -p 8883 -u desk -P PASSWORD --capath /etc/ssl/certs -t 'outpost/Ann'\''s/ask' -m",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
