//! Real weights of the decoder's family: SmolLM2-135M-Instruct from its GGUF file, held against llama.cpp on the same file
//! (`fixtures/smollm2/make.py`). `cargo xtask test` fetches the file; without it these tests say so and end.

use std::path::PathBuf;

use outpost_runtime::import::{ImportOptions, Quant, import};
use outpost_runtime::prompt::Prompt;
use outpost_runtime::{Engine, EngineOptions, PrefixCache, Request, Role, Stop, Turn};
use outpost_tests::root;
use serde::Deserialize;

/// How close the two must be.
struct Bounds {
    /// Where llama.cpp's best token led by less than this, in nats, rounding may decide for another.
    lead: f64,
    /// Of the relative difference in perplexity.
    perplexity: f64,
}

/// The same weights in f32 on both sides; llama.cpp keeps keys and values in f16.
const F32: Bounds = Bounds { lead: 0.02, perplexity: 0.002 };
/// This runtime in bf16, llama.cpp in f32: as the file is, it rounds activations to 8 bits, and by that alone answers otherwise.
const BF16: Bounds = Bounds { lead: 0.2, perplexity: 0.01 };

#[derive(Deserialize)]
struct Expected {
    file: String,
    text: String,
    ids: Vec<u32>,
    /// From the same weights written out in f32.
    f32: Recorded,
}

#[derive(Deserialize)]
struct Recorded {
    answers: Vec<Answer>,
    logprobs: Vec<f64>,
}

#[derive(Deserialize)]
struct Answer {
    question: String,
    prompt_tokens: usize,
    tokens: Vec<u32>,
    leads: Vec<f64>,
    text: String,
}

fn expected() -> Expected {
    let path = root().join("tests/fixtures/smollm2/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The engine, if the weights could be fetched.
fn engine(expected: &Expected, quant: Quant) -> Option<Engine> {
    let file: PathBuf = root().join(".outpost/models").join(&expected.file);
    if !file.exists() {
        outpost_tests::skip(&format!("{} is not there", file.display()));
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("packed");
    import(&file, &packed, &ImportOptions { quant }, &mut |_| ()).unwrap();
    let options = EngineOptions { device: outpost_tests::device(), ..EngineOptions::default() };
    Some(Engine::load(&packed, &options).unwrap())
}

#[test]
fn in_f32_it_is_llama_cpp() {
    let expected = expected();
    let Some(engine) = engine(&expected, Quant::F32) else { return };
    check(&engine, &expected, &expected.f32, &F32);
}

#[test]
fn in_bf16_it_differs_from_llama_cpp_by_rounding_only() {
    let expected = expected();
    let Some(engine) = engine(&expected, Quant::Bf16) else { return };
    check(&engine, &expected, &expected.f32, &BF16);
}

fn check(engine: &Engine, expected: &Expected, recorded: &Recorded, bounds: &Bounds) {
    assert_eq!(engine.tokenizer().encode(&expected.text).unwrap(), expected.ids);
    let (found, wanted) = (logprobs(engine, &expected.ids), recorded.logprobs.as_slice());
    let perplexity =
        |logprobs: &[f64]| (-logprobs.iter().sum::<f64>() / logprobs.len() as f64).exp();
    let (found, wanted) = (perplexity(&found), perplexity(wanted));
    eprintln!("perplexity {found:.4}, by llama.cpp {wanted:.4}");
    assert!((found / wanted - 1.0).abs() < bounds.perplexity, "{found} for {wanted}");
    let same =
        recorded.answers.iter().filter(|answer| is_same(engine, answer, bounds.lead)).count();
    eprintln!("{same} of {} answers are the same to the end", recorded.answers.len());
}

/// The log-probability of every id but the first.
fn logprobs(engine: &Engine, ids: &[u32]) -> Vec<f64> {
    let prompt = Prompt { ids: ids.to_vec(), media: Vec::new(), adapter: None, prefix: 0 };
    let logits = engine.logits(&prompt, &Stop::never()).unwrap();
    let logprob = |(at, id): (usize, &u32)| {
        let row = logits.row(at);
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = row.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
        f64::from(row[*id as usize]) - largest - sum.ln()
    };
    ids[1..].iter().enumerate().map(logprob).collect()
}

/// Whether an answer is llama.cpp's to the last token. Where it is not, the first difference must be a close call.
fn is_same(engine: &Engine, answer: &Answer, bound: f64) -> bool {
    let mut request = Request::new(vec![Turn::text(Role::User, &answer.question)]);
    request.max_new_tokens = answer.tokens.len();
    let generation =
        engine.generate(&mut PrefixCache::new(), &request, &Stop::never(), &mut |_| ()).unwrap();
    assert_eq!(generation.usage.prompt_tokens, answer.prompt_tokens, "{}", answer.question);
    if generation.text == answer.text {
        return true;
    }
    // Tokens of a text need not be those that were written, but up to the first difference they are.
    let found = engine.tokenizer().encode(&generation.text).unwrap();
    let at = found.iter().zip(&answer.tokens).take_while(|(a, b)| a == b).count();
    let lead = answer.leads.get(at).copied().unwrap_or(0.0);
    eprintln!("{:?} differs from token {at} on, which led by {lead}", answer.question);
    assert!(lead < bound, "{:?} for {:?}", generation.text, answer.text);
    false
}
