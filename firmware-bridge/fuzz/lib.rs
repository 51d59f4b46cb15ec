//! What the fuzz targets do with bytes; a test of the crate does the same with the seeds.

use outpost_firmware_bridge::wire::{
    Bytes, Capabilities, Check, Cutter, Frame, Introduction, Key, Link, Message, Role, Step,
    Timing, Version, decode, encode_ack, encode_data, encode_hello,
};

/// Any bytes as they come from a line: neither the decoder nor a link may panic, and a frame that was read is written back
/// as one that reads the same.
pub fn stream(bytes: &[u8]) {
    for check in [Check::Crc32, Check::Crc16] {
        let mut cutter = Cutter::new();
        for &byte in bytes {
            if let Some(Ok(encoded)) = cutter.push(byte)
                && let Ok(frame) = decode(encoded, (check, Key::OPEN))
            {
                returns(&frame, check);
            }
        }
        let mut link = Link::<8>::new(introduction(), 1, check, Timing::default(), 0);
        for (now, &byte) in (0..).zip(bytes) {
            let _ = link.receive(byte, now);
            while !matches!(link.poll(now), Ok(Step::Wait(_)) | Err(_)) {}
        }
    }
}

/// Any bytes as the payload of a sound frame.
pub fn payload(bytes: &[u8]) {
    for check in [Check::Crc32, Check::Crc16] {
        for kind in 0..3 {
            let mark = if check == Check::Crc32 { 0x42 } else { 0x52 };
            let body = [&[mark, kind, 0, 0], bytes].concat();
            let keyed = [&[0; 4], body.as_slice()].concat();
            let checksum = match check {
                Check::Crc32 => {
                    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
                    crc.checksum(&keyed).to_le_bytes().to_vec()
                }
                Check::Crc16 => {
                    let crc = crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC);
                    crc.checksum(&keyed).to_le_bytes().to_vec()
                }
            };
            let whole = [body, checksum].concat();
            let mut frame = vec![0; cobs::max_encoding_length(whole.len()) + 1];
            let len = cobs::encode(&whole, &mut frame);
            frame.truncate(len);
            if let Ok(frame) = decode(&frame, (check, Key::OPEN)) {
                returns(&frame, check);
            }
            frame.push(0);
            stream(&frame);
        }
    }
}

fn returns(frame: &Frame, check: Check) {
    let line = (check, Key::OPEN);
    let written: Option<Bytes> = match frame {
        Frame::Hello(hello) => encode_hello(hello, check).ok(),
        Frame::Ack(receipt) => encode_ack(*receipt, line).ok(),
        Frame::Data { sequence, receipt, message: Ok(message) } => {
            encode_data(*sequence, *receipt, message, line).ok()
        }
        Frame::Data { message: Err(_), .. } => return,
    };
    let written = written.expect("what was read fits");
    let (_, encoded) = written.split_last().expect("a frame ends with a zero");
    assert_eq!(decode(encoded, line).as_ref(), Ok(frame));
}

fn introduction() -> Introduction {
    Introduction {
        role: Role::Host,
        firmware: "fuzz".try_into().unwrap_or_default(),
        version: Version { major: 1, minor: 0, patch: 0 },
        kinds: Message::ALL,
        capabilities: Capabilities::new(),
    }
}
