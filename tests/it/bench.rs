//! `outpost bench` on the bundled model.

use std::path::Path;

use serde_json::Value;

use crate::demo::outpost;

/// What `outpost bench --json` prints with these arguments, and what it says beside it.
fn bench(args: &[&str]) -> (Value, String) {
    let output = outpost().args(["bench", "--json"]).args(args).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    (serde_json::from_slice(&output.stdout).unwrap(), errors)
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.is_finite() && number > 0.0)
}

#[test]
fn speed_is_reported_in_the_documented_shape() {
    let (report, _) = bench(&["--quick", "--threads", "1"]);
    assert_eq!(
        keys(&report),
        ["cpu", "threads", "kernel", "load_seconds", "first_token_seconds", "prefill", "decode"]
    );
    assert!(!report["cpu"].as_str().unwrap().is_empty());
    assert!(!report["kernel"].as_str().unwrap().is_empty());
    assert_eq!(report["threads"], 1);
    assert!(positive(&report["load_seconds"]), "{report}");
    let (load, first) = (&report["load_seconds"], &report["first_token_seconds"]);
    assert!(first.as_f64() > load.as_f64(), "the first token comes after the load: {report}");
    for (list, length) in [("prefill", "tokens"), ("decode", "behind")] {
        let tests = report[list].as_array().unwrap();
        assert_eq!(tests.len(), 1, "{report}");
        assert_eq!(keys(&tests[0]), [length, "per_second"]);
        assert_eq!(tests[0][length], 128);
        assert!(positive(&tests[0]["per_second"]), "{report}");
    }
}

#[test]
fn lengths_are_as_asked_and_what_exceeds_the_context_is_skipped_and_named() {
    let (report, _) = bench(&["--quick", "--prefill", "7,300"]);
    let lengths: Vec<&Value> =
        report["prefill"].as_array().unwrap().iter().map(|test| &test["tokens"]).collect();
    assert_eq!(lengths, [7, 300]);
    assert_eq!(report["decode"], Value::Array(Vec::new()));

    // Beyond the place where long sequences take other rotary factors, and right before it.
    let (report, said) = bench(&["--quick", "--decode", "0,4090,5000,1000000"]);
    let lengths: Vec<&Value> =
        report["decode"].as_array().unwrap().iter().map(|test| &test["behind"]).collect();
    assert_eq!(lengths, [0, 4090, 5000]);
    assert!(said.contains("1000000 skipped") && said.contains("131072"), "{said}");
}

#[test]
fn known_phrases_surprise_a_model_less_than_noise() {
    let dir = tempfile::tempdir().unwrap();
    let perplexity = |name: &str, text: String| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let args = ["--window", "64", "--perplexity"];
        let (report, _) = bench(&[&args[..], &[file.to_str().unwrap()]].concat());
        let count = |key: &str| report[key].as_u64().unwrap();
        assert_eq!(count("scored"), count("tokens") - 32, "{report}");
        report["perplexity"].as_f64().unwrap()
    };
    let known = perplexity("known", "turn on the kitchen light\n".repeat(40));
    let letters = (0..1000_u32).map(|n| char::from(b'a' + (n * n * 31 % 97 % 26) as u8));
    let noise = perplexity("noise", letters.collect());
    assert!(known >= 1.0 && known < noise, "{known} for {noise}");
}

#[test]
fn a_text_that_is_too_short_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file: &Path = &dir.path().join("short.txt");
    std::fs::write(file, "hello").unwrap();
    let output = outpost().args(["bench", "--perplexity"]).arg(file).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(errors.contains("short.txt") && errors.contains("too few"), "{errors}");
}
