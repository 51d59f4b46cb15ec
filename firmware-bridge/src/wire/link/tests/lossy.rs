//! Two links over a line that drops, damages, repeats, reorders, splits and merges frames.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{HashSet, VecDeque};

/// The chance of each mishap for each frame, in thousandths.
#[derive(Clone, Copy)]
struct Mishaps(u32);

/// One direction of the line.
#[derive(Default)]
struct Line {
    frames: VecDeque<StdVec<u8>>,
    /// The rest of a frame that was split: it comes after the next frame.
    rest: Option<StdVec<u8>>,
    carried: u64,
    damaged: u64,
}

impl Line {
    fn put(&mut self, frame: &[u8], mishaps: Mishaps, random: &mut StdRng) {
        self.carried += 1;
        let mut frame = StdVec::from(frame);
        let happens = |random: &mut StdRng| random.random_range(0..1000) < mishaps.0;
        if happens(random) {
            self.damaged += 1;
            return;
        }
        if happens(random) {
            self.damaged += 1;
            for _ in 0..random.random_range(1..8) {
                let bit = random.random_range(0..frame.len() * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
        if happens(random) {
            self.damaged += 1;
            let at = random.random_range(0..frame.len());
            if random.random() {
                frame.remove(at);
            } else {
                frame.insert(at, random.random());
            }
        }
        if happens(random) {
            // The zero between two frames is lost.
            self.damaged += 1;
            frame.pop();
        }
        if happens(random) {
            self.damaged += 1;
            let half = frame.split_off(random.random_range(0..=frame.len()));
            self.rest = Some(half);
        } else if let Some(rest) = self.rest.take() {
            frame.extend(rest);
        }
        if happens(random) {
            self.frames.push_back(frame.clone());
        }
        let back = if happens(random) { random.random_range(0..=8) } else { 0 };
        let at = self.frames.len().saturating_sub(back);
        self.frames.insert(at, frame);
    }
}

struct End {
    link: Link<8>,
    role: Role,
    next: u32,
    /// Sent and not acknowledged.
    pending: VecDeque<u32>,
    acknowledged: StdVec<u32>,
    /// What arrived from the other end.
    arrived: HashSet<u32>,
    latest: Option<u32>,
    sessions: u32,
}

impl End {
    fn new(role: Role, check: Check) -> Self {
        Self {
            link: Link::new(introduction(role), role as u32 + 1, check, Timing::default(), 0),
            role,
            next: 0,
            pending: VecDeque::new(),
            acknowledged: StdVec::new(),
            arrived: HashSet::new(),
            latest: None,
            sessions: 0,
        }
    }

    fn fill(&mut self) {
        while self.link.send(message(self.next)).is_ok() {
            self.pending.push_back(self.next);
            self.next += 1;
        }
    }

    fn note(&mut self, events: StdVec<Event>) {
        for event in events {
            match event {
                Event::Message(received) => {
                    let number = number(&received);
                    assert_eq!(received, message(number), "a damaged message was accepted");
                    assert!(
                        self.latest.is_none_or(|latest| number > latest),
                        "message {number} arrived again or too late"
                    );
                    self.latest = Some(number);
                    self.arrived.insert(number);
                }
                Event::Down { lost, .. } => {
                    self.settle(lost);
                    assert_eq!(self.pending.len(), lost);
                    self.pending.clear();
                }
                Event::Up => self.sessions += 1,
                Event::Unknown(_) | Event::Refused(_) => panic!("{event:?}"),
            }
        }
        if self.link.peer().is_some() {
            self.settle(self.link.in_flight());
        }
    }

    /// All but the latest so many are acknowledged.
    fn settle(&mut self, left: usize) {
        while self.pending.len() > left {
            self.acknowledged.extend(self.pending.pop_front());
        }
    }

    /// Forgets everything but what the test knows.
    fn restart(&mut self, boot: u32, check: Check, now: Millis) {
        self.pending.clear();
        self.link = Link::new(introduction(self.role), boot, check, Timing::default(), now);
    }
}

struct Run {
    ends: [End; 2],
    lines: [Line; 2],
    now: Millis,
    check: Check,
    mishaps: Mishaps,
    random: StdRng,
}

impl Run {
    fn new(check: Check, mishaps: Mishaps, seed: u64) -> Self {
        Self {
            ends: [End::new(Role::Host, check), End::new(Role::Device, check)],
            lines: [Line::default(), Line::default()],
            now: 0,
            check,
            mishaps,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn step(&mut self) {
        self.now += 5;
        for from in 0..2 {
            self.ends[from].fill();
            let (frames, events, _) = drain(&mut self.ends[from].link, self.now);
            self.ends[from].note(events);
            for frame in frames {
                self.lines[from].put(&frame, self.mishaps, &mut self.random);
            }
        }
        for from in 0..2 {
            // Some of what is on the line arrives now, the rest later.
            let count = self.random.random_range(0..=self.lines[from].frames.len());
            for _ in 0..count {
                let frame = self.lines[from].frames.pop_front().unwrap();
                let to = &mut self.ends[1 - from];
                let events = feed(&mut to.link, &frame, self.now);
                to.note(events);
            }
        }
    }

    fn carried(&self) -> u64 {
        self.lines[0].carried + self.lines[1].carried
    }

    fn is_up(&self) -> bool {
        let knows =
            |end: &End, other: &End| end.link.peer().is_some_and(|peer| peer.id == other.link.id);
        let [host, device] = &self.ends;
        knows(host, device) && knows(device, host)
    }

    /// Every acknowledged message has arrived.
    fn check(&self) {
        let [host, device] = &self.ends;
        for (from, to) in [(host, device), (device, host)] {
            for number in &from.acknowledged {
                assert!(to.arrived.contains(number), "{number} was acknowledged, never arrived");
            }
        }
    }
}

fn run(check: Check, mishaps: Mishaps, frames: u64, seed: u64) {
    let mut run = Run::new(check, mishaps, seed);
    let mut restarts = 0;
    while run.carried() < frames {
        run.step();
        if run.random.random_range(0..4000) == 0 {
            restarts += 1;
            let who = restarts as usize % 2;
            let now = run.now;
            run.ends[who].restart(100 + restarts, check, now);
        }
    }
    run.check();
    let [host, device] = &run.ends;
    let acknowledged = host.acknowledged.len() + device.acknowledged.len();
    let damaged = run.lines[0].damaged + run.lines[1].damaged;
    std::eprintln!(
        "{check:?}: {} frames, {damaged} damaged or lost, {acknowledged} messages acknowledged, {} sessions, {restarts} restarts",
        run.carried(),
        host.sessions
    );
    assert!(acknowledged as u64 > frames / 20, "it went on in spite of all");
}

/// With `OUTPOST_FRAMES=1000000` in the environment, the long form.
fn frames() -> u64 {
    std::env::var("OUTPOST_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000)
}

#[test]
fn every_acknowledged_message_arrives_once_and_in_order() {
    run(Check::Crc32, Mishaps(40), frames(), 1);
}

#[test]
fn a_line_without_mishaps_loses_nothing() {
    let mut run = Run::new(Check::Crc16, Mishaps(0), 2);
    for _ in 0..2000 {
        run.step();
    }
    run.check();
    for end in &run.ends {
        let stats = end.link.stats();
        assert_eq!((stats.damaged, stats.lost, stats.sessions), (0, 0, 1));
        assert!(stats.received > 1000);
    }
}

#[test]
fn a_restart_at_any_time_is_over_within_two_seconds() {
    let mut longest = 0;
    for mishaps in [0, 10] {
        let mut run = Run::new(Check::Crc32, Mishaps(mishaps), 3);
        for (boot, who) in (100..600).zip([0, 1].into_iter().cycle()) {
            let pause = run.random.random_range(0..400);
            for _ in 0..pause {
                run.step();
            }
            let check = run.check;
            let now = run.now;
            run.ends[who].restart(boot, check, now);
            while !run.is_up() {
                run.step();
                assert!(run.now - now <= 2000, "restart {boot} took longer");
            }
            longest = longest.max(run.now - now);
        }
        run.check();
    }
    std::eprintln!("1000 restarts: the longest took {longest} ms until both ends were up again");
}
