//! The agent without its devices: what comes in, what is done about it, and what goes out.
//!
//! # The path of an event
//! [`event::Event`] → [`agent`] (the loop, which feeds the pure [`state`] machine) → [`turn`] → [`model_thread`] → [`dispatch`]
//! (tools) → [`report::Report`].
//!
//! The microphone, the camera, the board and the broker are traits here: [`microphone::Microphone`], [`camera::Camera`],
//! [`toolset::BoardTools`], [`report::Sink`]. `ARCHITECTURE.md` lists the modules.

pub mod agent;
pub mod asked;
pub mod audit;
pub mod back_off;
pub mod camera;
pub mod config;
pub mod confirm;
pub mod dispatch;
pub mod event;
pub mod evidence;
pub mod heartbeat;
pub mod id;
pub mod live;
pub mod mailbox;
pub mod measure;
pub mod memory;
pub mod metrics;
pub mod microphone;
pub mod model_thread;
pub mod ocr;
pub mod pattern;
pub mod pending;
pub mod prompting;
pub mod repeats;
pub mod report;
pub mod scene_reader;
pub mod shortcomings;
pub mod state;
pub mod task_group;
pub mod tasks;
pub mod toolset;
pub mod transcript;
pub mod turn;
pub mod watch;
pub mod written;
