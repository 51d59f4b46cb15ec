//! What tools can reach.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use outpost_tools::tool::BoxFuture;
use outpost_tools::{Board, ErrorKind, ToolError, ToolHost};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::camera::Camera;
use crate::config::LiveSettings;
use crate::dispatch::timer;
use crate::event::Origin;
use crate::model_thread::ModelHandle;
use crate::ocr::read_text;
use crate::report::{Act, AlertReport, Body, CommandReport, Report, ReportId, Sink, TimerReport};
use crate::task_group::TaskGroup;
use crate::toolset::BoardTools;

/// Maximum tokens of a text read from the camera.
const MAX_TEXT_TOKENS: usize = 64;

/// What tools can reach.
#[derive(Debug)]
pub struct HostParts {
    /// Sink for reports and commands.
    pub sink: Arc<dyn Sink>,
    /// The camera.
    pub camera: Arc<dyn Camera>,
    /// The model.
    pub model: ModelHandle,
    /// The board, if there is one.
    pub board: Option<Arc<dyn BoardTools>>,
    /// Runs timers.
    pub task_group: TaskGroup,
}

#[derive(Debug)]
pub(super) struct AgentHost {
    pub(super) reach: HostParts,
    pub(super) live: watch::Receiver<LiveSettings>,
}

impl AgentHost {
    async fn read_camera(&self) -> Result<Option<String>, ToolError> {
        let no_picture =
            || ToolError::new(ErrorKind::Failed, "the camera is off or has no picture yet");
        let frame = self.reach.camera.latest().ok_or_else(no_picture)?;
        let deadline = self.live.borrow().tool_timeout;
        read_text(&self.reach.model, Origin::Voice, frame, MAX_TEXT_TOKENS, deadline).await.map_err(
            |error| ToolError {
                kind: ErrorKind::Failed,
                for_model: "the picture could not be read".to_owned(),
                for_operator: error.to_string(),
            },
        )
    }
}

/// [`ToolHost`] for one call.
pub(super) struct CallHost {
    pub(super) host: Arc<AgentHost>,
    pub(super) call: ReportId,
    /// The alert that the call is about, if raised by the watch list.
    pub(super) alert: Option<AlertReport>,
}

impl fmt::Debug for CallHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHost").field("call", &self.call).finish_non_exhaustive()
    }
}

impl ToolHost for CallHost {
    fn command(
        &self,
        path: &str,
        payload: Value,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>> {
        let command = CommandReport { path: format!("command/{path}"), payload, retain: false };
        self.host.reach.sink.act(Act::Command(command), deadline)
    }

    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(self.host.read_camera())
    }

    fn start_timer(&self, _call: &str, length: Duration) {
        let HostParts { task_group, sink, .. } = &self.host.reach;
        timer::start(task_group, sink.clone(), TimerReport { call: self.call, duration: length });
    }

    fn alert(&self, message: &str) {
        if let Some(alert) = &self.alert {
            let alert = AlertReport { message: message.to_owned(), ..alert.clone() };
            self.host.reach.sink.send(Report::now(Body::Alert(alert)));
        }
    }

    fn board(&self) -> Option<&dyn Board> {
        self.host.reach.board.as_deref().map(|board| board as &dyn Board)
    }
}
