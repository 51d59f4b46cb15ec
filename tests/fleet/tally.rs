//! What was sent, what arrived, and when.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use outpost_mqtt::subscriber::Received;

use crate::device::Device;

/// Reports under way and those that arrived.
#[derive(Default)]
pub(crate) struct Reports {
    expected: HashSet<String>,
    arrived: HashSet<String>,
    /// The latest id on each topic; ids grow with time.
    latest: HashMap<String, String>,
    pub(crate) faults: Vec<String>,
}

impl Reports {
    /// Has each device report so many calls; how many that are.
    pub(crate) fn send(&mut self, devices: &[Device], each: usize) -> usize {
        for number in 0..each {
            self.expected.extend(devices.iter().map(|device| device.report(number)));
        }
        devices.len() * each
    }

    /// Waits until all have arrived.
    pub(crate) async fn await_all(
        &mut self,
        mut next: impl AsyncFnMut() -> Option<Received>,
    ) -> Result<()> {
        while !self.expected.is_empty() {
            let received = next()
                .await
                .with_context(|| format!("{} reports are lost", self.expected.len()))?;
            self.take(&received);
        }
        Ok(())
    }

    fn take(&mut self, received: &Received) {
        let Some(id) = received.payload["id"].as_str() else { return };
        if !self.arrived.insert(id.to_owned()) {
            return;
        }
        if !self.expected.remove(id) {
            self.faults.push(format!("{}: nobody sent {id}", received.topic));
        }
        let latest = self.latest.insert(received.topic.clone(), id.to_owned());
        if latest.is_some_and(|latest| latest.as_str() > id) {
            self.faults.push(format!("{}: {id} came late", received.topic));
        }
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.len()
    }
}

/// Questions, and how long their answers took.
#[derive(Default)]
pub(crate) struct Latencies {
    open: HashMap<String, Instant>,
    took: Vec<Duration>,
    /// Answers of each device.
    devices: HashMap<String, usize>,
}

impl Latencies {
    pub(crate) fn asked(&mut self, question: usize) {
        self.open.insert(question.to_string(), Instant::now());
    }

    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn take(&mut self, received: Received) {
        let transaction = received.payload["transaction"].as_str().unwrap_or_default();
        if let Some(asked) = self.open.remove(transaction) {
            self.took.push(asked.elapsed());
            *self.devices.entry(received.topic).or_default() += 1;
        }
    }

    /// Rate, times and how evenly the devices were asked.
    pub(crate) fn summary(mut self, all: Duration, devices: usize) -> String {
        self.took.sort_unstable();
        let at = |part: f64| {
            let index = (self.took.len() as f64 * part) as usize;
            self.took.get(index.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        format!(
            "{:.0} a second, half answered within {:.2?}, 99 % within {:.2?}; {} of {devices} devices answered, one at most {} times",
            self.took.len() as f64 / all.as_secs_f64(),
            at(0.5),
            at(0.99),
            self.devices.len(),
            self.devices.values().max().unwrap_or(&0),
        )
    }
}
