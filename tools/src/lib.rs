//! What the agent can do: tools, the rules of who may call which, and the calling.
//!
//! # The path of a call
//! name and arguments → [`Registry::call`]: known? → arguments valid? → [`policy`] → the tool, within its time → a
//! [`ToolOutcome`] or a [`ToolError`] with one text for the model and one for the operator.
//!
//! # Layout
//! - [`tool`]: the [`Tool`] trait and what a tool gets and gives; [`ToolHost`] is all that it can reach.
//! - [`registry`]: tools by name; [`policy`]: pure rules; [`confirm`]: which calls they leave to a person; [`call`]: the carrying out. [`schema`]: argument types → JSON Schema.
//! - [`schedule`]: days and hours. [`builtin`]: one tool a file; [`devices`], [`scheduled_prompts`], [`json_file`]: the state that they keep.
//! - [`declared`]: tools of the configuration, on [`template`], [`process`], [`http`] and [`requests`]; what is wrong with a
//!   table is a [`fault`].
//! - [`remote`]: tools that others offer over MQTT, which is the [`bus`]; [`mcp`]: those of MCP servers. [`plain`] makes their
//!   schemas fit for grammar and prompt; `arguments` holds a call against them in full.
//! - no model, no MQTT client, no device.
#![forbid(unsafe_code)]

mod arguments;
pub mod builtin;
pub mod bus;
pub mod call;
pub mod confirm;
pub mod declared;
pub mod devices;
pub mod durable;
pub mod fault;
pub mod http;
pub mod json_file;
pub mod mcp;
pub mod plain;
pub mod policy;
pub mod private;
pub mod process;
pub mod registry;
pub mod remote;
pub mod requests;
pub mod schedule;
pub mod scheduled_prompts;
pub mod schema;
pub mod secret;
pub mod template;
#[cfg(test)]
mod testing;
pub mod tool;

pub use call::{Judged, Permit, RetryPolicy, Unconfirmed};
pub use confirm::Confirm;
pub use policy::{Caller, Moment, Origin, Policy, PolicyRules, ToolRule, Verdict};
pub use registry::{AddError, Registry};
pub use tool::{
    Board, Callable, Class, Context, Definition, ErrorKind, Media, Source, Spec, Tool, ToolError,
    ToolHost, ToolOutcome,
};
