//! What a line carries besides messages, counted in bytes: time on a serial line is bytes.

use super::*;

/// Bits on the line for each byte: a start bit, eight, a stop bit.
const BITS: u64 = 10;

struct Report {
    /// Share of the line's bytes that are messages.
    efficiency: f64,
    messages_per_second: f64,
}

/// Both ends on a line of so many baud for ten seconds; the device sends messages of 64 bytes as fast as it can, and the
/// host too with `both`.
fn measure(baud: u64, check: Check, both: bool) -> Report {
    let timing = Timing::for_line(u32::try_from(baud).unwrap(), 8);
    let new = |role, boot| Link::<8>::new(introduction(role), boot, check, timing, 0);
    let mut ends = [new(Role::Device, 1), new(Role::Host, 2)];
    let message = log(&"x".repeat(61));
    assert_eq!(postcard::to_slice(&message, &mut [0; 99]).unwrap().len(), 64);
    let mut waiting = [StdVec::new(), StdVec::new()];
    // Bytes that the line can still carry, in thousandths.
    let mut credit = [0, 0];
    let mut carried = [0_u64, 0];
    let seconds = 10;
    let start = 1000;
    let mut before = [Stats::default(), Stats::default()];
    for now in 0..start + seconds * 1000 {
        if now == start {
            before = [ends[0].stats(), ends[1].stats()];
            carried = [0, 0];
        }
        for from in 0..2 {
            // A UART takes the next frame once the last has left it.
            credit[from] = (credit[from] + baud * 1000 / BITS / 1000).min(baud);
            while credit[from] >= 1000 {
                if waiting[from].is_empty() {
                    if from == 0 || both {
                        while ends[from].send(message.clone()).is_ok() {}
                    }
                    match ends[from].poll(now).unwrap() {
                        Step::Send(bytes) => waiting[from].extend_from_slice(&bytes),
                        Step::Event(event) => panic!("{event:?}"),
                        Step::Wait(_) => {
                            credit[from] = 0;
                            break;
                        }
                    }
                }
                let byte = waiting[from].remove(0);
                ends[1 - from].receive(byte, now);
                carried[from] += 1;
                credit[from] -= 1000;
            }
        }
    }
    let received = u64::from(ends[1].stats().received - before[1].received);
    assert_eq!(ends[0].stats().resent, before[0].resent);
    Report {
        efficiency: (received * 64) as f64 / carried[0] as f64,
        messages_per_second: received as f64 / seconds as f64,
    }
}

#[test]
fn messages_of_64_bytes_fill_the_line() {
    for (baud, check, both) in [
        (115_200, Check::Crc32, false),
        (115_200, Check::Crc32, true),
        (1_000_000, Check::Crc32, false),
        (1_000_000, Check::Crc32, true),
        (115_200, Check::Crc16, false),
    ] {
        let report = measure(baud, check, both);
        let limit = baud as f64 / BITS as f64 / 64.0;
        let used = report.messages_per_second / limit;
        std::eprintln!(
            "{baud} baud, {check:?}, {}: {:.1} % of the bytes are messages, {:.0} messages/s, {:.1} % of the line",
            if both { "both ways" } else { "one way" },
            report.efficiency * 100.0,
            report.messages_per_second,
            used * 100.0
        );
        assert!(report.efficiency >= 0.85, "{}", report.efficiency);
        assert!(used >= 0.85, "{used}");
    }
}
