//! One connection that is made to see whether the broker lets the agent in and takes its messages, for the doctor.

use std::time::Duration;

use outpost_agent_core::config::{MqttConfig, Version};
use tokio::time::timeout;

use crate::payload;
use crate::session::{ConnectOptions, Fault, FaultKind, Session, Signal, Verdict};
use crate::subscriber::spawn;
use crate::topics::{self, Topics};
use crate::transport::Target;

/// How long a broker has for its answer. rumqttc gives up a second later.
const ANSWER: Duration = Duration::from_secs(4);
/// How long it may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Whether the broker takes what the agent publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publishing {
    /// It took the probe.
    Allowed,
    /// It did not, and this is why.
    Denied(String),
    /// It speaks MQTT 3.1.1, in which it cannot say so.
    Unknown,
}

/// Connects as the agent would, but under another client id, so that an agent that is connected
/// stays so. Publishes one message on `event/probe`.
///
/// # Errors
/// If the broker is out of reach, does not answer, or refuses; or a file of the configuration cannot
/// be used.
pub async fn probe(config: &MqttConfig) -> Result<Publishing, Fault> {
    let publishing = probe_with(config, config.version).await?;
    if publishing != Publishing::Unknown {
        return Ok(publishing);
    }
    // Most brokers speak both versions.
    Ok(probe_with(config, Version::V5).await.unwrap_or(Publishing::Unknown))
}

async fn probe_with(config: &MqttConfig, version: Version) -> Result<Publishing, Fault> {
    let refused = |reason: String| Fault { kind: FaultKind::Refused, reason };
    let target = Target::new(config, None).map_err(|fault| refused(fault.to_string()))?;
    let options = ConnectOptions {
        client: topics::passing_client("doctor"),
        version,
        keep_alive: config.keep_alive,
        last_will: None,
        capacity: 1,
    };
    let mut session = Session::open(&target, &options, |poll| spawn(poll).abort_handle());
    let answer = async {
        loop {
            match session.next().await {
                Signal::Up { .. } => {
                    session.publish(&payload::probe(&Topics::new(&config.device)));
                }
                Signal::Acknowledged(_, Verdict::Taken) => {
                    let says = version == Version::V5;
                    return Ok(if says { Publishing::Allowed } else { Publishing::Unknown });
                }
                Signal::Acknowledged(_, Verdict::Refused(reason) | Verdict::Later(reason)) => {
                    return Ok(Publishing::Denied(reason));
                }
                Signal::Ended(fault) => {
                    return Err(fault.unwrap_or_else(|| Fault::network("it ended")));
                }
                _ => {}
            }
        }
    };
    let silent = || {
        let seconds = ANSWER.as_secs();
        Fault::network(format!("nobody there answered as an MQTT broker within {seconds} s"))
    };
    let publishing = timeout(ANSWER, answer).await.map_err(|_| silent())??;
    session.disconnect();
    let ended = async { while !matches!(session.next().await, Signal::Ended(_)) {} };
    timeout(GOODBYE, ended).await.ok();
    Ok(publishing)
}
