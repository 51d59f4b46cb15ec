//! What can go wrong, and in which order it does.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL for the daemon.
    Kill,
    /// The broker ends politely and comes back with what it had.
    BrokerSaved,
    /// The broker is killed and comes back knowing nothing.
    BrokerBlank,
    /// The connection is cut.
    Cut,
    /// What the daemon sends comes through, and nothing comes back, until the connection is cut or the daemon gives it up.
    HalfOpen,
    /// The connection stands, and nothing comes through.
    Stall,
    /// Few bytes at a time come through.
    Slow,
    /// Tools are called while the connection is down or silent, and their time passes before it is back.
    Stale,
    /// A report is longer than the broker's packets, and the broker can only end the connection (MQTT 3.1.1).
    Oversized,
    /// The broker refuses the topic of a report (MQTT 5).
    Refused,
    /// The disk of the outbox is full for a while.
    DiskFull,
    /// The clock on the wall is put forward or back by up to a day, and stays so.
    Clock,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::BrokerSaved,
        Self::BrokerBlank,
        Self::Cut,
        Self::HalfOpen,
        Self::Stall,
        Self::Slow,
        Self::Stale,
        Self::Oversized,
        Self::Refused,
        Self::DiskFull,
        Self::Clock,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "daemon killed",
            Self::BrokerSaved => "broker restarted",
            Self::BrokerBlank => "broker killed",
            Self::Cut => "link cut",
            Self::HalfOpen => "link half open",
            Self::Stall => "link stalled",
            Self::Slow => "link slow",
            Self::Stale => "commands stale",
            Self::Oversized => "message oversized",
            Self::Refused => "topic refused",
            Self::DiskFull => "disk full",
            Self::Clock => "clock put",
        }
    }
}

/// Deals faults: all kinds that are possible here in a random order, then all in another, so that none is left out by chance.
#[derive(Debug)]
pub(crate) struct Deck {
    kinds: Vec<Fault>,
    rest: Vec<Fault>,
    happened: BTreeMap<Fault, u64>,
}

impl Deck {
    pub(crate) fn new(kinds: Vec<Fault>) -> Self {
        Self { kinds, rest: Vec::new(), happened: BTreeMap::new() }
    }

    /// The kinds of faults that are possible.
    pub(crate) fn kinds(&self) -> u64 {
        self.kinds.len() as u64
    }

    pub(crate) fn deal(&mut self, random: &mut StdRng) -> Option<Fault> {
        if self.rest.is_empty() {
            self.rest.clone_from(&self.kinds);
            self.rest.shuffle(random);
        }
        self.rest.pop()
    }

    /// A fault was brought about.
    pub(crate) fn happened(&mut self, fault: Fault) {
        *self.happened.entry(fault).or_default() += 1;
    }

    /// How often each kind happened.
    pub(crate) fn counts(&self) -> String {
        let count = |fault: &Fault| self.happened.get(fault).copied().unwrap_or_default();
        let counts = self.kinds.iter().map(|fault| format!("{} {}", count(fault), fault.name()));
        counts.collect::<Vec<_>>().join(", ")
    }

    /// The kinds that never happened though they were possible.
    pub(crate) fn missing(&self) -> Vec<String> {
        let missing = self.kinds.iter().filter(|fault| !self.happened.contains_key(fault));
        missing.map(|fault| format!("a fault never happened: {}", fault.name())).collect()
    }
}
