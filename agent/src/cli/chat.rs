//! `outpost chat`: a conversation in the terminal, answers as they are written.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use outpost_agent_core::config::{Capable, Kv, ModelConfig};
use outpost_agent_core::event::Task;
use outpost_agent_core::memory::engine_options;
use outpost_agent_core::shortcomings::check_task;
use outpost_runtime::{Engine, PrefixCache, Request, Role, Sampling, Stop, Turn};

use crate::cli::out::piece;

/// Talk with a model: one line, one answer. An empty line or the end of input ends the conversation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A packed model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// An adapter that was given at import.
    #[arg(long)]
    lora: Option<String>,
    /// What the model is told first.
    #[arg(long)]
    system: Option<String>,
    /// How freely words are chosen; 0 always takes the likeliest.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Seed of the choice.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest answer, in tokens.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// Bound on the whole conversation, in tokens; none: the daemon's default.
    #[arg(long)]
    context: Option<usize>,
    /// What the model is taken to be capable of.
    #[arg(long, value_enum, default_value = "stated")]
    capabilities: Capable,
    /// How keys and values are kept.
    #[arg(long, value_enum, default_value = "bf16")]
    kv: Kv,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let mut config = ModelConfig { kv: args.kv, ..ModelConfig::default() };
    config.context = args.context.unwrap_or(config.context);
    let engine = Engine::load(&dir, &engine_options(&dir, &config)?)?;
    check_task(Task::Chat, &args.capabilities.of(Some(engine.capabilities())))?;
    let mut cache = PrefixCache::new();
    let mut request = Request::new(Vec::new());
    request.max_new_tokens = args.max_tokens;
    request.sampling = args.sampling();
    request.adapter.clone_from(&args.lora);
    request.turns.extend(args.system.as_ref().map(|text| Turn::text(Role::System, text)));
    let stdin = std::io::stdin();
    let by_hand = stdin.is_terminal();
    let mut lines = stdin.lock().lines();
    loop {
        if by_hand {
            piece("> ");
        }
        let line = match lines.next().transpose()? {
            Some(line) if !line.trim().is_empty() => line,
            _ => return Ok(ExitCode::SUCCESS),
        };
        request.turns.push(Turn::text(Role::User, line));
        let generation = engine.generate(&mut cache, &request, &Stop::never(), &mut piece)?;
        piece("\n");
        request.turns.push(Turn::text(Role::Assistant, generation.text));
    }
}

impl Args {
    fn sampling(&self) -> Sampling {
        if self.temperature > 0.0 {
            Sampling::Nucleus { temperature: self.temperature, top_p: 0.95, seed: self.seed }
        } else {
            Sampling::Greedy
        }
    }
}
