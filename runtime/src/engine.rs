//! Loads a packed model and answers requests: the only module that knows all stages.

use std::path::Path;
use std::time::Instant;

use crate::answer::Answer;
use crate::audio::{self, AudioEncoder, AudioProjector};
use crate::capabilities::Capabilities;
use crate::config::Config;
use crate::decoder::{Decoder, KvFormat, Logits};
use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::grammar::GrammarCompiler;
use crate::graph::EncoderWeights;
use crate::import::manifest::Manifest;
use crate::merge::merge;
use crate::prefix_cache::{self, Key, PrefixCache};
use crate::prefix_store::Identity;
use crate::prompt::{self, Medium, Placed, Prompt, RowCount};
use crate::request::{Audio, Generation, Image, Request, Stop, Usage};
use crate::session::{Adapter, Session};
use crate::tokenizer::Tokenizer;
use crate::vision::{self, VisionEncoder};
use serde::Deserialize;

/// How to load a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where the decoder runs.
    pub device: DeviceChoice,
    /// Threads of the decoder on a CPU; `None` means all physical cores.
    pub threads: Option<usize>,
    /// Bound on prompt and answer together, in tokens; the model's own bound holds as well.
    pub context: usize,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// Where the encoders' weights are between runs.
    pub encoders: EncoderWeights,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            threads: None,
            context: 8192,
            kv: KvFormat::Bf16,
            encoders: EncoderWeights::Resident,
        }
    }
}

/// A loaded model. Shared and immutable: what changes while it answers lives in a [`Session`] and in the [`PrefixCache`].
#[derive(Debug)]
pub struct Engine {
    config: Config,
    tokenizer: Tokenizer,
    grammar: GrammarCompiler,
    decoder: Decoder,
    audio: Option<AudioEncoder>,
    vision: Option<VisionEncoder>,
    stop_ids: Vec<u32>,
    context: usize,
    /// Names the weights among those of other models.
    identity: String,
    kv: KvFormat,
    capabilities: Capabilities,
}

/// A prompt that is to be computed.
struct Asked<'a> {
    prompt: &'a Prompt,
    keys: &'a [Key],
    adapter: Adapter,
    stop: &'a Stop,
}

/// What this runtime reads of `generation_config.json`.
#[derive(Debug, Deserialize)]
struct GenerationConfig {
    eos_token_id: OneOrMany,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl Engine {
    /// Loads a packed model, as `import` writes it.
    ///
    /// # Errors
    /// When the directory is no packed model, a part is damaged, or the device that is asked for is not there.
    pub fn load(dir: &Path, options: &EngineOptions) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let config = Config::read(&dir.join("config.json"))?;
        let tokenizer = Tokenizer::read(&dir.join("tokenizer.json"))?;
        let hidden = config.decoder.hidden_size;
        Ok(Self {
            grammar: GrammarCompiler::new(&tokenizer)?,
            decoder: Decoder::load(dir, &config, options.device, options.threads)?
                .with_kv(options.kv),
            audio: config
                .audio()
                .map(|audio| AudioEncoder::load(dir, audio, hidden, options.encoders))
                .transpose()?,
            vision: config
                .image()
                .map(|image| VisionEncoder::load(dir, image, hidden, options.encoders))
                .transpose()?,
            stop_ids: stop_ids(dir, &tokenizer)?,
            context: options.context.min(config.decoder.max_position_embeddings),
            identity: manifest.identity(),
            kv: options.kv,
            capabilities: manifest.capabilities.unwrap_or_default(),
            tokenizer,
            config,
        })
    }

    /// Waits for the device. Panics where it can't be used any more, such as a GPU after a fault in one of its kernels: every
    /// later call would fail too.
    pub fn synchronize(&self) {
        self.decoder.synchronize();
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What the model was made for.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Answers a request, passing on the text as it is written.
    ///
    /// # Errors
    /// When the request does not fit the model or the context, a tool's schema cannot be a grammar, or `stop` ends it.
    pub fn generate(
        &self,
        cache: &mut PrefixCache,
        request: &Request,
        stop: &Stop,
        sink: &mut dyn FnMut(&str),
    ) -> Result<Generation> {
        let prompt = prompt::render(request, &self.tokenizer, self)?;
        self.check_context(&prompt)?;
        let grammar = match request.tools.as_slice() {
            [] => None,
            tools => Some(self.grammar.compile(tools)?),
        };
        let max_new_tokens = request.max_new_tokens.min(self.context - prompt.ids.len());
        let mut answer = Answer::new(
            &self.tokenizer,
            &self.stop_ids,
            grammar.as_ref(),
            request.sampling,
            max_new_tokens,
        );
        let mut usage = Usage { prompt_tokens: prompt.ids.len(), ..Usage::default() };

        // Hashing the media once serves both the search for a kept beginning and the keeping.
        let mut keys = prefix_cache::keys(&prompt);
        let adapter = self.adapter(&prompt)?;
        let (mut session, mut logits) = if let Some(ready) = cache.take_ready(adapter, &keys) {
            usage.cached_tokens = prompt.ids.len();
            ready
        } else {
            let begun = cache.resume(adapter, &keys)?;
            let asked = Asked { prompt: &prompt, keys: &keys, adapter, stop };
            self.prefill(&asked, begun, cache, &mut usage)?
        };
        // Logits are on the host by now, and so they are after each step: no time is read before the device is done.
        let started = Instant::now();
        while let Some(tokens) = answer.advance(&logits, sink)? {
            stop.check()?;
            // A grammar that allows few tokens needs few rows of the head.
            let allowed = answer.allowed()?;
            let wanted = allowed.as_deref().map_or(Logits::Last, Logits::Of);
            logits = self.step(&mut session, &tokens, wanted)?;
            keys.extend(tokens.iter().map(|id| Key::from(*id)));
        }
        usage.decode = started.elapsed();
        cache.keep_latest(session.adapter(), keys, session);

        usage.new_tokens = answer.new_tokens;
        usage.forced_tokens = answer.forced_tokens;
        let confidence = answer.confidence;
        let (text, calls, finish) = answer.finish()?;
        Ok(Generation { text, calls, finish, confidence, usage })
    }

    /// Computes the system prefix of a request ahead of time, so that the first answer need not wait for it.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn warm_up(
        &self,
        cache: &mut PrefixCache,
        request: &Request,
        adapter: Adapter,
    ) -> Result<()> {
        let prompt = prompt::render(request, &self.tokenizer, self)?;
        self.check_context(&prompt)?;
        let mut session = Session::new(&self.decoder, adapter, self.context)?;
        if prompt.prefix > 0 {
            let keys = prefix_cache::keys(&prompt);
            self.prefill_prefix(&mut session, &prompt, &keys, cache)?;
        }
        Ok(())
    }

    /// Has a session hold the system prefix of a prompt: from disk if it was computed in an earlier life, else what is missing
    /// of it is computed.
    fn prefill_prefix(
        &self,
        session: &mut Session,
        prompt: &Prompt,
        keys: &[Key],
        cache: &mut PrefixCache,
    ) -> Result<()> {
        let (ids, keys) = (&prompt.ids[..prompt.prefix], &keys[..prompt.prefix]);
        let adapter = session.adapter();
        let identity = Identity { model: &self.identity, kv: self.kv, adapter };
        let stored = if session.is_empty() {
            cache.store().and_then(|store| store.read(identity, keys))
        } else {
            None
        };
        let is_restored = match stored {
            Some(bytes) => session.restore(&self.decoder.embed(ids)?, &bytes)?,
            None => false,
        };
        if !is_restored {
            self.step(session, &ids[session.len()..], Logits::Last)?;
            if let Some(store) = cache.store() {
                store.write(identity, keys, session.fork(ids.len())?);
            }
        }
        cache.keep_prefix(adapter, keys, session)
    }

    /// Computes a request up to its first new token, in case it is asked next: the answer is then the same, and sooner. One request
    /// is kept, until another one is prepared or answered.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    pub fn prepare(&self, cache: &mut PrefixCache, request: &Request, stop: &Stop) -> Result<()> {
        let prompt = prompt::render(request, &self.tokenizer, self)?;
        self.check_context(&prompt)?;
        let (adapter, keys) = (self.adapter(&prompt)?, prefix_cache::keys(&prompt));
        let begun = cache.find(adapter, &keys)?;
        let asked = Asked { prompt: &prompt, keys: &keys, adapter, stop };
        let prefilled = self.prefill(&asked, begun, cache, &mut Usage::default())?;
        cache.keep_ready(adapter, keys, prefilled);
        Ok(())
    }

    /// The prompt as the model sees it.
    ///
    /// # Errors
    /// As [`prompt::render`].
    pub fn render(&self, request: &Request) -> Result<Prompt> {
        prompt::render(request, &self.tokenizer, self)
    }

    /// Token embeddings with the media's features in place, `[tokens, hidden]`.
    ///
    /// # Errors
    /// When a medium cannot be encoded or `stop` ends it.
    pub fn embed(&self, prompt: &Prompt, stop: &Stop) -> Result<Features> {
        self.embed_from(prompt, 0, stop)
    }

    /// The logits at every position of a prompt, `[tokens, vocab]`.
    ///
    /// # Errors
    /// As [`Engine::embed`].
    pub fn logits(&self, prompt: &Prompt, stop: &Stop) -> Result<Features> {
        let mut session = Session::new(&self.decoder, self.adapter(prompt)?, self.context)?;
        let embeds = self.embed_from(prompt, 0, stop)?;
        self.decoder.forward_until(&mut session, &embeds, Logits::All, stop)
    }

    fn check_context(&self, prompt: &Prompt) -> Result<()> {
        let length = prompt.ids.len();
        if length < self.context {
            return Ok(());
        }
        Err(Error::ContextFull { prompt: length, new: 1, limit: self.context })
    }

    /// Runs the prompt from where a session has begun with it, if one has; the logits of its last position.
    fn prefill(
        &self,
        asked: &Asked<'_>,
        begun: Option<Session>,
        cache: &mut PrefixCache,
        usage: &mut Usage,
    ) -> Result<(Session, Vec<f32>)> {
        let &Asked { prompt, keys, adapter, stop } = asked;
        let mut session = match begun {
            Some(session) => session,
            None => Session::new(&self.decoder, adapter, self.context)?,
        };
        usage.cached_tokens = session.len();

        let encoding = Instant::now();
        let start = session.len().max(prompt.prefix);
        let embeds = self.embed_from(prompt, start, stop)?;
        usage.encode = encoding.elapsed();

        let prefilling = Instant::now();
        if session.len() < prompt.prefix {
            self.prefill_prefix(&mut session, prompt, keys, cache)?;
            stop.check()?;
        }
        let logits = self.decoder.forward_until(&mut session, &embeds, Logits::Last, stop)?;
        usage.prefill = prefilling.elapsed();
        Ok((session, logits.data))
    }

    /// Feeds tokens of plain text; the logits behind the last that are wanted.
    fn step(&self, session: &mut Session, ids: &[u32], logits: Logits<'_>) -> Result<Vec<f32>> {
        let embeds = self.decoder.embed(ids)?;
        Ok(self.decoder.forward(session, &embeds, logits)?.data)
    }

    /// The embeddings of the prompt from position `start` on. Media never straddle it: a cached beginning holds a medium whole
    /// or not at all.
    fn embed_from(&self, prompt: &Prompt, start: usize, stop: &Stop) -> Result<Features> {
        let ids = &prompt.ids[start..];
        let mut embeds = self.decoder.embed(ids)?;
        let (specials, adapter) = (self.tokenizer.specials(), self.adapter(prompt)?);
        for (placeholder, is_image) in [(specials.image, true), (specials.audio, false)] {
            let fresh = |placed: &&Placed| {
                placed.start >= start && matches!(placed.medium, Medium::Image(_)) == is_image
            };
            let features: Vec<Features> = prompt
                .media
                .iter()
                .filter(fresh)
                .map(|placed| self.encode(&placed.medium, adapter, stop))
                .collect::<Result<_>>()?;
            if let Some(placeholder) = placeholder
                && !features.is_empty()
            {
                merge(&mut embeds, ids, placeholder.id, &features)?;
            }
        }
        Ok(embeds)
    }

    /// The features of a medium, `[rows, hidden]`. Sound beside a picture has a projector of its own (spec 0).
    fn encode(&self, medium: &Medium, adapter: Adapter, stop: &Stop) -> Result<Features> {
        stop.check()?;
        match medium {
            Medium::Audio(audio) => {
                let projector = if adapter == Adapter::Vision {
                    AudioProjector::Vision
                } else {
                    AudioProjector::Speech
                };
                self.hearing()?.encode(audio, projector, stop)
            }
            Medium::Image(image) => self.sight()?.encode(image, stop),
        }
    }

    /// The adapter of a prompt: vision with any picture, else speech with any sound (spec 0), else the one that is asked for.
    fn adapter(&self, prompt: &Prompt) -> Result<Adapter> {
        let any = |image: bool| {
            prompt.media.iter().any(|placed| matches!(placed.medium, Medium::Image(_)) == image)
        };
        let of_media = match (any(true), any(false)) {
            (true, _) => Adapter::Vision,
            (false, true) => Adapter::Speech,
            (false, false) => Adapter::None,
        };
        let Some(name) = &prompt.adapter else { return Ok(of_media) };
        if of_media != Adapter::None {
            return Err(Error::Request(format!(
                "adapter `{name}` is for text: leave out the media"
            )));
        }
        let names = &self.config.adapters;
        names.keys().position(|known| known == name).map(Adapter::User).ok_or_else(|| {
            let names: Vec<&str> = names.keys().map(String::as_str).collect();
            Error::Request(format!("no adapter `{name}`: the model has {names:?}"))
        })
    }

    fn hearing(&self) -> Result<&AudioEncoder> {
        self.audio
            .as_ref()
            .ok_or_else(|| Error::Request("this model is text-only: it takes no sound".into()))
    }

    fn sight(&self) -> Result<&VisionEncoder> {
        self.vision
            .as_ref()
            .ok_or_else(|| Error::Request("this model is text-only: it takes no picture".into()))
    }
}

impl RowCount for Engine {
    fn audio_rows(&self, audio: &Audio) -> Result<usize> {
        self.hearing()?;
        audio::token_count(audio)
    }

    fn image_rows(&self, image: &Image) -> Result<usize> {
        self.sight()?;
        let Some(config) = self.config.image() else { return Ok(0) };
        vision::token_count(image.width, image.height, config)
    }
}

/// The ids that end an answer: those of `generation_config.json`, and the tokenizer's ends of a turn and of a text (spec 5.5).
fn stop_ids(dir: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let path = dir.join("generation_config.json");
    let specials = tokenizer.specials();
    let mut ids = vec![specials.chat.end.id];
    ids.extend(specials.endoftext.map(|token| token.id));
    if path.exists() {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let config: GenerationConfig =
            serde_json::from_str(&text).map_err(|fault| Error::config(&path, fault.to_string()))?;
        match config.eos_token_id {
            OneOrMany::One(id) => ids.push(id),
            OneOrMany::Many(more) => ids.extend(more),
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

mod bench;
pub use bench::Bench;
