//! The C header and its code against the Rust encoder, byte for byte, and the C link against the Rust link.
//!
//! Compiled with the system's C compiler; where there is none, the tests say so and pass.

use outpost_firmware_bridge::wire::{
    Action, AgentState, Answer, Ask, Capabilities, Check, Clock, ClockAsk, Command as Order, Cue,
    Event, Frame, Function, Identity, InputEvent, InputKind, Introduction, Key, Link, LogLevel,
    LogLine, MAX_WINDOW, Message, Outcome, PROTOCOL_VERSION, Reading, Receipt, Reply, Role,
    SCHEMA_HASH, Step, Timing, Version, decode, encode_ack, encode_data,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Compiles a program with the C code; none without a compiler.
fn compile(source: &str, folder: &Path) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join("program");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let run = Command::new(&compiler)
        .args(["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"])
        .args([root.join(source), root.join("c/outpost_wire.c")])
        .arg("-o")
        .arg(&program)
        .output();
    match run {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{source} does not compile:\n{text}");
            Some(program)
        }
        Err(fault) => {
            eprintln!("NOT TESTED: {source}: there is no C compiler `{compiler}` ({fault})");
            None
        }
    }
}

/// What the check program answers to these lines.
fn ask(program: &Path, lines: &[String]) -> Vec<String> {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let text = lines.join("\n") + "\n";
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn messages() -> Vec<Message> {
    let reading = |value, uptime_ms| Message::Reading(Reading { channel: 4, value, uptime_ms });
    vec![
        reading(-1500, 1000),
        reading(i32::MIN, u32::MAX),
        reading(i32::MAX, 0),
        Message::Input(InputEvent { channel: 1, kind: InputKind::Released, uptime_ms: 5 }),
        Message::Reply(Reply { request: 9, outcome: Outcome::Busy, value: None }),
        Message::Reply(Reply { request: 9, outcome: Outcome::Done, value: Some(-1) }),
        Message::Log(LogLine { level: LogLevel::Warn, text: "low".try_into().unwrap() }),
        Message::ClockAsk(ClockAsk { uptime_ms: 128 }),
        Message::Ask(Ask { request: 2, text: "hi".try_into().unwrap() }),
    ]
}

fn payload(message: &Message) -> Vec<u8> {
    postcard::to_slice(message, &mut [0; 200]).unwrap().to_vec()
}

#[test]
fn messages_are_written_as_rust_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("tests/c/check.c", folder.path()) else { return };
    let mut expected: Vec<String> =
        messages().iter().map(|message| hex(&payload(message))).collect();
    expected.push("-".to_owned()); // What does not fit is not written.
    assert_eq!(ask(&program, &["writers".to_owned()]), expected);
}

#[test]
fn messages_are_read_as_rust_wrote_them() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("tests/c/check.c", folder.path()) else { return };
    let order = |action| Message::Command(Order { request: 7, channel: 3, action });
    let text = |length: usize| "x".repeat(length).as_str().try_into().unwrap();
    let cases = [
        (order(Action::Off), "command 7 3 0 0".to_owned()),
        (order(Action::Level(1000)), "command 7 3 2 1000".to_owned()),
        (order(Action::Pulse(u16::MAX)), "command 7 3 3 65535".to_owned()),
        (order(Action::Input), "command 7 3 5 0".to_owned()),
        (Message::Agent(AgentState::Failed), "agent 5".to_owned()),
        (Message::Cue(Cue::Alert), "cue 2".to_owned()),
        (
            Message::Clock(Clock { asked_ms: u32::MAX, unix_ms: u64::MAX }),
            format!("clock {} {}", u32::MAX, u64::MAX),
        ),
        (
            Message::Answer(Answer { request: 200, ok: true, text: text(96) }),
            format!("answer 200 1 {}", "x".repeat(96)),
        ),
        (messages()[0].clone(), "none".to_owned()),
    ];
    let mut lines: Vec<String> =
        cases.iter().map(|(message, _)| format!("message {}", hex(&payload(message)))).collect();
    let mut expected: Vec<String> = cases.into_iter().map(|(_, expected)| expected).collect();
    for wrong in ["04", "0406", "040200", "02070306", "020703028080808001", "0a010160", "0a010200"]
    {
        lines.push(format!("message {wrong}"));
        expected.push("none".to_owned());
    }
    assert_eq!(ask(&program, &lines), expected);
}

#[test]
fn frames_and_keys_agree_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("tests/c/check.c", folder.path()) else { return };
    let mut random = StdRng::seed_from_u64(1);
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for round in 0..600 {
        let mut end = || Identity { boot: random.random(), epoch: random.random() };
        let (from, to) = (end(), end());
        let key = Key::between(from, to);
        lines.push(format!("key {:x} {:x} {:x} {:x}", from.boot, from.epoch, to.boot, to.epoch));
        expected.push(format!("{:08x}", key.value()));

        let (check, number) = if round % 2 == 0 { (Check::Crc32, 0) } else { (Check::Crc16, 1) };
        let line = (check, key);
        let receipt = Receipt { next: random.random(), busy: random.random() };
        let sequence: u8 = random.random();
        let choice = &messages()[round % messages().len()];
        let (frame, kind, sequence, payload) = if round % 7 == 0 {
            (encode_ack(receipt, line).unwrap(), 2, 0, Vec::new())
        } else {
            (encode_data(sequence, receipt, choice, line).unwrap(), 1, sequence, payload(choice))
        };
        let (busy, next) = (u8::from(receipt.busy), receipt.next);
        let of = hex(&payload);
        lines
            .push(format!("frame {number} {:x} {kind} {busy} {sequence} {next} {of}", key.value()));
        expected.push(hex(&frame));
        lines.push(format!("read {number} {:x} {}", key.value(), hex(&frame)));
        expected.push(format!("0 {kind} {busy} {sequence} {next} {of}"));
        // A flipped bit is found by both.
        let mut damaged = frame.clone();
        let bit = random.random_range(0..(frame.len() - 1) * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        if damaged[..frame.len() - 1].iter().all(|&byte| byte != 0) {
            assert!(decode(&damaged[..frame.len() - 1], line).is_err());
            lines.push(format!("read {number} {:x} {}", key.value(), hex(&damaged)));
            expected.push("damaged".to_owned());
        }
    }
    let answers = ask(&program, &lines);
    assert_eq!(answers.len(), expected.len());
    for ((answer, expected), line) in answers.iter().zip(&expected).zip(&lines) {
        if expected == "damaged" {
            assert!(!answer.starts_with("0 "), "{line}: accepted as {answer}");
        } else {
            assert_eq!(answer, expected, "{line}");
        }
    }
}

/// Bodies of every length are stuffed alike, whatever is in them.
#[test]
fn stuffing_agrees_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("tests/c/check.c", folder.path()) else { return };
    let mut random = StdRng::seed_from_u64(2);
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for length in 1..=344 {
        for zeros in [false, true] {
            let payload: Vec<u8> = (0..length)
                .map(|_| {
                    if zeros && random.random_range(0..4) == 0 {
                        0
                    } else {
                        random.random_range(1..=255)
                    }
                })
                .collect();
            lines.push(format!("frame 0 0 1 0 1 1 {}", hex(&payload)));
            let mut body = vec![0x40 | PROTOCOL_VERSION, 1, 1, 1];
            body.extend_from_slice(&payload);
            let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
            let mut digest = crc.digest();
            digest.update(&[0; 4]);
            digest.update(&body);
            body.extend_from_slice(&digest.finalize().to_le_bytes());
            let mut frame = vec![0; cobs::max_encoding_length(body.len())];
            let len = cobs::encode(&body, &mut frame);
            frame.truncate(len);
            frame.push(0);
            expected.push(hex(&frame));
        }
    }
    assert_eq!(ask(&program, &lines), expected);
}

#[test]
fn the_header_names_the_same_table() {
    let header = include_str!("../../include/outpost_wire.h");
    assert!(header.contains(&format!("#define OW_VERSION {PROTOCOL_VERSION}\n")));
    assert!(header.contains(&format!("#define OW_SCHEMA 0x{SCHEMA_HASH:08x}u\n")));
    for (name, function) in [("OW_SWITCH", Function::Switch), ("OW_BUZZER", Function::Buzzer)] {
        assert!(header.contains(&format!("{name} = {}", u8::from(function))), "{name}");
    }
}

/// The example firmware in C as a process, and the host's link to it.
struct Bench {
    child: Child,
    arriving: mpsc::Receiver<u8>,
    link: Link<MAX_WINDOW>,
    start: Instant,
}

impl Bench {
    fn start(program: &Path) -> Self {
        let (child, arriving) = Self::spawn(program);
        let me = Introduction {
            role: Role::Host,
            firmware: "test".try_into().unwrap(),
            version: Version { major: 1, minor: 0, patch: 0 },
            kinds: Message::ALL,
            capabilities: Capabilities::new(),
        };
        let link = Link::new(me, 1, Check::Crc32, Timing::default(), 0);
        Self { child, arriving, link, start: Instant::now() }
    }

    fn spawn(program: &Path) -> (Child, mpsc::Receiver<u8>) {
        let mut command = Command::new(program);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, arriving) = mpsc::sync_channel(4096);
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(output.read(&mut byte), Ok(1)) && sender.send(byte[0]).is_ok() {}
        });
        (child, arriving)
    }

    /// The next event; only a test that has failed waits for long.
    fn next(&mut self) -> Event {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < patience, "nothing happens any more");
            if let Some(event) = self.step() {
                return event;
            }
        }
    }

    fn step(&mut self) -> Option<Event> {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        match self.link.poll(now).unwrap() {
            Step::Send(bytes) => {
                // A program that was killed takes no more bytes.
                self.child.stdin.as_mut().unwrap().write_all(&bytes).ok();
                None
            }
            Step::Event(event) => Some(event),
            Step::Wait(_) => {
                let byte = self.arriving.recv_timeout(Duration::from_millis(5)).ok()?;
                self.link.receive(byte, now)
            }
        }
    }

    fn order(&mut self, request: u8, channel: u8, action: Action) -> Reply {
        while !self.link.has_room() {
            assert_eq!(self.step(), None);
        }
        self.link.send(Message::Command(Order { request, channel, action })).unwrap();
        match self.next() {
            Event::Message(Message::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_example_in_c_speaks_with_the_host_and_may_restart() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("examples/firmware.c", folder.path()) else { return };
    let mut bench = Bench::start(&program);
    for restart in 0..3 {
        if restart > 0 {
            drop(bench.child.kill());
            drop(bench.child.wait());
            (bench.child, bench.arriving) = Bench::spawn(&program);
            assert!(matches!(bench.next(), Event::Down { .. }));
        }
        assert_eq!(bench.next(), Event::Up);
        let peer = bench.link.peer().unwrap();
        assert_eq!((peer.firmware.as_str(), peer.capabilities.len()), ("porch-c", 3));
        assert!(matches!(
            bench.next(),
            Event::Message(Message::Input(InputEvent { kind: InputKind::Pressed, .. }))
        ));
        bench.link.send(Message::Agent(AgentState::Listening)).unwrap();
        let done = |request, value| Reply { request, outcome: Outcome::Done, value };
        assert_eq!(bench.order(1, 1, Action::On), done(1, None));
        assert_eq!(bench.order(2, 1, Action::Read), done(2, Some(1)));
        assert_eq!(bench.order(3, 9, Action::On).outcome, Outcome::NoChannel);
        assert_eq!(bench.order(4, 1, Action::Level(5)).outcome, Outcome::Unsupported);
    }
}

#[test]
fn a_hello_written_in_c_is_read_in_rust() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = compile("examples/firmware.c", folder.path()) else { return };
    let mut bench = Bench::start(&program);
    let mut encoded = Vec::new();
    loop {
        match bench.arriving.recv_timeout(Duration::from_secs(20)).unwrap() {
            0 => break,
            byte => encoded.push(byte),
        }
    }
    let Ok(Frame::Hello(hello)) = decode(&encoded, (Check::Crc32, Key::OPEN)) else {
        panic!("not a hello: {}", hex(&encoded));
    };
    assert_eq!((hello.role, hello.schema, hello.window), (Role::Device, SCHEMA_HASH, 1));
    assert_eq!(hello.capabilities[1].function, Function::Switch);
    assert_eq!(hello.capabilities[1].name, "light/kitchen");
    bench.child.kill().unwrap();
}
