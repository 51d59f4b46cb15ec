//! The loop on a board with a fake UART, against the host's link.

use super::*;
use crate::wire::{
    Action, Capabilities, Check, Introduction, LogLevel, LogLine, Outcome, Reading, Role, Timing,
    Version,
};
use std::collections::VecDeque;
use std::vec::Vec;

/// A board with one relay, and a UART whose transmitter holds so many bytes.
struct FakeBoard {
    received: VecDeque<u8>,
    transmitter: VecDeque<u8>,
    room: usize,
    to_tell: VecDeque<Message>,
    relay: bool,
    led: Option<AgentState>,
    linked: Vec<bool>,
}

impl FakeBoard {
    fn new(room: usize) -> Self {
        Self {
            received: VecDeque::new(),
            transmitter: VecDeque::new(),
            room,
            to_tell: VecDeque::new(),
            relay: false,
            led: None,
            linked: Vec::new(),
        }
    }
}

impl Hardware for FakeBoard {
    fn read(&mut self) -> Option<u8> {
        self.received.pop_front()
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room - self.transmitter.len());
        self.transmitter.extend(&bytes[..count]);
        count
    }

    fn command(&mut self, command: Command) -> (Outcome, Option<i32>) {
        match (command.channel, command.action) {
            (7, Action::On) => self.relay = true,
            (7, Action::Off) => self.relay = false,
            (7, Action::Read) => return (Outcome::Done, Some(i32::from(self.relay))),
            (7, _) => return (Outcome::Unsupported, None),
            _ => return (Outcome::NoChannel, None),
        }
        (Outcome::Done, None)
    }

    fn next_message(&mut self) -> Option<Message> {
        self.to_tell.pop_front()
    }

    fn show(&mut self, state: AgentState) {
        self.led = Some(state);
    }

    fn linked(&mut self, up: bool) {
        self.linked.push(up);
    }
}

fn link<const W: usize>(role: Role, boot: u32) -> Link<W> {
    let me = Introduction {
        role,
        firmware: "fake".try_into().unwrap(),
        version: Version { major: 1, minor: 0, patch: 0 },
        kinds: Message::ALL,
        capabilities: Capabilities::new(),
    };
    Link::new(me, boot, Check::Crc16, Timing::default(), 0)
}

struct Bench {
    device: Device<FakeBoard, 1>,
    host: Link<8>,
    now: Millis,
    arrived: Vec<Message>,
}

impl Bench {
    fn new(room: usize) -> Self {
        Self {
            device: Device::new(FakeBoard::new(room), link(Role::Device, 1)),
            host: link(Role::Host, 2),
            now: 0,
            arrived: Vec::new(),
        }
    }

    fn run(&mut self, milliseconds: Millis) {
        for _ in 0..milliseconds {
            self.now += 1;
            self.device.turn(self.now).unwrap();
            while let Some(byte) = self.device.hardware.transmitter.pop_front() {
                if let Some(Event::Message(message)) = self.host.receive(byte, self.now) {
                    self.arrived.push(message);
                }
            }
            while let Step::Send(bytes) = self.host.poll(self.now).unwrap() {
                self.device.hardware.received.extend(&bytes);
            }
        }
    }
}

#[test]
fn commands_are_carried_out_and_answered() {
    let mut bench = Bench::new(1000);
    bench.run(20);
    assert_eq!(bench.device.hardware.linked, [true]);
    let tries = [(7, Action::On), (7, Action::Read), (7, Action::Level(3)), (8, Action::Off)];
    for (request, (channel, action)) in (0..).zip(tries) {
        bench.host.send(Message::Command(Command { request, channel, action })).unwrap();
        bench.run(20);
    }
    let reply = |request, outcome, value| Message::Reply(Reply { request, outcome, value });
    let expected = [
        reply(0, Outcome::Done, None),
        reply(1, Outcome::Done, Some(1)),
        reply(2, Outcome::Unsupported, None),
        reply(3, Outcome::NoChannel, None),
    ];
    assert_eq!(bench.arrived, expected);
    bench.host.send(Message::Agent(AgentState::Thinking)).unwrap();
    bench.run(20);
    assert_eq!(bench.device.hardware.led, Some(AgentState::Thinking));
}

#[test]
fn a_transmitter_of_one_byte_will_do() {
    let mut bench = Bench::new(1);
    bench.run(400);
    assert_eq!(bench.device.hardware.linked, [true]);
    let text = "slow".try_into().unwrap();
    bench.device.hardware.to_tell.push_back(Message::Log(LogLine { level: LogLevel::Info, text }));
    bench.run(100);
    assert_eq!(bench.arrived.len(), 1);
}

#[test]
fn more_commands_than_replies_fit_are_all_answered() {
    let mut bench = Bench::new(1000);
    bench.run(20);
    for request in 0..40 {
        while !bench.host.has_room() {
            bench.run(1);
        }
        let command = Command { request, channel: 7, action: Action::Read };
        bench.host.send(Message::Command(command)).unwrap();
    }
    bench.run(3000);
    assert_eq!(bench.arrived.len(), 40);
}

#[test]
fn nothing_is_asked_of_the_board_without_a_session() {
    let mut bench = Bench::new(1000);
    let reading = Message::Reading(Reading { channel: 1, value: 5, uptime_ms: 0 });
    bench.device.hardware.to_tell.push_back(reading);
    for now in 0..100 {
        bench.device.turn(now).unwrap();
        bench.device.hardware.transmitter.clear();
    }
    assert_eq!(bench.device.hardware.to_tell.len(), 1);
}
