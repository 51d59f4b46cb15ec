//! Each way into and out of a state.

use super::*;

/// Both ends, on a line that loses nothing, or is cut.
struct Pair {
    host: Link<4>,
    device: Link<4>,
    now: Millis,
    cut: bool,
    host_events: StdVec<Event>,
    device_events: StdVec<Event>,
}

impl Pair {
    fn new() -> Self {
        let new =
            |role, boot| Link::new(introduction(role), boot, Check::Crc32, Timing::default(), 0);
        Self {
            host: new(Role::Host, 1),
            device: new(Role::Device, 2),
            now: 0,
            cut: false,
            host_events: StdVec::new(),
            device_events: StdVec::new(),
        }
    }

    fn up() -> Self {
        let mut pair = Self::new();
        pair.run(50);
        assert_eq!(pair.take(), ([Event::Up].into(), [Event::Up].into()));
        pair
    }

    /// Lets time pass, in steps of 10 ms.
    fn run(&mut self, milliseconds: Millis) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now += 10;
            let (to_device, events, _) = drain(&mut self.host, self.now);
            self.host_events.extend(events);
            let (to_host, events, _) = drain(&mut self.device, self.now);
            self.device_events.extend(events);
            if !self.cut {
                for frame in to_device {
                    self.device_events.extend(feed(&mut self.device, &frame, self.now));
                }
                for frame in to_host {
                    self.host_events.extend(feed(&mut self.host, &frame, self.now));
                }
            }
        }
    }

    fn take(&mut self) -> (StdVec<Event>, StdVec<Event>) {
        (std::mem::take(&mut self.host_events), std::mem::take(&mut self.device_events))
    }
}

#[test]
fn a_session_begins_and_stays() {
    let mut pair = Pair::up();
    assert_eq!(pair.host.peer().unwrap().capabilities[1].name, "light/kitchen");
    pair.run(60_000);
    assert_eq!(pair.take(), (StdVec::new(), StdVec::new()));
    assert_eq!((pair.host.stats().sessions, pair.device.stats().damaged), (1, 0));
}

#[test]
fn messages_arrive_in_both_directions() {
    let mut pair = Pair::up();
    for n in 0..4 {
        pair.host.send(message(n)).unwrap();
        pair.device.send(message(n + 10)).unwrap();
    }
    assert_eq!(pair.host.send(message(4)), Err(SendError::Full));
    pair.run(30);
    let numbers = |events: StdVec<Event>| -> StdVec<u32> {
        let of = |event: &Event| match event {
            Event::Message(message) => number(message),
            other => panic!("{other:?}"),
        };
        events.iter().map(of).collect()
    };
    let (host, device) = pair.take();
    assert_eq!((numbers(host), numbers(device)), ([10, 11, 12, 13].into(), [0, 1, 2, 3].into()));
    assert_eq!((pair.host.in_flight(), pair.device.in_flight()), (0, 0));
    assert_eq!(pair.host.stats().resent, 0);
}

#[test]
fn silence_ends_a_session_and_both_come_back() {
    let mut pair = Pair::up();
    pair.host.send(message(0)).unwrap();
    pair.cut = true;
    pair.run(1600);
    let down = |why, lost| [Event::Down { why, lost }].into();
    assert_eq!(pair.take(), (down(Why::Unanswered, 1), down(Why::Silent, 0)));
    assert_eq!(pair.host.send(message(1)), Err(SendError::Down));
    pair.cut = false;
    pair.run(300);
    assert_eq!(pair.take(), ([Event::Up].into(), [Event::Up].into()));
}

#[test]
fn either_end_may_restart() {
    for device_restarts in [false, true] {
        let mut pair = Pair::up();
        pair.run(1000);
        let role = if device_restarts { Role::Device } else { Role::Host };
        let fresh = Link::new(introduction(role), 77, Check::Crc32, Timing::default(), pair.now);
        if device_restarts {
            pair.device = fresh;
        } else {
            pair.host = fresh;
        }
        pair.run(50);
        let (host, device) = pair.take();
        let (stayed, restarted) = if device_restarts { (host, device) } else { (device, host) };
        assert_eq!(stayed, [Event::Down { why: Why::Restarted, lost: 0 }, Event::Up]);
        assert_eq!(restarted, [Event::Up]);
    }
}

#[test]
fn a_busy_end_holds_messages_back_without_ending_the_session() {
    let mut pair = Pair::up();
    pair.host.set_ready(false);
    for n in 0..4 {
        pair.device.send(message(n)).unwrap();
    }
    pair.run(20_000);
    assert_eq!(pair.take(), (StdVec::new(), StdVec::new()));
    assert_eq!(pair.device.in_flight(), 4);
    pair.host.set_ready(true);
    pair.run(40);
    assert_eq!(pair.take().0, (0..4).map(|n| Event::Message(message(n))).collect::<StdVec<_>>());
    assert_eq!(pair.device.in_flight(), 0);
}

#[test]
fn what_the_other_end_does_not_know_is_not_sent() {
    let mut pair = Pair::new();
    pair.device.me.kinds = 1 << Message::Agent(AgentState::Idle).kind();
    pair.run(50);
    assert_eq!(pair.host.send(message(0)), Err(SendError::NotUnderstood));
    assert_eq!(pair.host.send(Message::Agent(AgentState::Idle)), Ok(()));
}

#[test]
fn an_unknown_message_is_acknowledged_and_dropped() {
    let mut pair = Pair::up();
    let key = Key::between(pair.host.id, pair.device.id);
    let receipt = Receipt { next: 0, busy: false };
    let line = (Check::Crc32, key);
    let known = encode_data(0, receipt, &Message::Agent(AgentState::Idle), line).unwrap();
    let mut body = [0; 64];
    let len = cobs::decode(&known[..known.len() - 1], &mut body).unwrap().frame_size();
    body[4] = 200;
    let checksum = Check::Crc32.of(key, &body[..len - 4]);
    body[len - 4..len].copy_from_slice(&checksum);
    let mut frame = [0; 70];
    let end = cobs::encode(&body[..len], &mut frame);
    assert_eq!(
        feed(&mut pair.device, &frame[..=end], pair.now),
        [Event::Unknown(Unknown { kind: 200 })]
    );
    let (frames, ..) = drain(&mut pair.device, pair.now);
    assert!(matches!(
        decode(&frames[0][..frames[0].len() - 1], (Check::Crc32, pair.host_key())),
        Ok(Frame::Ack(Receipt { next: 1, busy: false }))
    ));
}

impl Pair {
    fn host_key(&self) -> Key {
        Key::between(self.device.id, self.host.id)
    }
}

#[test]
fn other_versions_and_checksums_are_refused_on_both_ends() {
    let mut pair = Pair::new();
    pair.device.check = Check::Crc16;
    pair.run(5000);
    let expected = (
        [Event::Refused(Refusal::Check(Check::Crc16))].into(),
        [Event::Refused(Refusal::Check(Check::Crc32))].into(),
    );
    assert_eq!(pair.take(), expected);
    pair.device.check = Check::Crc32;
    pair.run(300);
    assert_eq!(pair.take(), ([Event::Up].into(), [Event::Up].into()));

    // A hello of version 1 as that version's own encoder would write it, as far as all versions agree.
    let mut device =
        Link::<1>::new(introduction(Role::Device), 5, Check::Crc32, Timing::default(), 0);
    let body = [0x41, 0, 0, 0, 9, 9, 9];
    let frame = framed(&body);
    let refused = [Event::Refused(Refusal::Version(1))];
    assert_eq!(feed(&mut device, &frame, 0), refused);
    assert_eq!(feed(&mut device, &frame, 10), [], "said once");
    assert_eq!(device.refusal(), Some(Refusal::Version(1)));
    let (frames, ..) = drain(&mut device, 20);
    assert_eq!(frames.len(), 1, "it goes on to say which version it speaks");
    drain(&mut device, 10_000);
    assert_eq!(device.refusal(), None, "a refusal stands only while foreign frames come");
    assert!(refused[0].to_text().contains("version 1 of the wire protocol, this one 2"));
}

fn framed(body: &[u8]) -> StdVec<u8> {
    let mut whole = StdVec::from(body);
    whole.extend_from_slice(&Check::Crc32.of(Key::OPEN, body));
    let mut frame = std::vec![0; whole.len() + 2];
    cobs::encode(&whole, &mut frame);
    frame
}

impl Event {
    fn to_text(&self) -> std::string::String {
        match self {
            Self::Refused(refusal) => std::format!("{refusal}"),
            other => std::format!("{other:?}"),
        }
    }
}

#[test]
fn an_echo_of_ones_own_frames_is_no_other_end() {
    let mut host = Link::<4>::new(introduction(Role::Host), 1, Check::Crc32, Timing::default(), 0);
    for now in (0..5000).step_by(100) {
        let (frames, ..) = drain(&mut host, now);
        for frame in frames {
            assert_eq!(feed(&mut host, &frame, now), []);
        }
    }
    assert!(host.peer().is_none() && host.stats().foreign > 20);
}

#[test]
fn a_late_hello_of_an_earlier_session_changes_nothing() {
    let mut pair = Pair::new();
    let (hellos, ..) = drain(&mut pair.device, 0);
    pair.run(50);
    pair.cut = true;
    pair.run(2000);
    pair.cut = false;
    pair.run(300);
    pair.take();
    assert_eq!(feed(&mut pair.host, &hellos[0], pair.now), []);
    assert!(pair.host.peer().is_some());
}
