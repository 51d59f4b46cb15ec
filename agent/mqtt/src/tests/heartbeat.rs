//! What the connection's task promises the watchdog.

use outpost_agent_core::heartbeat::Heartbeats;
use tokio::time::Instant;

use super::*;
use crate::client::LinkStatus;

fn stuck(parts: &Heartbeats, after: Duration) -> Vec<&'static str> {
    parts.stuck(Instant::now() + after)
}

/// No part is late for two minutes in which nothing happens.
async fn is_well_for_two_minutes(parts: &Heartbeats) {
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(stuck(parts, Duration::ZERO).is_empty());
    }
}

#[tokio::test]
async fn nobody_is_stuck_after_a_reconnect_and_a_wedged_link_is_noticed() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    // Paused time must not make the broker seem silent.
    let keep_alive = Duration::from_secs(65_535);
    let config = MqttConfig { device: "desk".into(), keep_alive, ..MqttConfig::default() };
    let device = Device::with(&config, Some(wire.address()));
    let mut status = device.publisher.status();
    status.wait_for(|status| *status == LinkStatus::Up).await.unwrap();
    wire.cut();
    status.wait_for(|status| matches!(status, LinkStatus::Down(_))).await.unwrap();
    wire.restore(broker.address());
    status.wait_for(|status| *status == LinkStatus::Up).await.unwrap();
    tokio::time::pause();
    is_well_for_two_minutes(&device.parts).await;
    // From here on the task does not run.
    assert_eq!(stuck(&device.parts, Duration::from_secs(61)), ["mqtt"]);
}

#[tokio::test]
async fn the_watchdog_sees_the_link_before_the_first_connection() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    wire.cut();
    let device = Device::start(&wire, None);
    let mut status = device.publisher.status();
    status.wait_for(|status| matches!(status, LinkStatus::Down(_))).await.unwrap();
    tokio::time::pause();
    is_well_for_two_minutes(&device.parts).await;
    assert_eq!(stuck(&device.parts, Duration::from_secs(61)), ["mqtt"]);
}
