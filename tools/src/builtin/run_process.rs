//! `run_process`, for the programs that the configuration names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::confirm::Confirm;
use crate::fault::{ClassName, Faults};
use crate::process::{Bounds, Program};
use crate::tool::{
    BoxFuture, Callable, Context, Definition, ErrorKind, Source, Spec, ToolError, ToolOutcome,
};

/// An argument longer than this is refused, characters.
const MAX_ARGUMENT: usize = 1000;

/// `[tools.process]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Programs by the name that the model calls them by, each with its arguments, in which `{name}` is a place for one.
    pub commands: BTreeMap<String, Vec<String>>,
    /// A program that runs longer is killed.
    pub timeout_seconds: f64,
    /// What it writes beyond is dropped.
    pub max_kib: usize,
    /// The working directory.
    pub folder: PathBuf,
    /// The environment, beside `PATH` and `LANG`.
    pub environment: BTreeMap<String, String>,
    /// Who may call it.
    pub class: ClassName,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            commands: BTreeMap::new(),
            timeout_seconds: 10.0,
            max_kib: 16,
            folder: "/".into(),
            environment: BTreeMap::new(),
            class: ClassName::Guarded,
        }
    }
}

impl ProcessConfig {
    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        if self.commands.is_empty() {
            faults.add("tools.process.commands", "{}", "name the programs that may be run");
        }
        let fits = (0.1..=600.0).contains(&self.timeout_seconds);
        let key = "tools.process.timeout_seconds";
        faults.require(fits, key, self.timeout_seconds, "use a value from 0.1 to 600");
        let fits = (1..=256).contains(&self.max_kib);
        faults.require(fits, "tools.process.max_kib", self.max_kib, "use a value from 1 to 256");
        self.programs(faults);
    }

    fn limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_seconds).unwrap_or_default()
    }

    fn programs(&self, faults: &mut Faults) -> BTreeMap<String, Program> {
        let bounds = Bounds {
            time: self.limit(),
            output: self.max_kib * 1024,
            folder: self.folder.clone(),
            environment: self.environment.clone(),
        };
        let program = |(name, argv): (&String, &Vec<String>)| {
            let key = format!("tools.process.commands.{name}");
            (name.clone(), Program::new(argv, bounds.clone(), &key, faults))
        };
        self.commands.iter().map(program).collect()
    }
}

/// The tool.
#[derive(Debug)]
pub struct RunProcess(BTreeMap<String, Program>);

impl RunProcess {
    /// The tool with its definition.
    pub fn new(config: &ProcessConfig) -> (Definition, Self) {
        let programs = config.programs(&mut Faults::default());
        let names: Vec<&String> = programs.keys().collect();
        let places: BTreeSet<&str> = programs.values().flat_map(Program::arguments).collect();
        let place = |name: &&str| {
            ((*name).to_owned(), json!({"type": "string", "maxLength": MAX_ARGUMENT}))
        };
        let places: Map<String, Value> = places.iter().map(place).collect();
        let mut properties = json!({
            "command": {"type": "string", "enum": names, "description": "Which program"}
        });
        if !places.is_empty() {
            properties["arguments"] =
                json!({"type": "object", "properties": places, "additionalProperties": false});
        }
        let schema = json!({"type": "object", "properties": properties, "required": ["command"],
            "additionalProperties": false});
        let description = "Run one of the programs of this machine.".into();
        let definition = Definition {
            spec: Spec { name: "run_process".into(), description, schema },
            full: None,
            class: config.class.into(),
            confirm: Confirm::Never,
            idempotent: false,
            // The program's own limit says more when it passes.
            limit: Some(config.limit() + Duration::from_secs(1)),
            source: Source::Own,
        };
        (definition, Self(programs))
    }
}

impl Callable for RunProcess {
    fn call<'a>(
        &'a self,
        arguments: Value,
        _context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        Box::pin(async move {
            let name = arguments["command"].as_str().unwrap_or_default();
            let invalid = |text: String| ToolError::new(ErrorKind::Invalid, text);
            let program =
                self.0.get(name).ok_or_else(|| invalid(format!("no program {name:?}")))?;
            let given = arguments["arguments"].as_object().cloned().unwrap_or_default();
            if let Some(missing) = program.arguments().find(|name| !given.contains_key(*name)) {
                return Err(invalid(format!("{name} needs the argument {missing}")));
            }
            program.run(&given).await
        })
    }
}
