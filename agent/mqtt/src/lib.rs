//! MQTT: the contract ([`topics`], [`payload`] out, [`inbound`] in) and the client with its [`outbox`].
//!
//! [`session`] is one connection by either version of the protocol, [`transport`] how the broker is reached; [`client`] keeps a
//! session up and moves the outbox over it. Nothing outside names rumqttc.

pub mod client;
mod connection;
pub mod desired_config;
mod filters;
mod fit;
pub mod home_assistant;
pub mod inbound;
mod kept_desired;
mod link_status;
pub mod message;
mod orders;
pub mod outbox;
pub mod payload;
pub mod probe;
mod retry;
pub mod session;
pub mod subscriber;
pub mod subscriptions;
mod suspicions;
pub mod topics;
pub mod transport;

#[cfg(test)]
mod tests;
