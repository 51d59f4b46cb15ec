//! The tokenizer of Phi-4-mini and Phi-4-multimodal against another encoder of the same vocabulary, o200k, which a crate ships.
//!
//! The released `tokenizer.json` is built here from that vocabulary: words cut by the same expression, merges in order of rank,
//! and Phi's special tokens (spec 5).

use std::collections::HashMap;

use outpost_runtime::tokenizer::Tokenizer;
use outpost_tests::root;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use tiktoken_rs::o200k_base_singleton;

/// Tokens that are made by merges.
const ORDINARY: u32 = 199_998;
const WORDS: [&str; 7] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
];
const SPECIALS: [(u32, &str); 14] = [
    (199_999, "<|endoftext|>"),
    (200_010, "<|endoftext10|>"),
    (200_011, "<|endoftext11|>"),
    (200_018, "<|endofprompt|>"),
    (200_019, "<|assistant|>"),
    (200_020, "<|end|>"),
    (200_021, "<|user|>"),
    (200_022, "<|system|>"),
    (200_023, "<|tool|>"),
    (200_024, "<|/tool|>"),
    (200_025, "<|tool_call|>"),
    (200_026, "<|/tool_call|>"),
    (200_027, "<|tool_response|>"),
    (200_028, "<|tag|>"),
];
/// What no declaration of human rights holds.
const ODD: [&str; 24] = [
    "",
    " ",
    "\n\n\r\n \t\u{0}\u{1}\u{7f}\u{85}\u{a0}\u{2028}\u{feff}",
    "HelloWorld's I'M they'LL DON'T l'été d'Artagnan’s ʼs",
    "a/b\n\n//x/\r\n/ path/to/file.rs:12",
    "12345 1234567890 ٣٤٥٦ ⅷ½² 12,345.67 2026-11-24T21:40:00Z",
    "   x\t\ty  \n   z ",
    "👍🏽👩‍👩‍👧‍👦🇩🇪🏴󠁧󠁢󠁥󠁮󠁧󠁿 ☃️ 1️⃣ 🫠🫥🫡",
    "<|end|><|user|>hi<|endoftext10|><|/tool_call|><|endoftext|> <|assistant|>",
    "fn main() { let v: Vec<_> = (0..10).map(|x| x*x).collect(); println!(\"{v:?}\"); }",
    "SELECT * FROM t WHERE a >= 3 AND b != 'x'; -- comment\n\tif (x==1){return;}\r\n",
    "{\"name\": \"set_light\", \"arguments\": {\"room\": \"kitchen\", \"on\": true, \"percent\": 40}}",
    "import numpy as np\n\n\ndef f(x):\n    return x ** 2  # ok\n\n\nclass A(B): pass\n",
    "camelCaseAndPascalCase XMLHttpRequest getURLFor ÉCOLEÉtat ﬁnancier ǅungla",
    "https://example.org/a?b=c&d=%20#e mailto:x@y.z $12.50 50% §3 №5 ©®™",
    "e\u{301}e\u{301} \u{301} n\u{303} ガギ \u{3099}\u{200d}\u{200b}\u{202e}abc",
    "क्षत्रिय தமிழ் བོད་ཡིག ᚠᚢᚦ 𐍈 𝔘𝔫𝔦 ﷽ 𒀀",
    "----====####****~~~~....,,,,!!!!????((((]]]]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                                                   .",
    "日本語とEnglishと한국어가mixed，全角１２３ＡＢＣ。「引用」",
    "שלום عالم \u{200f}12\u{200e} \u{200f}\u{202b}\u{202c}",
    "\u{10ffff}\u{e000}\u{fffd}\u{fffe}",
    "ſ K Å İıIi ß ẞ ʼN ΐ",
];

/// How byte-level BPE writes a byte: printable ones as themselves, the rest from `Ā` on.
fn letters() -> Vec<char> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut other = '\u{100}'..;
    (0..=255)
        .map(|byte| if is_printable(byte) { char::from(byte) } else { other.next().unwrap() })
        .collect()
}

/// The two tokens that a token is merged from: what is left of its bytes when all earlier merges are done.
fn halves<'a>(token: &'a [u8], rank: u32, ranks: &HashMap<Vec<u8>, u32>) -> (&'a [u8], &'a [u8]) {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    while cuts.len() > 3 {
        let merged = |at: &usize| ranks.get(&token[cuts[*at]..cuts[at + 2]]).copied();
        let best = (0..cuts.len() - 2).min_by_key(|at| merged(at).unwrap_or(u32::MAX)).unwrap();
        assert!(merged(&best).unwrap() < rank, "{token:?}");
        cuts.remove(best + 1);
    }
    token.split_at(cuts[1])
}

/// `tokenizer.json` of Phi-4-multimodal.
fn tokenizer_json() -> Value {
    let tokens: Vec<Vec<u8>> =
        (0..ORDINARY).map(|id| o200k_base_singleton().decode_bytes(&[id]).unwrap()).collect();
    let ranks: HashMap<Vec<u8>, u32> = tokens.iter().cloned().zip(0..).collect();
    let letters = letters();
    let written =
        |bytes: &[u8]| bytes.iter().map(|byte| letters[usize::from(*byte)]).collect::<String>();
    let vocab: Map<String, Value> =
        tokens.iter().zip(0..ORDINARY).map(|(token, id)| (written(token), id.into())).collect();
    let long = tokens.iter().zip(0..).filter(|(token, _)| token.len() > 1);
    let merges: Vec<String> = long
        .map(|(token, rank)| halves(token, rank, &ranks))
        .map(|(left, right)| format!("{} {}", written(left), written(right)))
        .collect();
    let added: Vec<Value> = SPECIALS
        .iter()
        .map(|(id, name)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let split = json!({"type": "Split", "pattern": {"Regex": WORDS.join("|")}, "behavior": "Isolated", "invert": false});
    json!({
        "version": "1.0", "added_tokens": added, "decoder": level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges}
    })
}

/// Text of 23 languages whole, cut and mixed, characters at random, and what is odd.
fn texts() -> Vec<String> {
    let path = root().join("tests/fixtures/o200k/declaration.txt");
    let declaration = std::fs::read_to_string(path).unwrap();
    let (languages, lines): (Vec<&str>, Vec<&str>) =
        declaration.lines().partition(|line| line.starts_with("# "));
    assert_eq!(languages.len(), 23);
    let mut texts: Vec<String> = lines.iter().copied().chain(ODD).map(str::to_owned).collect();
    texts.extend(lines.chunks(30).map(|lines| lines.join("\n")));
    texts.extend([include_str!("tokenizer.rs").to_owned(), declaration.clone()]);
    let mut rng = StdRng::seed_from_u64(5);
    for line in &lines {
        let characters: Vec<char> = line.chars().collect();
        for _ in 0..3 {
            let (a, b) =
                (rng.random_range(0..=characters.len()), rng.random_range(0..=characters.len()));
            texts.push(characters[a.min(b)..a.max(b)].iter().collect());
        }
        let other = lines.choose(&mut rng).unwrap();
        texts.push(format!("{}{}{}", line.to_uppercase(), ODD.choose(&mut rng).unwrap(), other));
    }
    for highest in [0x80, 0x250, 0x3000, 0x11_0000] {
        for _ in 0..700 {
            let any = |_| char::from_u32(rng.random_range(0..highest)).unwrap_or(' ');
            let length = 1 + texts.len() % 40;
            texts.push((0..length).map(any).collect());
        }
    }
    texts
}

#[test]
fn ids_are_those_of_o200k_in_every_language() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer_json().to_string()).unwrap();
    let tokenizer = Tokenizer::read(&path).unwrap();
    let reference = o200k_base_singleton();
    for id in 0..ORDINARY {
        let bytes = reference.decode_bytes(&[id]).unwrap();
        // This byte is in no text; the token is never written.
        if bytes != [0xff] {
            assert_eq!(tokenizer.bytes(id), bytes, "{id}");
        }
    }
    let specials = tokenizer.specials();
    let ids = [specials.endoftext, specials.image, specials.audio].map(|token| token.unwrap().id);
    assert_eq!(ids, [199_999, 200_010, 200_011]);
    assert_eq!(specials.tools.unwrap().call.id, 200_025);
    assert_eq!((specials.chat.end.id, tokenizer.len()), (200_020, 200_029));

    let texts = texts();
    println!("{} texts", texts.len());
    assert!(texts.len() > 10_000);
    for text in &texts {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids, reference.encode_ordinary(text), "{text:?}");
        assert_eq!(tokenizer.decode(&ids), *text);
    }
}
