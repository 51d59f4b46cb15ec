//! How far an import is, for whoever waits for it.

/// How far an import is. It goes over its bytes twice: what is packed is written, then all files are read for their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is at work, such as `decoder: model.layers.3`.
    pub stage: &'a str,
    /// Bytes of this pass that are done.
    pub done: u64,
    /// Bytes of this pass.
    pub total: u64,
}

/// Counts the bytes of a pass.
pub(crate) struct Meter<'a> {
    report: &'a mut dyn FnMut(Progress<'_>),
    stage: String,
    done: u64,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(total: u64, report: &'a mut dyn FnMut(Progress<'_>)) -> Self {
        Self { report, stage: String::new(), done: 0, total }
    }

    /// Begins a stage, unless it is the present one.
    pub(crate) fn stage(&mut self, stage: &str) {
        if self.stage != stage {
            stage.clone_into(&mut self.stage);
            self.add(0);
        }
    }

    /// Counts bytes of the stage as done.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        (self.report)(Progress { stage: &self.stage, done: self.done, total: self.total });
    }
}
