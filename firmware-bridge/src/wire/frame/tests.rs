use super::super::{
    Action, AgentState, Answer, Ask, Capabilities, Capability, Clock, ClockAsk, Command, Cue,
    Function, Identity, InputEvent, InputKind, LogLevel, LogLine, Outcome, Quantity, Reading,
    Reply, Role, Version,
};
use super::*;
use proptest::prelude::*;
use std::{string::String, vec::Vec as StdVec};

const LINE: (Check, Key) = (Check::Crc32, Key::OPEN);
const RECEIPT: Receipt = Receipt { next: 6, busy: false };

fn hello(name: &str, boot: u32, capabilities: Capabilities) -> Hello {
    Hello {
        role: Role::Device,
        id: Identity { boot, epoch: 3 },
        echo: None,
        schema: 0x0123_4567,
        kinds: Message::ALL,
        window: 4,
        firmware: name.try_into().unwrap(),
        version: Version { major: 1, minor: 2, patch: 300 },
        capabilities,
    }
}

fn log(text: &str) -> Message {
    Message::Log(LogLine { level: LogLevel::Warn, text: text.try_into().unwrap() })
}

/// One message of each kind, and its payload.
fn golden() -> StdVec<(Message, &'static [u8])> {
    let on_3 = |action| Message::Command(Command { request: 9, channel: 3, action });
    std::vec![
        (
            Message::Reading(Reading { channel: 4, value: -1500, uptime_ms: 1000 }),
            b"\x00\x04\xb7\x17\xe8\x07",
        ),
        (
            Message::Input(InputEvent { channel: 1, kind: InputKind::Released, uptime_ms: 5 }),
            b"\x01\x01\x01\x05",
        ),
        (on_3(Action::Off), b"\x02\x09\x03\x00"),
        (on_3(Action::Level(1000)), b"\x02\x09\x03\x02\xe8\x07"),
        (on_3(Action::Read), b"\x02\x09\x03\x04"),
        (
            Message::Reply(Reply { request: 9, outcome: Outcome::Busy, value: None }),
            b"\x03\x09\x03\x00",
        ),
        (
            Message::Reply(Reply { request: 9, outcome: Outcome::Done, value: Some(-1) }),
            b"\x03\x09\x00\x01\x01",
        ),
        (Message::Agent(AgentState::Thinking), b"\x04\x02"),
        (Message::Cue(Cue::Alert), b"\x05\x02"),
        (log("low"), b"\x06\x01\x03low"),
        (Message::ClockAsk(ClockAsk { uptime_ms: 128 }), b"\x07\x80\x01"),
        (
            Message::Clock(Clock { asked_ms: 128, unix_ms: 1_764_000_000_000 }),
            b"\x08\x80\x01\x80\xd0\xdf\xb4\xab\x33",
        ),
        (Message::Ask(Ask { request: 2, text: "hi".try_into().unwrap() }), b"\x09\x02\x02hi"),
        (
            Message::Answer(Answer { request: 2, ok: true, text: "ho".try_into().unwrap() }),
            b"\x0a\x02\x01\x02ho",
        ),
    ]
}

/// A frame around any bytes, as a peer of another make might send it.
fn frame_around(header: &[u8], payload: &[u8], (check, key): (Check, Key)) -> StdVec<u8> {
    let mut body = StdVec::from(header);
    body.extend_from_slice(payload);
    let checksum = check.of(key, &body);
    body.extend_from_slice(&checksum[..check.len()]);
    let mut frame = std::vec![0; cobs::max_encoding_length(body.len())];
    let len = cobs::encode(&body, &mut frame);
    frame.truncate(len);
    frame
}

fn data(message: &Message, line: (Check, Key)) -> Bytes {
    encode_data(5, RECEIPT, message, line).unwrap()
}

fn read(frame: &[u8], line: (Check, Key)) -> Result<Frame, DecodeError> {
    let (end, encoded) = frame.split_last().unwrap();
    assert_eq!(*end, 0);
    decode(encoded, line)
}

fn all(cutter: &mut Cutter, bytes: &[u8]) -> StdVec<Result<Frame, DecodeError>> {
    let read = |byte: &u8| Some(cutter.push(*byte)?.and_then(|encoded| decode(encoded, LINE)));
    bytes.iter().filter_map(read).collect()
}

#[test]
fn messages_have_their_golden_bytes() {
    let session = Key::between(Identity { boot: 1, epoch: 0 }, Identity { boot: 2, epoch: 0 });
    for line in [LINE, (Check::Crc16, Key::OPEN), (Check::Crc32, session)] {
        for (message, payload) in golden() {
            let frame = data(&message, line);
            let mark = if line.0 == Check::Crc32 { 0x42 } else { 0x52 };
            let expected = frame_around(&[mark, 1, 5, 6], payload, line);
            assert_eq!(frame[..frame.len() - 1], expected, "{message:?}");
            let message = Ok(message);
            assert_eq!(
                read(&frame, line),
                Ok(Frame::Data { sequence: 5, receipt: RECEIPT, message })
            );
        }
    }
}

#[test]
fn whole_frames_have_their_golden_bytes() {
    let relay =
        Capability { channel: 3, function: Function::Switch, name: "lamp".try_into().unwrap() };
    let warm = Capability {
        channel: 4,
        function: Function::Sensor(Quantity::Temperature),
        name: "room".try_into().unwrap(),
    };
    let hello = hello("porch", 7, Capabilities::from_slice(&[relay, warm]).unwrap());
    let payload = b"\x01\x07\x03\x00\xe7\x8a\x8d\x09\xff\x0f\x04\x05porch\x01\x02\xac\x02\x02\x03\x40\x04lamp\x04\x00\x04room";
    let frame = encode_hello(&hello, Check::Crc32).unwrap();
    assert_eq!(frame[..frame.len() - 1], frame_around(&[0x42, 0, 0, 0], payload, LINE));
    assert_eq!(read(&frame, LINE), Ok(Frame::Hello(hello)));

    let busy = Receipt { next: 200, busy: true };
    let frame = encode_ack(busy, LINE).unwrap();
    assert_eq!(frame.as_slice(), b"\x03\x42\x06\x06\xc8\xef\x79\x0d\xc5\x00");
    assert_eq!(read(&frame, LINE), Ok(Frame::Ack(busy)));
}

#[test]
fn the_largest_hello_fits_and_texts_stay_below_what_timing_expects() {
    let capability = Capability {
        channel: 255,
        function: Function::Buzzer,
        name: "x".repeat(20).as_str().try_into().unwrap(),
    };
    let mut largest = Hello {
        id: Identity { boot: u32::MAX, epoch: u16::MAX },
        echo: Some(Identity { boot: u32::MAX, epoch: u16::MAX }),
        schema: u32::MAX,
        kinds: u32::MAX,
        version: Version { major: u16::MAX, minor: u16::MAX, patch: u16::MAX },
        ..hello(&"x".repeat(24), 0, Capabilities::new())
    };
    largest.capabilities.resize(largest.capabilities.capacity(), capability).unwrap();
    let frame = encode_hello(&largest, Check::Crc32).unwrap();
    assert_eq!(read(&frame, LINE), Ok(Frame::Hello(largest)));
    let text = "x".repeat(96).as_str().try_into().unwrap();
    let answer = Message::Answer(Answer { request: 255, ok: true, text });
    assert!(data(&answer, LINE).len() <= 112);
}

#[test]
fn each_check_has_its_error() {
    let state = b"\x04\x02";
    let around = |header: [u8; 4], payload: &[u8]| frame_around(&header, payload, LINE);
    assert!(decode(&around([0x42, 1, 0, 0], state), LINE).is_ok());
    assert_eq!(decode(&[9, 1, 1], LINE), Err(DecodeError::Stuffing));
    assert_eq!(decode(&[3, 1, 1], LINE), Err(DecodeError::TooShort));
    assert_eq!(decode(&[1; 300], LINE), Err(DecodeError::Checksum));
    assert_eq!(decode(&around([0x62, 0, 0, 0], state), LINE), Err(DecodeError::Mark));
    let version = Err(DecodeError::Version { theirs: 3 });
    assert_eq!(decode(&around([0x43, 0, 0, 0], b"?"), LINE), version);
    assert_eq!(decode(&around([0x42, 3, 0, 0], state), LINE), Err(DecodeError::Kind));
    assert_eq!(decode(&around([0x42, 1, 0, 0], b""), LINE), Err(DecodeError::Kind));
    assert_eq!(decode(&around([0x42, 2, 0, 0], state), LINE), Err(DecodeError::Kind));
    assert_eq!(decode(&around([0x42, 0, 0, 0], state), LINE), Err(DecodeError::Hello));
    assert_eq!(decode(&around([0x42, 1, 0, 0], &[1; 400]), LINE), Err(DecodeError::TooLong));
    let other = frame_around(&[0x52, 0, 0, 0], b"?", (Check::Crc16, Key::OPEN));
    assert_eq!(decode(&other, LINE), Err(DecodeError::Check { theirs: Check::Crc16 }));
}

#[test]
fn what_is_not_in_the_table_is_told_by_its_number() {
    for payload in [&b"\x0b"[..], b"\x04\x09", b"\x04\x02\x00"] {
        let frame = frame_around(&[0x42, 1, 5, 6], payload, LINE);
        let message = Err(Unknown { kind: payload[0] });
        assert_eq!(
            decode(&frame, LINE),
            Ok(Frame::Data { sequence: 5, receipt: RECEIPT, message })
        );
    }
}

#[test]
fn a_function_of_a_later_version_does_not_spoil_a_hello() {
    let later =
        Capability { channel: 9, function: Function::Unknown(200), name: "x".try_into().unwrap() };
    let hello = hello("new", 1, Capabilities::from_slice(&[later]).unwrap());
    let frame = encode_hello(&hello, Check::Crc32).unwrap();
    assert_eq!(read(&frame, LINE), Ok(Frame::Hello(hello)));
}

#[test]
fn a_frame_of_another_session_is_refused() {
    let a = Identity { boot: 1, epoch: 0 };
    let b = Identity { boot: 2, epoch: 0 };
    for check in [Check::Crc32, Check::Crc16] {
        let frame = data(&log("x"), (check, Key::between(a, b)));
        let later = Key::between(Identity { epoch: 1, ..a }, b);
        for key in [later, Key::between(b, a), Key::OPEN] {
            assert_eq!(read(&frame, (check, key)), Err(DecodeError::Checksum));
        }
    }
}

#[test]
fn no_flipped_bit_is_accepted() {
    for (message, _) in golden() {
        let frame = data(&message, LINE);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut cutter = Cutter::new();
            let mut results = all(&mut cutter, &damaged);
            results.extend(all(&mut cutter, &[0]));
            assert!(
                !results.is_empty() && results.iter().all(Result::is_err),
                "{message:?}, bit {bit}"
            );
        }
    }
}

#[test]
fn the_tail_of_an_overlong_frame_is_not_a_frame() {
    let frame = data(&Message::Agent(AgentState::Idle), LINE);
    for noise in MAX_ENCODED - frame.len()..3 * MAX_ENCODED {
        let mut stream = std::vec![0xff; noise];
        stream.extend_from_slice(&frame);
        stream.extend_from_slice(&frame);
        let results = all(&mut Cutter::new(), &stream);
        assert_eq!(results.len(), 2, "{noise} bytes of noise");
        assert!(results[0].is_err() && results[1].is_ok(), "{noise} bytes of noise");
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let action = prop_oneof![
        Just(Action::On),
        Just(Action::Read),
        any::<u16>().prop_map(Action::Level),
        any::<u16>().prop_map(Action::Pulse)
    ];
    let outcome = prop_oneof![Just(Outcome::Done), Just(Outcome::Failed)];
    prop_oneof![
        (any::<u8>(), any::<i32>(), any::<u32>()).prop_map(|(channel, value, uptime_ms)| {
            Message::Reading(Reading { channel, value, uptime_ms })
        }),
        (any::<u8>(), any::<u32>()).prop_map(|(channel, uptime_ms)| {
            Message::Input(InputEvent { channel, kind: InputKind::MotionStarted, uptime_ms })
        }),
        (any::<u8>(), any::<u8>(), action).prop_map(|(request, channel, action)| {
            Message::Command(Command { request, channel, action })
        }),
        (any::<u8>(), outcome, any::<Option<i32>>()).prop_map(|(request, outcome, value)| {
            Message::Reply(Reply { request, outcome, value })
        }),
        Just(Message::Agent(AgentState::Failed)),
        prop::collection::vec(any::<char>(), 0..=24)
            .prop_map(|text| log(&text.into_iter().collect::<String>())),
        (any::<u32>(), any::<u64>())
            .prop_map(|(asked_ms, unix_ms)| Message::Clock(Clock { asked_ms, unix_ms })),
    ]
}

proptest! {
    #[test]
    fn every_message_returns(sequence: u8, next: u8, busy: bool, message in messages()) {
        let receipt = Receipt { next, busy };
        let frame = encode_data(sequence, receipt, &message, LINE).unwrap();
        prop_assert!(frame.len() <= MAX_FRAME);
        prop_assert_eq!(frame.iter().position(|&byte| byte == 0), Some(frame.len() - 1));
        let expected = Frame::Data { sequence, receipt, message: Ok(message) };
        prop_assert_eq!(all(&mut Cutter::new(), &frame), [Ok(expected)]);
    }

    #[test]
    fn a_flipped_bit_is_refused(message in messages(), at: prop::sample::Index) {
        let mut frame = data(&message, LINE);
        let bit = at.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        frame.push(0).ok();
        prop_assert!(all(&mut Cutter::new(), &frame).iter().all(Result::is_err));
    }

    #[test]
    fn the_next_zero_brings_it_back_in_step(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        message in messages(),
    ) {
        let mut cutter = Cutter::new();
        all(&mut cutter, &noise);
        all(&mut cutter, &[0]);
        let expected = Frame::Data { sequence: 5, receipt: RECEIPT, message: Ok(message.clone()) };
        prop_assert_eq!(all(&mut cutter, &data(&message, LINE)), [Ok(expected)]);
    }
}
