use super::super::{
    Ack, Action, AgentState, Capabilities, Capability, Command, Function, Heartbeat, Hello,
    InputEvent, InputKind, LogLevel, LogLine, Outcome, Quantity, Reading, Version,
};
use super::*;
use proptest::prelude::*;
use std::{string::String, vec::Vec as StdVec};

fn hello(name: &str, nonce: u32, capabilities: Capabilities) -> Message {
    Message::Hello(Hello {
        protocol: PROTOCOL_VERSION,
        schema: 0x0123_4567_89ab_cdef,
        firmware: name.try_into().unwrap(),
        version: Version { major: 1, minor: 2, patch: 300 },
        boot: nonce,
        capabilities,
    })
}

fn log(text: &str) -> Message {
    Message::Log(LogLine { level: LogLevel::Warn, text: text.try_into().unwrap() })
}

/// One message of each kind, and its bytes between the sequence number and the checksum.
fn golden() -> StdVec<(Message, &'static [u8])> {
    let relay = Capability { channel: 3, function: Function::Switch };
    let thermometer = Capability { channel: 4, function: Function::Sensor(Quantity::Temperature) };
    std::vec![
        (
            hello("porch", 7, Capabilities::from_slice(&[relay, thermometer]).unwrap()),
            b"\x00\x01\xef\x9b\xaf\xcd\xf8\xac\xd1\x91\x01\x05porch\x01\x02\xac\x02\x07\x02\x03\x03\x04\x00\x00",
        ),
        (
            Message::Reading(Reading {
                channel: 4,
                quantity: Quantity::Temperature,
                value: -1500,
                uptime_ms: 1000,
            }),
            b"\x01\x04\x00\xb7\x17\xe8\x07",
        ),
        (
            Message::Input(InputEvent { channel: 1, kind: InputKind::Released, uptime_ms: 5 }),
            b"\x02\x01\x01\x05",
        ),
        (Message::Command(Command { channel: 3, action: Action::Off }), b"\x03\x03\x00"),
        (Message::Command(Command { channel: 3, action: Action::Level(1000) }), b"\x03\x03\x02\xe8\x07"),
        (Message::Agent(AgentState::Thinking), b"\x04\x02"),
        (log("low"), b"\x05\x01\x03low"),
        (Message::Heartbeat(Heartbeat { boot: 7, uptime_ms: 128 }), b"\x06\x07\x80\x01"),
        (Message::Ack(Ack { sequence: 255, outcome: Outcome::Busy }), b"\x07\xff\x03"),
    ]
}

fn feed(decoder: &mut Decoder, bytes: &[u8]) -> StdVec<Result<Frame, DecodeError>> {
    bytes.iter().filter_map(|&byte| decoder.push(byte)).collect()
}

/// A frame around any payload, as a peer of another make might send it.
fn frame_around(header: [u8; 3], payload: &[u8]) -> StdVec<u8> {
    let mut body = StdVec::from(header);
    body.extend_from_slice(payload);
    body.extend_from_slice(&crc::of(&body));
    let mut frame = std::vec![0; cobs::max_encoding_length(body.len())];
    let len = cobs::encode(&body, &mut frame);
    frame.truncate(len);
    frame
}

#[test]
fn messages_have_their_golden_bytes() {
    for (message, payload) in golden() {
        let frame = encode(9, &message).unwrap();
        let (end, encoded) = frame.split_last().unwrap();
        assert_eq!(*end, 0);
        assert_eq!(encoded, frame_around([b'O', 1, 9], payload), "{message:?}");
        assert_eq!(decode(encoded), Ok(Frame { sequence: 9, message }));
    }
}

#[test]
fn a_whole_frame_has_its_golden_bytes() {
    let frame = encode(0, &Message::Command(Command { channel: 3, action: Action::Off })).unwrap();
    assert_eq!(frame.as_slice(), b"\x03O\x01\x03\x03\x03\x05\x30\xdd\xc7\x5b\x00");
}

#[test]
fn the_largest_messages_fit() {
    let capability = Capability { channel: 255, function: Function::Sensor(Quantity::Current) };
    let mut largest = Hello {
        protocol: u8::MAX,
        schema: u64::MAX,
        firmware: "x".repeat(32).as_str().try_into().unwrap(),
        version: Version { major: u16::MAX, minor: u16::MAX, patch: u16::MAX },
        boot: u32::MAX,
        capabilities: Capabilities::new(),
    };
    largest.capabilities.resize(largest.capabilities.capacity(), capability).unwrap();
    for message in [Message::Hello(largest), log(&"x".repeat(96))] {
        let frame = encode(255, &message).unwrap();
        assert_eq!(decode(&frame[..frame.len() - 1]).unwrap().message, message);
    }
}

#[test]
fn each_check_has_its_error() {
    let heartbeat = b"\x06\x07\x05";
    assert!(decode(&frame_around([b'O', 1, 0], heartbeat)).is_ok());
    assert_eq!(decode(&[9, 1, 1]), Err(DecodeError::Stuffing));
    assert_eq!(decode(&[3, 1, 1]), Err(DecodeError::TooShort));
    assert_eq!(decode(&[1; MAX_ENCODED]), Err(DecodeError::Checksum));
    assert_eq!(decode(&frame_around([b'P', 1, 0], heartbeat)), Err(DecodeError::Magic));
    assert_eq!(decode(&frame_around([b'O', 2, 0], b"?")), Err(DecodeError::Version { theirs: 2 }));
    assert_eq!(decode(&frame_around([b'O', 1, 0], b"\x08")), Err(DecodeError::Message));
    assert_eq!(decode(&frame_around([b'O', 1, 0], b"\x06\x07\x05\x00")), Err(DecodeError::Message));
    assert_eq!(decode(&frame_around([b'O', 1, 0], &[1; 200])), Err(DecodeError::TooLong));
}

#[test]
fn no_flipped_bit_is_accepted() {
    for (message, _) in golden() {
        let frame = encode(77, &message).unwrap();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            let mut results = feed(&mut decoder, &damaged);
            results.extend(decoder.push(0));
            assert!(
                !results.is_empty() && results.iter().all(Result::is_err),
                "{message:?}, bit {bit}"
            );
        }
    }
}

#[test]
fn the_tail_of_an_overlong_frame_is_not_a_frame() {
    let frame = encode(1, &Message::Agent(AgentState::Idle)).unwrap();
    for noise in MAX_ENCODED - frame.len()..3 * MAX_ENCODED {
        let mut stream = std::vec![0xff; noise];
        stream.extend_from_slice(&frame);
        stream.extend_from_slice(&frame);
        let results = feed(&mut Decoder::new(), &stream);
        assert_eq!(results.len(), 2, "{noise} bytes of noise");
        assert!(results[0].is_err() && results[1].is_ok(), "{noise} bytes of noise");
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let quantity = prop_oneof![Just(Quantity::Temperature), Just(Quantity::Distance)];
    let function = prop_oneof![
        quantity.clone().prop_map(Function::Sensor),
        Just(Function::Button),
        Just(Function::Dimmer)
    ];
    let capability =
        (any::<u8>(), function).prop_map(|(channel, function)| Capability { channel, function });
    let action = prop_oneof![
        Just(Action::On),
        any::<u16>().prop_map(Action::Level),
        any::<u16>().prop_map(Action::Pulse)
    ];
    let outcome = prop_oneof![Just(Outcome::Done), Just(Outcome::Incompatible)];
    prop_oneof![
        ("[a-zé ]{0,16}", any::<u32>(), prop::collection::vec(capability, 0..=16)).prop_map(
            |(name, nonce, list)| hello(&name, nonce, Capabilities::from_slice(&list).unwrap())
        ),
        (any::<u8>(), quantity, any::<i32>(), any::<u32>()).prop_map(
            |(channel, quantity, value, uptime_ms)| Message::Reading(Reading {
                channel,
                quantity,
                value,
                uptime_ms
            })
        ),
        (any::<u8>(), any::<u32>()).prop_map(|(channel, uptime_ms)| Message::Input(InputEvent {
            channel,
            kind: InputKind::MotionStarted,
            uptime_ms
        })),
        (any::<u8>(), action)
            .prop_map(|(channel, action)| Message::Command(Command { channel, action })),
        Just(Message::Agent(AgentState::Failed)),
        prop::collection::vec(any::<char>(), 0..=24)
            .prop_map(|text| log(&text.into_iter().collect::<String>())),
        (any::<u32>(), any::<u32>())
            .prop_map(|(boot, uptime_ms)| Message::Heartbeat(Heartbeat { boot, uptime_ms })),
        (any::<u8>(), outcome)
            .prop_map(|(sequence, outcome)| Message::Ack(Ack { sequence, outcome })),
    ]
}

proptest! {
    #[test]
    fn every_message_returns(sequence: u8, message in messages()) {
        let frame = encode(sequence, &message).unwrap();
        prop_assert!(frame.len() <= MAX_FRAME);
        prop_assert_eq!(frame.iter().position(|&byte| byte == 0), Some(frame.len() - 1));
        prop_assert_eq!(feed(&mut Decoder::new(), &frame), [Ok(Frame { sequence, message })]);
    }

    #[test]
    fn a_flipped_bit_is_refused(message in messages(), at: prop::sample::Index) {
        let mut frame = encode(0, &message).unwrap();
        let bit = at.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        frame.push(0).ok();
        let results = feed(&mut Decoder::new(), &frame);
        prop_assert!(results.iter().all(Result::is_err));
    }

    #[test]
    fn the_next_zero_brings_it_back_in_step(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        message in messages(),
    ) {
        let mut decoder = Decoder::new();
        feed(&mut decoder, &noise);
        decoder.push(0);
        let frame = encode(3, &message).unwrap();
        prop_assert_eq!(feed(&mut decoder, &frame), [Ok(Frame { sequence: 3, message })]);
    }
}
