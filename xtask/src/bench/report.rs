//! What is written into `docs/performance.md`, between marks.

use super::contender::{Kernels, OUTPOST, Test, cpu_flags};
use anyhow::{Context, Result};
use std::{fmt::Write as _, fs, path::Path};

/// Flags that a reader compares machines by.
const TELLING: [&str; 11] = [
    "avx2", "fma", "f16c", "avx_vnni", "avx512", "amx_", "asimd", "i8mm", "bf16", "sve", "dotprod",
];

/// The plot, as the document shows it.
const PLOT: &str = "![Outpost's speed as a multiple of the best peer's](performance.svg)";

/// A test on a model, with every contender's figure.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) model: &'static str,
    pub(super) test: Test,
    pub(super) cells: Vec<Cell>,
}

/// A contender's figure.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) kernels: Kernels,
    /// `None` where it failed.
    pub(super) median: Option<f64>,
    pub(super) read_per_token: f64,
}

/// Figures of one test on the same instruction set.
#[derive(Debug)]
pub(super) struct Match<'a> {
    pub(super) ours: Option<&'a Cell>,
    pub(super) peers: Vec<&'a Cell>,
}

impl Row {
    pub(super) fn on(&self, kernels: Kernels) -> Match<'_> {
        let (ours, peers): (Vec<_>, Vec<_>) = self
            .cells
            .iter()
            .filter(|cell| cell.kernels == kernels)
            .partition(|cell| cell.name == OUTPOST);
        Match { ours: ours.into_iter().next(), peers }
    }

    /// How many times as good ours is as the best peer.
    pub(super) fn ratio(&self, found: &Match<'_>) -> Option<f64> {
        let ours = found.ours?.median?;
        let ratios = found.peers.iter().filter_map(|peer| peer.median);
        ratios.map(|theirs| self.test.ratio(ours, theirs)).min_by(f64::total_cmp)
    }
}

/// The machine that was measured.
#[derive(Debug)]
pub(super) struct Machine {
    cpu: String,
    flags: String,
    threads: usize,
    /// Bytes a second that all threads read together.
    bandwidth: f64,
}

impl Machine {
    pub(super) fn here(threads: usize, bandwidth: f64) -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = text.lines().find(|line| line.starts_with("model name"));
        let name = name.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
        let telling = |flag: &String| TELLING.iter().any(|part| flag.contains(part));
        let flags: Vec<String> = cpu_flags(&text).into_iter().filter(telling).collect();
        Self {
            cpu: name.unwrap_or("unnamed processor").to_owned(),
            flags: flags.join(" "),
            threads,
            bandwidth,
        }
    }

    fn describe(&self) -> String {
        format!(
            "{}, {} threads, {:.1} GB/s of streaming reads in the same run. Instruction sets: `{}`.",
            self.cpu,
            self.threads,
            self.bandwidth / 1e9,
            self.flags
        )
    }
}

/// The middle of some figures, which are put in order.
pub(super) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.len().saturating_sub(1) / 2, figures.len() / 2);
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(low), at(high))
}

/// Prints the comparison and puts it into the document.
pub(super) fn write_peers(
    root: &Path,
    machine: &Machine,
    peers: &[String],
    kernels: &[Kernels],
    rows: &[Row],
) -> Result<()> {
    let text = format!("{}\n\n{}", machine.describe(), table(machine, peers, kernels, rows));
    println!("\n{text}");
    replace(root, "peers", &format!("{text}\n\n{PLOT}"))
}

fn table(machine: &Machine, peers: &[String], kernels: &[Kernels], rows: &[Row]) -> String {
    let mut table = String::from("| model | test | kernels |");
    for name in peers.iter().map(String::as_str).chain([OUTPOST]) {
        let _ = write!(table, " {name} |");
    }
    table += " ratio | share of the bandwidth: ours, best peer |\n| --- | --- | --- |";
    table += &" ---: |".repeat(peers.len() + 3);
    table.push('\n');
    for row in rows {
        for kernels in kernels {
            let found = row.on(*kernels);
            let figure = |cell: Option<&Cell>| {
                cell.and_then(|cell| cell.median)
                    .map_or("–".into(), |figure| row.test.show(figure))
            };
            let _ = write!(table, "| {} | {} | {} |", row.model, row.test, kernels.title());
            for name in peers {
                let peer = found.peers.iter().copied().find(|peer| peer.name == *name);
                let _ = write!(table, " {} |", figure(peer));
            }
            let ratio = row.ratio(&found).map_or("–".into(), |ratio| format!("{ratio:.2}"));
            let shares = shares(row.test, &found, machine.bandwidth);
            let _ = writeln!(table, " {} | {ratio} | {shares} |", figure(found.ours));
        }
    }
    table.trim_end().to_owned()
}

/// Shares of the bandwidth that decoding behind a short context takes, where keys and values weigh little.
fn shares(test: Test, found: &Match<'_>, bandwidth: f64) -> String {
    if !matches!(test, Test::Decode(..1024)) {
        return String::new();
    }
    let share = |cell: &Cell| Some(100.0 * cell.median? * cell.read_per_token / bandwidth);
    let best = found.peers.iter().filter_map(|peer| share(peer)).max_by(f64::total_cmp);
    let [ours, best] = [found.ours.and_then(share), best]
        .map(|share| share.map_or("–".into(), |share| format!("{share:.0} %")));
    format!("{ours}, {best}")
}

/// Puts a text between the marks of that name.
pub(super) fn replace(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join("docs/performance.md");
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let new = between(&old, name, text)
        .with_context(|| format!("{}: the marks of `{name}` are missing", path.display()))?;
    Ok(fs::write(path, new)?)
}

fn between(document: &str, name: &str, text: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (before, rest) = document.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}\n{text}\n{end}{after}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const KERNELS: [Kernels; 2] =
        [Kernels::Native("AMX"), Kernels::WithoutAmx];

    /// Rows with a peer at 10 and us at 12, and where AMX is missing, us alone.
    pub(in super::super) fn rows() -> Vec<Row> {
        let cell = |name: &str, kernels, median| Cell {
            name: name.into(),
            kernels,
            median,
            read_per_token: 2e9,
        };
        [Test::Prefill(512), Test::Decode(128), Test::FirstToken]
            .map(|test| Row {
                model: "A <model> & \"name\"",
                test,
                cells: vec![
                    cell(OUTPOST, KERNELS[0], Some(12.0)),
                    cell("llama.cpp", KERNELS[0], Some(10.0)),
                    cell(OUTPOST, KERNELS[1], Some(8.0)),
                    cell("llama.cpp", KERNELS[1], None),
                ],
            })
            .into()
    }

    #[test]
    fn the_table_compares_like_with_like() {
        let machine =
            Machine { cpu: "x".into(), flags: String::new(), threads: 2, bandwidth: 30e9 };
        let table = table(&machine, &["llama.cpp".into()], &KERNELS, &rows());
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines.len(), 6, "{table}");
        assert!(lines[0].ends_with("| prefill of 512 | AMX | 10.0 t/s | 12.0 t/s | 1.20 |  |"));
        assert!(lines[1].ends_with("| AVX-512 VNNI | – | 8.0 t/s | – |  |"), "{}", lines[1]);
        assert!(lines[2].ends_with("| 1.20 | 80 %, 67 % |"), "{}", lines[2]);
        assert!(lines[4].ends_with("| 10.00 s | 12.00 s | 0.83 |  |"), "{}", lines[4]);
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let document = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let new = between(document, "x", "new").unwrap();
        assert_eq!(new, "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n");
        assert_eq!(between(&new, "x", "new"), Some(new.clone()));
        assert_eq!(between(document, "y", "new"), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&mut [9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&mut [4.0, 1.0]) - 2.5).abs() < 1e-9);
    }
}
