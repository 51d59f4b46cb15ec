//! Two links against each other.

mod exhaustive;
mod lossy;
mod states;
mod throughput;

use super::super::{
    AgentState, Capability, Function, InputEvent, InputKind, LogLevel, LogLine, Quantity, Reading,
    encode_data,
};
use super::*;
use std::vec::Vec as StdVec;

fn introduction(role: Role) -> Introduction {
    let mut capabilities = Capabilities::new();
    if role == Role::Device {
        for (channel, function, name) in [
            (0, Function::Button, "talk"),
            (1, Function::Switch, "light/kitchen"),
            (2, Function::Sensor(Quantity::Temperature), "room"),
        ] {
            let name = name.try_into().unwrap();
            capabilities.push(Capability { channel, function, name }).unwrap();
        }
    }
    Introduction {
        role,
        firmware: "test".try_into().unwrap(),
        version: Version { major: 1, minor: 0, patch: 0 },
        kinds: Message::ALL,
        capabilities,
    }
}

/// A message that can be told from all others, of a kind that depends on its number.
fn message(number: u32) -> Message {
    match number % 4 {
        0 => Message::Reading(Reading {
            channel: 1,
            value: -i32::try_from(number).unwrap(),
            uptime_ms: number,
        }),
        1 => Message::Input(InputEvent { channel: 0, kind: InputKind::Pressed, uptime_ms: number }),
        2 => log(&std::format!("{number}:{}", "x".repeat(number as usize % 80))),
        _ => log(&std::format!("{number}")),
    }
}

fn log(text: &str) -> Message {
    Message::Log(LogLine { level: LogLevel::Info, text: text.try_into().unwrap() })
}

/// The number in such a message.
fn number(message: &Message) -> u32 {
    match message {
        Message::Reading(Reading { uptime_ms, .. })
        | Message::Input(InputEvent { uptime_ms, .. }) => *uptime_ms,
        Message::Log(LogLine { text, .. }) => text.split(':').next().unwrap().parse().unwrap(),
        other => panic!("not sent: {other:?}"),
    }
}

/// Polls until there is nothing more to do; gives the frames, the events and when to poll again.
fn drain<const W: usize>(
    link: &mut Link<W>,
    now: Millis,
) -> (StdVec<Bytes>, StdVec<Event>, Millis) {
    let mut frames = StdVec::new();
    let mut events = StdVec::new();
    loop {
        match link.poll(now).unwrap() {
            Step::Send(bytes) => frames.push(bytes),
            Step::Event(event) => events.push(event),
            Step::Wait(until) => {
                assert!(until > now, "a wait is in the future");
                return (frames, events, until);
            }
        }
    }
}

fn feed<const W: usize>(link: &mut Link<W>, bytes: &[u8], now: Millis) -> StdVec<Event> {
    bytes.iter().filter_map(|&byte| link.receive(byte, now)).collect()
}
