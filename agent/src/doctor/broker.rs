//! Checks whether the MQTT broker lets the agent in.

use outpost_agent_core::config::MqttConfig;
use outpost_mqtt::probe::probe;
use outpost_mqtt::session::FaultKind;

use crate::doctor::Finding;

const AREA: &str = "mqtt";

/// Connects to the broker as the agent does.
pub(super) async fn examine(config: &MqttConfig) -> Finding {
    let Some(host) = &config.host else {
        return Finding::ok(
            AREA,
            "no mqtt.host: the agent brings a broker of its own, on the loopback interface",
        );
    };
    let (port, version) = (config.port, config.version);
    let Err(fault) = probe(config).await else {
        let user =
            config.username.as_ref().map_or(String::new(), |user| format!(" and user {user}"));
        return Finding::ok(AREA, format!("{host}:{port} accepts MQTT {version}{user}"));
    };
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
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
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
