//! All that can happen on a short line, one thing after the other in every order.

use super::*;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

/// All times are one unit, so that few moments are worth telling apart.
const TIMING: Timing =
    Timing { greet_ms: 1, resend_ms: 1, tries: 2, heartbeat_ms: 1, silence_ms: 3, refusal_ms: 3 };
/// Frames on the line at a time, in each direction.
const LINE: usize = 2;

#[derive(Clone)]
struct World {
    links: [Link<2>; 2],
    /// Each end has its own clock.
    now: [Millis; 2],
    lines: [StdVec<Bytes>; 2],
    /// Messages that each end has to send.
    to_send: [u8; 2],
    sent: [u8; 2],
    /// What arrived from each end, and how much of its own it knows to have arrived.
    arrived: [StdVec<u8>; 2],
    pending: [VecDeque<u8>; 2],
    restarts: u8,
    timeouts: u8,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Send(usize),
    /// What an end has to do at once.
    Poll(usize),
    /// As much time passes at an end as makes it do something.
    Timeout(usize),
    /// A frame arrives; it stays on the line too if it is repeated.
    Arrive {
        from: usize,
        which: usize,
        repeated: bool,
    },
    Lose {
        from: usize,
        which: usize,
    },
    Restart(usize),
}

impl World {
    fn new(to_send: [u8; 2]) -> Self {
        let mut device = introduction(Role::Device);
        device.capabilities.clear();
        Self {
            links: [
                Link::new(introduction(Role::Host), 1, Check::Crc32, TIMING, 0),
                Link::new(device, 2, Check::Crc32, TIMING, 0),
            ],
            now: [0, 0],
            lines: [StdVec::new(), StdVec::new()],
            to_send,
            sent: [0, 0],
            arrived: [StdVec::new(), StdVec::new()],
            pending: [VecDeque::new(), VecDeque::new()],
            restarts: 0,
            timeouts: 0,
        }
    }

    fn acts(&self, budget: Budget) -> StdVec<Act> {
        let mut acts = StdVec::new();
        for end in 0..2 {
            if self.sent[end] < self.to_send[end] && self.links[end].has_room() {
                acts.push(Act::Send(end));
            }
            match self.links[end].clone().poll(self.now[end]).unwrap() {
                Step::Wait(_) if self.timeouts < budget.timeouts => acts.push(Act::Timeout(end)),
                Step::Wait(_) => {}
                _ => acts.push(Act::Poll(end)),
            }
            for which in 0..self.lines[end].len() {
                acts.push(Act::Arrive { from: end, which, repeated: false });
                acts.push(Act::Arrive { from: end, which, repeated: true });
                acts.push(Act::Lose { from: end, which });
            }
            if self.restarts < budget.restarts {
                acts.push(Act::Restart(end));
            }
        }
        acts
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send(end) => {
                let number = self.sent[end];
                self.links[end].send(message(u32::from(number) * 4)).unwrap();
                self.pending[end].push_back(number);
                self.sent[end] += 1;
            }
            Act::Poll(end) => self.poll(end),
            Act::Timeout(end) => {
                let Step::Wait(until) = self.links[end].poll(self.now[end]).unwrap() else {
                    return;
                };
                self.now[end] = until;
                self.timeouts += 1;
                self.poll(end);
            }
            Act::Arrive { from, which, repeated } => {
                let frame = self.lines[from][which].clone();
                if !repeated {
                    self.lines[from].remove(which);
                }
                let to = 1 - from;
                for byte in frame {
                    if let Some(event) = self.links[to].receive(byte, self.now[to]) {
                        self.note(to, event);
                    }
                }
                self.settle(to);
            }
            Act::Lose { from, which } => drop(self.lines[from].remove(which)),
            Act::Restart(end) => {
                self.restarts += 1;
                let boot = 10 + u32::from(self.restarts);
                let me = self.links[end].me.clone();
                self.links[end] = Link::new(me, boot, Check::Crc32, TIMING, self.now[end]);
                self.pending[end].clear();
            }
        }
    }

    fn poll(&mut self, end: usize) {
        match self.links[end].poll(self.now[end]).unwrap() {
            Step::Send(bytes) => {
                // What the line cannot carry is lost.
                if self.lines[end].len() < LINE {
                    self.lines[end].push(bytes);
                }
            }
            Step::Event(event) => self.note(end, event),
            Step::Wait(_) => {}
        }
    }

    fn note(&mut self, end: usize, event: Event) {
        match event {
            Event::Message(received) => {
                let sent = u8::try_from(number(&received) / 4).unwrap();
                assert!(
                    self.arrived[1 - end].last().is_none_or(|latest| sent > *latest),
                    "message {sent} arrived again or too late"
                );
                self.arrived[1 - end].push(sent);
            }
            Event::Down { lost, .. } => {
                while self.pending[end].len() > lost {
                    self.acknowledged(end);
                }
                self.pending[end].clear();
            }
            Event::Up => {}
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, end: usize) {
        if self.links[end].peer().is_some() {
            while self.pending[end].len() > self.links[end].in_flight() {
                self.acknowledged(end);
            }
        }
    }

    fn acknowledged(&mut self, end: usize) {
        let number = self.pending[end].pop_front().unwrap();
        assert!(self.arrived[end].contains(&number), "{number} was acknowledged, never arrived");
    }

    /// On a line that is good from now on, both ends come together and everything left arrives.
    fn recovers(mut self) -> bool {
        for _ in 0..30 {
            for end in 0..2 {
                self.now[end] += 1;
                while self.sent[end] < self.to_send[end] && self.links[end].has_room() {
                    self.act(Act::Send(end));
                }
                while !matches!(self.links[end].clone().poll(self.now[end]), Ok(Step::Wait(_))) {
                    self.poll(end);
                    while !self.lines[end].is_empty() {
                        self.act(Act::Arrive { from: end, which: 0, repeated: false });
                    }
                }
            }
            let done = |end: usize| {
                self.sent[end] == self.to_send[end]
                    && self.links[end].peer().is_some()
                    && self.links[end].in_flight() == 0
            };
            if done(0) && done(1) {
                return true;
            }
        }
        false
    }

    /// What tells this world from others; times count from each end's now.
    fn digest(&self, hasher: &RandomState) -> u64 {
        let phase = |end: usize| {
            let mut phase = self.links[end].phase.clone();
            match &mut phase {
                Phase::Up(session) => session.rebase(self.now[end]),
                Phase::Greeting { hello_at, .. } => {
                    *hello_at = hello_at.saturating_sub(self.now[end]);
                }
            }
            (phase, self.links[end].id)
        };
        let history = (&self.sent, &self.arrived, &self.pending);
        hasher.hash_one((phase(0), phase(1), &self.lines, history, self.restarts, self.timeouts))
    }
}

#[derive(Clone, Copy)]
struct Budget {
    timeouts: u8,
    restarts: u8,
}

/// Visits every world that can be reached; each is checked on the way. Gives how many there are.
fn visit(start: World, budget: Budget) -> usize {
    let hasher = RandomState::new();
    let mut seen = HashSet::new();
    let mut left = VecDeque::from([start]);
    while let Some(world) = left.pop_front() {
        for act in world.acts(budget) {
            let mut next = world.clone();
            next.act(act);
            if seen.insert(next.digest(&hasher)) {
                assert!(next.clone().recovers(), "stuck after {act:?}");
                left.push_back(next);
            }
        }
    }
    seen.len()
}

/// Both ends in a session, nothing on the line.
fn in_session(to_send: [u8; 2]) -> World {
    let mut world = World::new(to_send);
    for _ in 0..20 {
        for end in 0..2 {
            while !matches!(world.links[end].clone().poll(world.now[end]), Ok(Step::Wait(_))) {
                world.poll(end);
                while !world.lines[end].is_empty() {
                    world.act(Act::Arrive { from: end, which: 0, repeated: false });
                }
            }
        }
    }
    assert!(world.links.iter().all(|link| link.peer().is_some()));
    world
}

/// With `OUTPOST_EXHAUSTIVE` in the environment, more messages are sent; that takes minutes.
fn long() -> bool {
    std::env::var_os("OUTPOST_EXHAUSTIVE").is_some()
}

#[test]
fn beginning_a_session_in_every_order() {
    let to_send = if long() { [2, 1] } else { [1, 0] };
    let count = visit(World::new(to_send), Budget { timeouts: 0, restarts: 0 });
    std::eprintln!("{count} states from the first hello");
}

#[test]
fn sending_in_every_order() {
    let (to_send, timeouts) = if long() { ([3, 1], 2) } else { ([2, 1], 1) };
    let count = visit(in_session(to_send), Budget { timeouts, restarts: 0 });
    std::eprintln!("{count} states within a session");
}

#[test]
fn restarting_in_every_order() {
    let to_send = if long() { [2, 1] } else { [1, 0] };
    let count = visit(in_session(to_send), Budget { timeouts: 0, restarts: 1 });
    std::eprintln!("{count} states with a restart");
}
