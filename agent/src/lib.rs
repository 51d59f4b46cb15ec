//! The agent: senses in, one model, tools, reports out over MQTT.
//!
//! # The path of an event
//! `senses`, `mqtt` → [`event::Event`] → `agent` (the loop, which feeds the pure `state`) → `turn` → `prompting` → `model_thread`
//! → `dispatch` (tools) → [`report::Report`] → `outbox` → `mqtt::client`.
//!
//! # Layout
//! - [`app`]: builds all of that from a [`config::Config`], starts and drains it.
//! - [`agent`]: the one `select!`; [`state`], [`pending`], [`repeats`], [`watch`], [`senses::endpoint`]: pure, time is an argument.
//! - [`policy`]: who may call which tool, as it is written; [`confirm`]: calls that wait for a person; [`audit`]: the log of calls.
//! - [`live`]: the settings that can change while it runs. [`lifetime`]: its tasks, and how they end.
//! - [`firmware`]: the board behind the firmware link.
//! - [`model_thread`]: owns the model, the one panic boundary.
//! - [`mqtt`]: the contract and the client; nothing else names rumqttc.
//! - [`heartbeat`], [`metrics`], [`service`]: who makes progress, what was counted, and what the service manager is told.
//! - [`heap`]: the allocator's setting, the only unsafe line here; [`memory`]: what a model needs, and whether it fits.
//! - [`cli`]: the subcommands; nothing else prints.

pub mod agent;
pub mod app;
pub mod asked;
pub mod audit;
pub mod cli;
pub mod config;
pub mod confirm;
pub mod dispatch;
pub mod doctor;
pub mod event;
pub mod evidence;
pub mod firmware;
pub mod heap;
pub mod heartbeat;
pub mod id;
pub mod lifetime;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod model_dir;
pub mod model_thread;
pub mod mqtt;
pub mod outbox;
pub mod pending;
pub mod policy;
pub mod prompting;
pub mod repeats;
pub mod report;
pub mod score;
pub mod senses;
pub mod service;
pub mod sight;
pub mod state;
pub mod tasks;
pub mod toolbox;
pub mod turn;
pub mod watch;
pub mod written;
