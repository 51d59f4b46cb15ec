//! Tools for tests: what they do is a closure.

use std::fmt;
use std::sync::Arc;

use outpost_tools::tool::BoxFuture;
use outpost_tools::{
    AddError, Callable, Class, Confirm, Context, Definition, Registry, Source, Spec, ToolError,
    ToolOutcome,
};
use serde_json::{Value, json};

type Done = BoxFuture<'static, Result<ToolOutcome, ToolError>>;

/// A tool that takes any arguments.
#[derive(Clone)]
pub struct TestTool(Arc<dyn Fn(Value) -> Done + Send + Sync>);

impl fmt::Debug for TestTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestTool").finish_non_exhaustive()
    }
}

impl TestTool {
    /// A tool that does this.
    pub fn new<F>(act: impl Fn(Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ToolOutcome, ToolError>> + Send + 'static,
    {
        Self(Arc::new(move |arguments| Box::pin(act(arguments))))
    }

    /// Adds it.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn add_to(
        self,
        registry: &Registry,
        name: &str,
        (class, idempotent): (Class, bool),
    ) -> Result<(), AddError> {
        let description = format!("Does {name}.");
        let spec = Spec { name: name.into(), description, schema: json!({"type": "object"}) };
        let (full, limit) = (None, None);
        let (confirm, source) = (Confirm::Never, Source::Own);
        let definition = Definition { spec, full, class, confirm, idempotent, limit, source };
        registry.add_defined(definition, self)
    }
}

impl Callable for TestTool {
    fn call<'a>(
        &'a self,
        arguments: Value,
        _context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        (self.0)(arguments)
    }
}
