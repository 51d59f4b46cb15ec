//! Checks whether the MQTT broker lets the agent in and takes its messages.

use outpost_agent_core::config::MqttConfig;
use outpost_mqtt::probe::{Publishing, probe};
use outpost_mqtt::session::{Fault, FaultKind};
use outpost_mqtt::topics::Topics;
use outpost_mqtt::transport;

use crate::doctor::Finding;

const AREA: &str = "mqtt";

/// Connects to the broker as the agent does.
pub(super) async fn examine(config: &MqttConfig) -> Finding {
    let Some(host) = &config.host else {
        return match transport::login(config) {
            Ok(_) => Finding::ok(
                AREA,
                "no mqtt.host: the agent brings a broker of its own, on the loopback interface",
            ),
            Err(fault) => Finding::wrong(
                AREA,
                fault.to_string(),
                "let the user of the agent read it, and nobody else",
            ),
        };
    };
    match probe(config).await {
        Ok(publishing) => accepted(config, host, &publishing),
        Err(fault) => refused(config, host, &fault),
    }
}

fn accepted(config: &MqttConfig, host: &str, publishing: &Publishing) -> Finding {
    let MqttConfig { device, port, version, username, .. } = config;
    let user = username.as_ref().map_or(String::new(), |user| format!(" and user {user}"));
    let found = format!("{host}:{port} accepts MQTT {version}{user}");
    match publishing {
        Publishing::Allowed => Finding::ok(AREA, format!("{found}, and what is published")),
        Publishing::Unknown => Finding::note(
            AREA,
            found,
            "whether the agent may publish, a broker says with MQTT 5 only: set mqtt.version = \"5\" if it can",
        ),
        Publishing::Denied(reason) => {
            let topic = Topics::new(device).probe();
            let remedy =
                "give the user the rights that docs/mqtt.md lists (Least rights at a broker)";
            Finding::wrong(
                AREA,
                format!("{found}, but not what is published on {topic}: {reason}"),
                remedy,
            )
        }
    }
}

fn refused(config: &MqttConfig, host: &str, fault: &Fault) -> Finding {
    let port = config.port;
    let remedy = match fault.kind {
        FaultKind::Refused => {
            "correct what it names, here or at the broker; until then, reports wait in the outbox"
        }
        FaultKind::Network | FaultKind::TooLong | FaultKind::Closed => {
            "see that an MQTT broker runs there, that mqtt.host, mqtt.port and mqtt.tls are right, and that no firewall is in \
             between; until then, reports wait in the outbox"
        }
    };
    Finding::wrong(AREA, format!("{host}:{port}: {fault}"), remedy)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use outpost_agent_core::config::Version;
    use outpost_broker::Broker;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;
    use crate::doctor::Verdict;

    fn config(address: SocketAddr) -> MqttConfig {
        let host = Some(address.ip().to_string());
        MqttConfig { host, port: address.port(), ..MqttConfig::default() }
    }

    #[tokio::test]
    async fn a_broker_is_there_or_not() {
        let broker = Broker::start(Broker::ANY, 1 << 20).unwrap();
        let finding = examine(&config(broker.address())).await;
        // It speaks MQTT 3.1.1 only.
        assert_eq!(finding.verdict, Verdict::Note, "{finding:?}");
        assert!(finding.found.contains("accepts MQTT 3.1.1"), "{finding:?}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let finding = examine(&config(address)).await;
        assert_eq!(finding.verdict, Verdict::Wrong);
        assert!(finding.found.contains(&address.port().to_string()), "{finding:?}");
    }

    #[tokio::test]
    async fn an_open_port_is_no_broker() {
        for version in [Version::V311, Version::V5] {
            // One keeps silent, one speaks something else, one hangs up.
            for answer in [None, Some("HTTP/1.1 400 Bad Request\r\n\r\n"), Some("")] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let config = MqttConfig { version, ..config(listener.local_addr().unwrap()) };
                let serve = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    match answer {
                        Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                        None => std::future::pending().await,
                    }
                    drop(stream);
                    std::future::pending().await
                };
                let finding = tokio::select! {
                    finding = examine(&config) => finding,
                    finding = serve => finding,
                };
                assert_eq!(finding.verdict, Verdict::Wrong, "{answer:?}: {finding:?}");
            }
        }
    }
}
