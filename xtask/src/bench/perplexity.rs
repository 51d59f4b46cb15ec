//! What fewer bits cost: the perplexity of SmolLM2-135M in several number formats, on text that nobody trained it to know by heart.

use super::contender::output;
use super::{models, report};
use crate::process;
use anyhow::{Context, Result};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Debian packages, a text in each, and how many bytes of the text to skip: title, contents and licence.
const TEXTS: [(&str, &str, usize); 2] = [
    ("debian-policy", "usr/share/doc/debian-policy/policy.txt.gz", 24 << 10),
    (
        "developers-reference",
        "usr/share/developers-reference/developers-reference.txt.gz",
        24 << 10,
    ),
];
/// Bytes of each text: some 10,000 tokens.
const PART: usize = 47 << 10;
const WINDOW: &str = "512";
/// The reference comes first.
const FORMATS: [&str; 3] = ["bf16", "int8", "int4"];

/// Measures every format and writes the table.
pub(super) fn run(root: &Path, work: &Path, outpost: &Path) -> Result<()> {
    let (file, versions) = text(&work.join("text"))?;
    let weights = models::smollm2_file(root)?;
    let mut reports = Vec::new();
    for format in FORMATS {
        let packed = work.join(format!("smollm2-{format}"));
        models::import(outpost, &weights, &packed, format)?;
        let mut bench = Command::new(outpost);
        bench.args(["bench", "--json", "--window", WINDOW, "--model"]).arg(&packed);
        let printed = output(bench.arg("--perplexity").arg(&file))?;
        println!("{format}: {}", printed.trim());
        reports.push((format, serde_json::from_str(&printed)?));
    }
    let text = table(&versions.join(", "), &reports).context("a report lacks a figure")?;
    println!("\n{text}");
    report::replace(root, "perplexity", &text)
}

fn table(versions: &str, reports: &[(&str, Value)]) -> Option<String> {
    let (_, reference) = reports.first()?;
    let mut table = format!(
        "SmolLM2-135M-Instruct on {} tokens of Debian documentation ({versions}), of which {} are scored.\n\n\
         | number format | perplexity | beside {} |\n| --- | ---: | ---: |\n",
        reference["tokens"], reference["scored"], FORMATS[0]
    );
    let base = reference["perplexity"].as_f64()?;
    for (format, report) in reports {
        let found = report["perplexity"].as_f64()?;
        let more = 100.0 * (found / base - 1.0);
        let more = if *format == FORMATS[0] { String::new() } else { format!("{more:+.2} %") };
        let _ = writeln!(table, "| {format} | {found:.3} | {more} |");
    }
    Some(table.trim_end().to_owned())
}

/// The text, made from the packages where that was not done yet, and the packages' names and versions.
fn text(folder: &Path) -> Result<(PathBuf, Vec<String>)> {
    fs::create_dir_all(folder)?;
    let (mut whole, mut versions) = (String::new(), Vec::new());
    for (name, path, skip) in TEXTS {
        let archive = package(folder, name)?;
        let unpacked = folder.join(name);
        process::run(Command::new("dpkg-deb").arg("--extract").args([&archive, &unpacked]))?;
        let text = output(
            Command::new("gzip").args(["--decompress", "--stdout"]).arg(unpacked.join(path)),
        )?;
        whole += part(&text, skip, PART);
        let version = output(Command::new("dpkg-deb").arg("--field").arg(&archive).arg("Version"))?;
        versions.push(format!("{name} {}", version.trim()));
    }
    let file = folder.join("text.txt");
    fs::write(&file, whole)?;
    Ok((file, versions))
}

/// The Debian package of that name, as a file.
fn package(folder: &Path, name: &str) -> Result<PathBuf> {
    let find = || -> Result<Option<PathBuf>> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_package = path.extension().is_some_and(|end| end == "deb");
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if is_package && stem.starts_with(&format!("{name}_")) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    };
    if let Some(archive) = find()? {
        return Ok(archive);
    }
    process::run(Command::new("apt-get").args(["--quiet", "download", name]).current_dir(folder))
        .with_context(|| {
        format!("{name} cannot be fetched; are the package lists there? (`apt-get update`)")
    })?;
    find()?.with_context(|| format!("apt-get left no package {name}"))
}

/// Some bytes from within a text, cut between lines.
fn part(text: &str, skip: usize, length: usize) -> &str {
    let line = |at: usize| {
        let end = text.as_bytes().get(at..)?.iter().position(|byte| *byte == b'\n')?;
        Some(at + end + 1)
    };
    let start = line(skip).unwrap_or(0);
    &text[start..line(start + length).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_begins_and_ends_with_a_line() {
        let text = "one\ntwo\nthree\nfour\n";
        assert_eq!(part(text, 2, 5), "two\nthree\n");
        assert_eq!(part(text, 100, 5), "one\ntwo\n");
        assert_eq!(part(text, 2, 100), "two\nthree\nfour\n");
        assert_eq!(part("Ä\nÖÖ\nÜ\n", 1, 3), "ÖÖ\n");
    }

    #[test]
    fn formats_stand_beside_the_first() {
        let report =
            |perplexity: f64| json!({"perplexity": perplexity, "tokens": 900, "scored": 800});
        let table = table("a 1", &[("bf16", report(20.0)), ("int4", report(21.0))]).unwrap();
        assert!(table.ends_with("| bf16 | 20.000 |  |\n| int4 | 21.000 | +5.00 % |"), "{table}");
        assert!(table.contains("900 tokens") && table.contains("a 1"));
    }
}
