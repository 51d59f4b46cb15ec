//! `outpost eval`: how well a model does on a manifest of sounds and pictures with known answers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use outpost_agent_core::config::{Capable, ModelConfig};
use outpost_agent_core::memory::engine_options;
use outpost_agent_core::model_thread::{EngineModel, Model as _};
use outpost_agent_core::prompting;
use outpost_agent_core::toolset::bundled_tools;
use outpost_runtime::media::{read_image, read_wav};
use outpost_runtime::{Generation, Request, Stop, ToolCall, ToolSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::out::out;
use crate::score::{ErrorRate, plain_words};

/// Measure a model on a manifest: exact tool calls, word and character error rates.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON object a line: `{"audio", "expect_call"}`, `{"audio", "task": "transcribe", "expect_text"}` or
    /// `{"image", "task": "ocr", "expect_text"}`. Paths are relative to the manifest.
    #[arg(long)]
    manifest: PathBuf,
    /// A packed model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print each wrong answer on standard error.
    #[arg(long)]
    show_wrong: bool,
}

/// A line of the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    audio: Option<PathBuf>,
    image: Option<PathBuf>,
    text: Option<String>,
    #[serde(default)]
    task: Task,
    /// `null`: no call is expected.
    #[serde(default)]
    expect_call: Expected,
    #[serde(default)]
    expect_text: String,
    /// Names of the tools to offer; none: all.
    tools: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Task {
    #[default]
    Call,
    Transcribe,
    Ocr,
}

/// No call, one, or several.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Expected {
    #[default]
    None,
    One(ExpectedCall),
    Several(Vec<ExpectedCall>),
}

#[derive(Debug, PartialEq, Deserialize)]
struct ExpectedCall {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl Expected {
    fn is(&self, calls: &[ToolCall]) -> bool {
        let expected = match self {
            Self::None => &[][..],
            Self::One(call) => std::slice::from_ref(call),
            Self::Several(calls) => calls,
        };
        let same = |(expected, call): (&ExpectedCall, &ToolCall)| {
            expected.name == call.name && expected.arguments == call.arguments
        };
        expected.len() == calls.len() && expected.iter().zip(calls).all(same)
    }
}

/// The results of one task.
#[derive(Debug, Default)]
struct Tally {
    n: usize,
    exact: usize,
    words: ErrorRate,
    chars: ErrorRate,
}

impl Tally {
    fn exact(&self) -> f64 {
        self.exact as f64 / self.n.max(1) as f64
    }
}

#[derive(Debug, Default)]
struct Tallies {
    call: Tally,
    transcribe: Tally,
    ocr: Tally,
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = ModelConfig::default();
    let lines = read_manifest(&args.manifest)?;
    let folder = args.manifest.parent().unwrap_or(Path::new(""));
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let mut model = EngineModel::load(&dir, &engine_options(&dir, &config)?, Capable::Any)?;
    let tools = bundled_tools();
    let mut tallies = Tallies::default();
    let started = Instant::now();
    for (index, line) in lines.iter().enumerate() {
        let request = line.request(folder, &tools, config.max_new_tokens)?;
        let generation = model.generate(&request, &Stop::never(), &mut |_| ())?;
        let right = tallies.add(line, &generation);
        if args.show_wrong && !right {
            super::say(&format!("line {}: {}", index + 1, line.describe_wrong(&generation)));
        }
        if (index + 1) % 100 == 0 {
            super::say(&format!("{} of {} lines", index + 1, lines.len()));
        }
    }
    tallies.seconds = started.elapsed().as_secs_f64();
    print(&tallies, args.json);
    Ok(ExitCode::SUCCESS)
}

fn read_manifest(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}, line {}", path.display(), index + 1))
    };
    let lines: Vec<Line> = lines.map(parse).collect::<anyhow::Result<_>>()?;
    ensure!(!lines.is_empty(), "{}: the manifest has no lines", path.display());
    Ok(lines)
}

impl Line {
    fn request(
        &self,
        folder: &Path,
        tools: &[ToolSpec],
        max_new_tokens: usize,
    ) -> anyhow::Result<Request> {
        let audio = self.audio.as_ref().map(|path| read_wav(&folder.join(path))).transpose()?;
        let image = self.image.as_ref().map(|path| read_image(&folder.join(path))).transpose()?;
        ensure!(
            audio.is_some() || image.is_some() || self.text.is_some(),
            "a line has neither audio, image nor text"
        );
        Ok(match (self.task, audio, image) {
            (Task::Transcribe, Some(audio), None) => prompting::transcribe(audio, max_new_tokens),
            (Task::Ocr, None, Some(image)) if self.text.is_none() => {
                prompting::read_image(image, max_new_tokens)
            }
            (Task::Call, audio, image) => {
                let offered: Vec<ToolSpec> =
                    tools.iter().filter(|tool| self.offers(&tool.name)).cloned().collect();
                prompting::command(
                    prompting::user(image, audio, self.text.as_deref()),
                    &offered,
                    max_new_tokens,
                )
            }
            (_, audio, image) => prompting::command(
                prompting::user(image, audio, self.text.as_deref()),
                &[],
                max_new_tokens,
            ),
        })
    }

    fn offers(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|names| names.iter().any(|name| name == tool))
    }

    fn describe_wrong(&self, generation: &Generation) -> String {
        let given = &generation.calls;
        let medium = [&self.audio, &self.image].into_iter().flatten().next();
        let medium = medium.map_or_else(String::new, |path| format!("{}: ", path.display()));
        match self.task {
            Task::Call => format!(
                "{medium}expected {:?}, got {given:?} {:?}",
                self.expect_call, generation.text
            ),
            _ => format!("{medium}expected {:?}, got {:?}", self.expect_text, generation.text),
        }
    }
}

impl Tallies {
    /// Counts an answer; whether it was right.
    fn add(&mut self, line: &Line, generation: &Generation) -> bool {
        let given = generation.text.trim();
        let (tally, right) = match line.task {
            Task::Call => (&mut self.call, line.expect_call.is(&generation.calls)),
            Task::Transcribe => {
                let expected = plain_words(&line.expect_text);
                let given = plain_words(given);
                self.transcribe.words.add_words(&expected, &given);
                self.transcribe.chars.add_chars(&expected, &given);
                (&mut self.transcribe, expected == given)
            }
            Task::Ocr => {
                self.ocr.chars.add_chars(line.expect_text.trim(), given);
                (&mut self.ocr, line.expect_text.trim() == given)
            }
        };
        tally.n += 1;
        tally.exact += usize::from(right);
        right
    }
}

fn print(tallies: &Tallies, as_json: bool) {
    let Tallies { call, transcribe, ocr, seconds } = tallies;
    let mut object = Map::new();
    if call.n > 0 {
        object.insert("call".into(), json!({ "n": call.n, "exact": call.exact() }));
    }
    if transcribe.n > 0 {
        let wer = transcribe.words.rate();
        let cer = transcribe.chars.rate();
        object.insert("transcribe".into(), json!({ "n": transcribe.n, "wer": wer, "cer": cer }));
    }
    if ocr.n > 0 {
        object.insert(
            "ocr".into(),
            json!({ "n": ocr.n, "exact": ocr.exact(), "cer": ocr.chars.rate() }),
        );
    }
    object.insert("seconds".into(), json!(seconds));
    if as_json {
        out!("{}", Value::Object(object));
        return;
    }
    for (task, numbers) in
        object.iter().filter_map(|(task, numbers)| Some((task, numbers.as_object()?)))
    {
        let numbers = numbers.iter().map(|(name, value)| match value.as_u64() {
            Some(n) => format!("{name} {n}"),
            None => format!("{name} {:.1} %", 100.0 * value.as_f64().unwrap_or_default()),
        });
        out!("{task:<12}{}", numbers.collect::<Vec<_>>().join("   "));
    }
    out!("{seconds:.1} s");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        serde_json::from_str(text).expect("a line of a manifest")
    }

    fn call(name: &str, arguments: &Value) -> ToolCall {
        ToolCall {
            name: name.into(),
            arguments: arguments.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn a_call_is_exact_when_name_and_all_arguments_are() {
        let line = line(
            r#"{"audio": "a.wav", "expect_call": {"name": "set_volume", "arguments": {"level": 30}}}"#,
        );
        assert!(line.expect_call.is(&[call("set_volume", &json!({"level": 30}))]));
        assert!(!line.expect_call.is(&[call("set_volume", &json!({"level": 40}))]));
        assert!(
            !line.expect_call.is(&[call("set_volume", &json!({"level": 30, "room": "office"}))])
        );
        assert!(!line.expect_call.is(&[]));
    }

    #[test]
    fn null_expects_no_call() {
        let line = line(r#"{"audio": "b.wav", "expect_call": null}"#);
        assert!(line.expect_call.is(&[]));
        assert!(!line.expect_call.is(&[call("read_camera", &json!({}))]));
    }

    #[test]
    fn a_typo_in_a_manifest_is_an_error() {
        assert!(
            serde_json::from_str::<Line>(r#"{"audio": "c.wav", "expected_call": null}"#).is_err()
        );
    }
}
