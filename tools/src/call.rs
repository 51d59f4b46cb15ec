//! The carrying out of a call that may be: in time, tried again where that helps and does no harm, and once for each permit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::tool::{Callable, Context, Definition, ErrorKind, ToolError, ToolOutcome};

/// The pause before a call is tried again; twice as long before each further time.
const PAUSE: Duration = Duration::from_millis(200);

/// How much longer than its deadline a call may run: so that one which keeps it can say what became of it.
const GRACE: Duration = Duration::from_millis(50);

/// A call that the rules do not refuse.
#[derive(Debug)]
pub enum Judged {
    /// It may be carried out.
    Allowed(Permit),
    /// It may be once a person agrees.
    Unconfirmed(Unconfirmed),
}

/// A call that waits for a person's yes.
#[derive(Debug)]
pub struct Unconfirmed(pub(crate) Permit);

impl Unconfirmed {
    /// A person said yes to it.
    pub fn confirmed(self) -> Permit {
        self.0
    }
}

/// The right to carry out one call once.
pub struct Permit {
    pub(crate) definition: Definition,
    pub(crate) tool: Arc<dyn Callable>,
    pub(crate) arguments: Value,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("tool", &self.definition.spec.name).finish_non_exhaustive()
    }
}

/// How long and how often a call is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// An attempt that takes longer has failed, unless the tool has a limit of its own.
    pub limit: Duration,
    /// Further attempts at most, of a tool that may be called twice.
    pub retries: u32,
}

impl RetryPolicy {
    /// A single attempt.
    pub fn once(limit: Duration) -> Self {
        Self { limit, retries: 0 }
    }
}

impl Permit {
    /// What is known of the tool.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Carries out the call.
    ///
    /// # Errors
    /// [`ToolError`] of the last attempt.
    pub async fn carry_out(
        self,
        context: &Context,
        retry: RetryPolicy,
    ) -> Result<ToolOutcome, ToolError> {
        let Definition { idempotent, limit, .. } = self.definition;
        let limit = limit.unwrap_or(retry.limit);
        let retries = if idempotent { retry.retries } else { 0 };
        let mut pause = PAUSE;
        for _ in 0..retries {
            match self.attempt(context, limit).await {
                Err(error) if error.kind.may_pass() => {}
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.attempt(context, limit).await
    }

    async fn attempt(&self, context: &Context, limit: Duration) -> Result<ToolOutcome, ToolError> {
        let context = Context { deadline: Instant::now() + limit, ..context.clone() };
        let call = self.tool.call(self.arguments.clone(), &context);
        tokio::time::timeout(limit + GRACE, call).await.unwrap_or_else(|_| {
            let text = format!("{} took longer than {limit:?}", self.definition.spec.name);
            Err(ToolError::new(ErrorKind::Timeout, text))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use serde_json::{Map, json};

    use super::*;
    use crate::confirm::Confirm;
    use crate::policy::{Origin, PolicyRules, ToolRule};
    use crate::registry::Registry;
    use crate::testing::context;
    use crate::tool::{BoxFuture, Class, Source, Spec};

    /// Fails in these ways, one after the other; none: it never ends. Then it works.
    #[derive(Debug, Clone, Default)]
    struct Fickle(Arc<Mutex<VecDeque<Option<ErrorKind>>>>);

    impl Callable for Fickle {
        fn call<'a>(
            &'a self,
            _arguments: Value,
            _context: &'a Context,
        ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
            let next = self.0.lock().unwrap().pop_front();
            Box::pin(async move {
                match next {
                    None => Ok(ToolOutcome::done()),
                    Some(None) => std::future::pending().await,
                    Some(Some(kind)) => Err(ToolError::new(kind, "not now")),
                }
            })
        }
    }

    fn registry(tool: Fickle, idempotent: bool, rule: ToolRule) -> Registry {
        let rules =
            PolicyRules { tools: [("fickle".to_owned(), rule)].into(), ..PolicyRules::default() };
        let registry = Registry::new(rules);
        let spec = Spec {
            name: "fickle".into(),
            description: "Fails.".into(),
            schema: json!({"type": "object"}),
        };
        let (class, source) = (Class::Open, Source::Own);
        let (confirm, full, limit) = (Confirm::Never, None, None);
        let definition = Definition { spec, full, class, confirm, idempotent, limit, source };
        registry.add_defined(definition, tool).unwrap();
        registry
    }

    async fn tried(
        failures: &[Option<ErrorKind>],
        idempotent: bool,
        retries: u32,
    ) -> (Result<ToolOutcome, ErrorKind>, usize) {
        let tool = Fickle::default();
        tool.0.lock().unwrap().extend(failures.iter().copied());
        let registry = registry(tool.clone(), idempotent, ToolRule::default());
        let judged =
            registry.judge("fickle", Map::new(), Origin::Voice, ("1", crate::Moment::now()));
        let Ok(Judged::Allowed(permit)) = judged else { panic!("{judged:?}") };
        let retry = RetryPolicy { limit: Duration::from_secs(1), retries };
        let outcome = permit.carry_out(&context("1"), retry).await.map_err(|error| error.kind);
        let tried = failures.len() - tool.0.lock().unwrap().len();
        (outcome, tried)
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_be_done_twice_and_may_pass_is_tried_again() {
        use ErrorKind::{Failed, Timeout, Unacknowledged, Unavailable};
        let done = Ok(ToolOutcome::done());
        assert_eq!(tried(&[Some(Unavailable), None], true, 2).await, (done.clone(), 2));
        assert_eq!(tried(&[None, None, None], true, 2).await, (Err(Timeout), 3));
        assert_eq!(tried(&[None, None], false, 2).await, (Err(Timeout), 1));
        assert_eq!(tried(&[Some(Failed), None], true, 2).await, (Err(Failed), 1));
        assert_eq!(tried(&[Some(Unacknowledged), None], true, 2).await, (Err(Unacknowledged), 1));
        assert_eq!(tried(&[Some(Unavailable), None], true, 0).await, (Err(Unavailable), 1));
    }

    #[tokio::test]
    async fn a_call_that_needs_a_yes_is_not_carried_out_without_one() {
        let tool = Fickle::default();
        tool.0.lock().unwrap().push_back(Some(ErrorKind::Failed));
        let rule = ToolRule { confirm: Some(Confirm::Always), ..ToolRule::default() };
        let registry = registry(tool.clone(), true, rule);
        let limit = Duration::from_secs(1);
        let refused = registry
            .call("fickle", Map::new(), Origin::Voice, &context("1"), limit)
            .await
            .unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Refused);
        assert_eq!(tool.0.lock().unwrap().len(), 1, "it was called");
    }

    #[test]
    fn what_nobody_may_call_is_not_offered() {
        let rule = ToolRule { class: Some(Class::Forbidden), ..ToolRule::default() };
        let registry = registry(Fickle::default(), true, rule);
        assert!(registry.specs().is_empty() && registry.knows("fickle"));
        let judged = registry.judge("fickle", Map::new(), Origin::Ask, ("1", crate::Moment::now()));
        assert_eq!(judged.unwrap_err().kind, ErrorKind::Refused);
        assert!(registry.rules_without_tool().is_empty());
        registry.remove("fickle");
        assert_eq!(registry.rules_without_tool(), ["fickle"]);
    }
}
