//! The topics that a connection subscribes to.
//!
//! With MQTT 3.1.1 a message larger than a packet ends the connection that receives it, and nothing says where it came from. So a
//! filter is left out only when it was the only one subscribed to and that happened twice. It is tried again later.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info};

use crate::session::MAX_PACKET;

/// Pause before a filter that was left out is tried again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// A filter that was left out.
#[derive(Debug)]
struct LeftOut {
    filter: String,
    until: Instant,
}

/// A filter that brought a longer message while it was alone.
#[derive(Debug)]
struct Struck {
    filter: String,
    pause: Duration,
}

/// Topic filters, in the order of subscribing.
#[derive(Debug)]
pub(super) struct Filters {
    all: Vec<String>,
    /// Number subscribed on this connection.
    asked: usize,
    /// Number answered on this connection.
    answered: usize,
    one_by_one: bool,
    /// Rejected by the broker on this connection.
    rejected: Vec<String>,
    struck: Vec<Struck>,
    left_out: Vec<LeftOut>,
}

impl Filters {
    pub(super) fn new(all: Vec<String>) -> Self {
        let (rejected, struck, left_out) = <_>::default();
        Self { all, asked: 0, answered: 0, one_by_one: false, rejected, struck, left_out }
    }

    /// Filters for a new connection.
    pub(super) fn first(&mut self) -> &[String] {
        self.answered = 0;
        self.rejected.clear();
        self.asked = if self.one_by_one { self.all.len().min(1) } else { self.all.len() };
        &self.all[..self.asked]
    }

    /// Next filter, once what is retained for the one before has had time to come.
    pub(super) fn next(&mut self) -> Option<&[String]> {
        if self.answered < self.asked {
            return None;
        }
        if self.asked == self.all.len() {
            // None is suspect.
            self.one_by_one = false;
            return None;
        }
        self.asked += 1;
        Some(&self.all[self.asked - 1..self.asked])
    }

    /// Whether the broker has answered all of them.
    pub(super) fn are_answered(&self) -> bool {
        self.asked == self.all.len() && self.answered >= self.asked
    }

    /// Whether messages of a filter arrive on this connection.
    pub(super) fn covers(&self, filter: &str) -> bool {
        let is = |known: &String| known == filter;
        self.all[..self.asked].iter().any(is) && !self.rejected.iter().any(is)
    }

    /// Adds new filters, and those that were left out for long enough.
    pub(super) fn add(&mut self, filters: &[String], now: Instant) {
        for filter in filters {
            let is_out = self.left_out.iter().any(|out| out.filter == *filter);
            if !is_out && !self.all.contains(filter) {
                self.all.push(filter.clone());
            }
        }
        let is_due = |out: &mut LeftOut| out.until <= now;
        for LeftOut { filter, .. } in self.left_out.extract_if(.., is_due) {
            info!(filter, "trying a subscription again that was left out");
            self.all.push(filter);
        }
    }

    /// Subscribes to the rest if all can be at once; `subscribe` returns whether it did.
    pub(super) fn catch_up(&mut self, subscribe: impl FnOnce(&[String]) -> bool) {
        let rest = &self.all[self.asked..];
        if !self.one_by_one && !rest.is_empty() && subscribe(rest) {
            self.asked = self.all.len();
        }
    }

    /// The connection ended at an oversized packet.
    pub(super) fn suspect(&mut self, now: Instant) {
        if self.asked == 1 {
            self.strike(now);
        } else if self.asked > 0 {
            // The latest is the first to be tried alone: what is retained comes right after subscribing.
            let latest = self.all.remove(self.asked - 1);
            self.all.insert(0, latest);
            self.one_by_one = true;
        }
    }

    fn strike(&mut self, now: Instant) {
        let filter = self.all[0].clone();
        let Some(struck) = self.struck.iter_mut().find(|struck| struck.filter == filter) else {
            self.struck.push(Struck { filter, pause: FIRST_PAUSE });
            return;
        };
        let again_in = struck.pause;
        struck.pause = (again_in * 2).min(LONGEST_PAUSE);
        error!(
            filter,
            limit = MAX_PACKET,
            ?again_in,
            "left out a subscription: a longer message is retained there, which somebody has to clear"
        );
        self.all.remove(0);
        self.left_out.push(LeftOut { filter, until: now + again_in });
        // Whatever else is wrong shows by itself.
        self.one_by_one = false;
    }

    /// The broker answered.
    pub(super) fn answered(&mut self, taken: &[bool]) {
        let from = self.answered.min(self.asked);
        let latest = self.all[from..self.asked].iter().zip(taken);
        for (filter, _) in latest.filter(|(_, taken)| !**taken) {
            error!(filter, "the broker rejected a subscription: check its ACL");
            self.rejected.push(filter.clone());
        }
        self.answered += taken.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters() -> Filters {
        Filters::new(["ask", "ask/+", "set/+", "desired"].map(str::to_owned).into())
    }

    /// Subscribes as a connection does, until all are or a message of `guilty` ends it.
    fn connect(filters: &mut Filters, guilty: Option<&str>, now: Instant) -> bool {
        let ends = |asked: &[String]| guilty.is_some_and(|bad| asked.iter().any(|it| it == bad));
        let first = filters.first().to_vec();
        let mut ended = ends(&first);
        let taken = vec![true; first.len()];
        if !ended {
            filters.answered(&taken);
        }
        while !ended && let Some(next) = filters.next().map(<[String]>::to_vec) {
            ended = ends(&next);
            if !ended {
                filters.answered(&[true]);
            }
        }
        if ended {
            filters.suspect(now);
        }
        !ended
    }

    #[test]
    fn a_retained_giant_costs_its_own_filter_which_comes_back() {
        for guilty in ["ask", "ask/+", "set/+", "desired"] {
            let mut filters = filters();
            let now = Instant::now();
            let tries = (0..10).take_while(|_| !connect(&mut filters, Some(guilty), now)).count();
            assert!(tries < 5, "{guilty}: {tries}");
            for filter in ["ask", "ask/+", "set/+", "desired"] {
                assert_eq!(filters.covers(filter), filter != guilty, "{filter}");
            }
            filters.add(&[guilty.to_owned()], now);
            assert!(!filters.all.contains(&guilty.to_owned()), "not at once");
            filters.add(&[], now + FIRST_PAUSE);
            assert!(connect(&mut filters, None, now + FIRST_PAUSE));
            assert!(filters.covers(guilty) && filters.are_answered());
        }
    }

    #[test]
    fn giants_that_are_not_retained_cost_no_other_filter() {
        let mut filters = filters();
        let now = Instant::now();
        for _ in 0..20 {
            // They come on `ask` at any moment: with all subscribed, and with some.
            connect(&mut filters, None, now);
            filters.suspect(now);
            let asked = filters.first().to_vec();
            if asked.iter().any(|filter| filter == "ask") {
                filters.suspect(now);
            }
        }
        assert!(connect(&mut filters, None, now));
        for filter in ["ask/+", "set/+", "desired"] {
            assert!(filters.covers(filter), "{filter}");
        }
    }

    #[test]
    fn what_the_broker_rejects_is_not_covered() {
        let mut filters = filters();
        filters.first();
        filters.answered(&[true, true, true, false]);
        assert!(filters.covers("ask") && !filters.covers("desired") && filters.are_answered());
    }
}
