//! Checks whether the MQTT broker is reachable.

use std::time::Duration;

use outpost_agent_core::config::MqttConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::doctor::Finding;

const AREA: &str = "mqtt";
/// Timeout for the broker to accept a connection.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Connects to the broker's port. Whether it accepts name and password shows in the logs.
pub(super) async fn examine(config: &MqttConfig) -> Finding {
    let Some(host) = &config.host else {
        return Finding::ok(
            AREA,
            "no mqtt.host: the agent brings a broker of its own, on the loopback interface",
        );
    };
    let port = config.port;
    let reason = match timeout(TIMEOUT, TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => return Finding::ok(AREA, format!("{host}:{port} accepts connections")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
    };
    let remedy = "see that the broker runs, that mqtt.host and mqtt.port are right, and that no firewall is in between; until \
                  then, reports wait in the outbox";
    Finding::wrong(AREA, format!("{host}:{port}: {reason}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[tokio::test]
    async fn a_broker_is_there_or_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = MqttConfig { host: Some("127.0.0.1".into()), port, ..MqttConfig::default() };
        assert_eq!(examine(&config).await.verdict, Verdict::Ok);
        drop(listener);
        let finding = examine(&config).await;
        assert_eq!(finding.verdict, Verdict::Wrong);
        assert!(finding.found.contains(&port.to_string()), "{finding:?}");
    }
}
