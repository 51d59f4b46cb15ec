//! A firmware without an operating system: one button, one relay, one thermometer, one LED.
//!
//! The board's start-up code calls [`firmware`] and never gets it back. What is written here as [`Registers`] is what a
//! real board has in place of it: a UART, a millisecond counter, and pins. Everything else is the library's.
#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU8, Ordering::Relaxed};
use outpost_firmware_bridge::device::{Device, Hardware};
use outpost_firmware_bridge::wire::{
    Action, AgentState, Capabilities, Capability, Check, Command, Function, InputEvent, InputKind,
    Introduction, Link, Message, Outcome, Quantity, Reading, Role, Timing, Version,
};

const BUTTON: u8 = 0;
const RELAY: u8 = 1;
const THERMOMETER: u8 = 2;
const LED: u8 = 3;

/// How often the temperature is told, in milliseconds.
const INTERVAL: u64 = 10_000;

/// Stands for the memory-mapped registers of a microcontroller.
struct Registers {
    uart_status: AtomicU32,
    uart_data: AtomicU8,
    milliseconds: AtomicU32,
    pins: AtomicU32,
    temperature: AtomicU32,
    /// Noise that differs from boot to boot, such as a ring oscillator's.
    noise: AtomicU32,
}

static REGISTERS: Registers = Registers {
    uart_status: AtomicU32::new(0),
    uart_data: AtomicU8::new(0),
    milliseconds: AtomicU32::new(0),
    pins: AtomicU32::new(0),
    temperature: AtomicU32::new(0),
    noise: AtomicU32::new(0),
};
const RECEIVED: u32 = 1;
const CAN_SEND: u32 = 2;
const BUTTON_PIN: u32 = 1;
const RELAY_PIN: u32 = 2;
const LED_PINS: u32 = 0b11100;

struct Board {
    now: u64,
    was_pressed: bool,
    told_at: u64,
}

impl Hardware for Board {
    fn read(&mut self) -> Option<u8> {
        let received = REGISTERS.uart_status.load(Relaxed) & RECEIVED != 0;
        received.then(|| REGISTERS.uart_data.load(Relaxed))
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut count = 0;
        for &byte in bytes {
            if REGISTERS.uart_status.load(Relaxed) & CAN_SEND == 0 {
                break;
            }
            REGISTERS.uart_data.store(byte, Relaxed);
            count += 1;
        }
        count
    }

    fn command(&mut self, command: Command) -> (Outcome, Option<i32>) {
        match (command.channel, command.action) {
            (RELAY, Action::On) => _ = REGISTERS.pins.fetch_or(RELAY_PIN, Relaxed),
            (RELAY, Action::Off) => _ = REGISTERS.pins.fetch_and(!RELAY_PIN, Relaxed),
            (RELAY, Action::Read) => {
                let on = REGISTERS.pins.load(Relaxed) & RELAY_PIN != 0;
                return (Outcome::Done, Some(i32::from(on)));
            }
            (THERMOMETER, Action::Read) => return (Outcome::Done, Some(temperature())),
            (BUTTON | RELAY | THERMOMETER | LED, _) => return (Outcome::Unsupported, None),
            _ => return (Outcome::NoChannel, None),
        }
        (Outcome::Done, None)
    }

    fn next_message(&mut self) -> Option<Message> {
        let uptime_ms = REGISTERS.milliseconds.load(Relaxed);
        let pressed = REGISTERS.pins.load(Relaxed) & BUTTON_PIN != 0;
        if pressed != self.was_pressed {
            self.was_pressed = pressed;
            let kind = if pressed { InputKind::Pressed } else { InputKind::Released };
            return Some(Message::Input(InputEvent { channel: BUTTON, kind, uptime_ms }));
        }
        if self.now.wrapping_sub(self.told_at) >= INTERVAL {
            self.told_at = self.now;
            let value = temperature();
            return Some(Message::Reading(Reading { channel: THERMOMETER, value, uptime_ms }));
        }
        None
    }

    fn show(&mut self, state: AgentState) {
        let colour = match state {
            AgentState::Idle => 0,
            AgentState::Listening => 1,
            AgentState::Thinking => 2,
            AgentState::Acting => 3,
            AgentState::Muted => 4,
            AgentState::Failed => 5,
        };
        let others = REGISTERS.pins.load(Relaxed) & !LED_PINS;
        REGISTERS.pins.store(others | colour << 2, Relaxed);
    }
}

/// Thousandths of a degree Celsius.
fn temperature() -> i32 {
    i32::try_from(REGISTERS.temperature.load(Relaxed)).unwrap_or(i32::MAX)
}

fn introduction() -> Introduction {
    let mut capabilities = Capabilities::new();
    for (channel, function, name) in [
        (BUTTON, Function::Button, "talk"),
        (RELAY, Function::Switch, "light/kitchen"),
        (THERMOMETER, Function::Sensor(Quantity::Temperature), "room"),
        (LED, Function::Indicator, "status"),
    ] {
        let name = name.try_into().unwrap_or_default();
        // There is room for twelve.
        let _ = capabilities.push(Capability { channel, function, name });
    }
    Introduction {
        role: Role::Device,
        firmware: "porch".try_into().unwrap_or_default(),
        version: Version { major: 1, minor: 0, patch: 0 },
        kinds: Message::ALL,
        capabilities,
    }
}

/// The main loop.
pub extern "C" fn firmware() -> ! {
    let boot = REGISTERS.noise.load(Relaxed);
    let link = Link::<2>::new(introduction(), boot, Check::Crc32, Timing::default(), 0);
    let board = Board { now: 0, was_pressed: false, told_at: 0 };
    let mut device = Device::new(board, link);
    let mut last = 0;
    let mut now = 0_u64;
    loop {
        let counter = REGISTERS.milliseconds.load(Relaxed);
        now += u64::from(counter.wrapping_sub(last));
        last = counter;
        device.hardware.now = now;
        // No message of the table is too large; if one were, the next hello starts over.
        let _ = device.turn(now);
    }
}

#[cfg(not(test))]
#[panic_handler]
fn halt(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
