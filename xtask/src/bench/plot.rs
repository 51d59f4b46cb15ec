//! The plot: how many times as fast as the best peer, a bar for each test.

use super::contender::Kernels;
use super::report::Row;
use std::fmt::Write as _;

const WIDTH: f64 = 820.0;
/// Left of the bars, for the tests' names.
const LABELS: f64 = 270.0;
/// Right of the longest bar, for its figures.
const FIGURES: f64 = 190.0;
const TOP: f64 = 64.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
/// Above the first bar of a model.
const HEADING: f64 = 30.0;
const TITLE: &str = "Outpost beside the best peer on the same instruction set";
const AXIS: &str = "times as fast (1 = the peer; to the right is better)";

/// Colours that stand out against white and black alike; text follows the reader's theme.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}\
.title{font-size:16px;font-weight:600}.model{font-weight:600}.axis{fill:#6e7781}\
.ahead{fill:#2da44e}.behind{fill:#d4772c}.line{stroke:#8c959f;stroke-width:1}\
.peer{stroke:#6e7781;stroke-width:2;stroke-dasharray:4 3}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{fill:#9198a1}}";

struct Bar<'a> {
    model: &'a str,
    label: String,
    ratio: f64,
    figures: String,
}

/// The comparison as SVG.
pub(super) fn draw(kernels: &[Kernels], rows: &[Row]) -> String {
    let bars: Vec<Bar<'_>> = rows
        .iter()
        .flat_map(|row| kernels.iter().filter_map(move |kernels| bar(row, *kernels)))
        .collect();
    let longest = bars.iter().map(|bar| bar.ratio).fold(1.0, f64::max).ceil();
    let x = |ratio: f64| LABELS + ratio / longest * (WIDTH - LABELS - FIGURES);
    let mut body = String::new();
    let mut y = TOP;
    let mut model = "";
    for bar in &bars {
        if bar.model != model {
            model = bar.model;
            y += HEADING;
            let _ = writeln!(
                body,
                r#"<text class="model" x="16" y="{:.0}">{}</text>"#,
                y - 8.0,
                escape(model)
            );
        }
        let middle = y + 0.75 * BAR;
        let side = if bar.ratio < 1.0 { "behind" } else { "ahead" };
        let _ = writeln!(
            body,
            r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{}</text>
<rect class="{side}" x="{LABELS:.0}" y="{y:.0}" width="{:.1}" height="{BAR:.0}" rx="2"/>
<text x="{:.1}" y="{middle:.0}">{:.2} <tspan class="axis">{}</tspan></text>"#,
            LABELS - 10.0,
            escape(&bar.label),
            x(bar.ratio) - LABELS,
            x(bar.ratio.max(1.0)) + 6.0,
            bar.ratio,
            escape(&bar.figures)
        );
        y += STEP;
    }
    let frame = axis(longest, y, &x);
    let height = y + 56.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{TITLE}\">\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"16\" y=\"30\">{TITLE}</text>\n{frame}{body}</svg>\n"
    )
}

fn bar(row: &Row, kernels: Kernels) -> Option<Bar<'_>> {
    let found = row.on(kernels);
    let ratio = row.ratio(&found)?;
    let ours = found.ours?.median?;
    let best = found.peers.iter().filter_map(|peer| peer.median);
    // The peer that the ratio is of.
    let best = best.min_by(|a, b| row.test.ratio(ours, *a).total_cmp(&row.test.ratio(ours, *b)))?;
    Some(Bar {
        model: row.model,
        label: format!("{}, {}", row.test, kernels.title()),
        ratio,
        figures: format!("{}, peer {}", row.test.show(ours), row.test.show(best)),
    })
}

/// The axis below the bars, and the line at which the peer stands.
fn axis(longest: f64, bottom: f64, x: &dyn Fn(f64) -> f64) -> String {
    let mut axis = format!(
        "<line class=\"line\" x1=\"{LABELS:.0}\" y1=\"{bottom:.0}\" x2=\"{:.1}\" y2=\"{bottom:.0}\"/>\n\
         <line class=\"peer\" x1=\"{:.1}\" y1=\"{TOP:.0}\" x2=\"{:.1}\" y2=\"{bottom:.0}\"/>\n",
        x(longest),
        x(1.0),
        x(1.0)
    );
    // A whole number of steps, and no more labels than fit.
    let step = (longest / 6.0).ceil().max(1.0);
    let mut tick = 0.0;
    while tick <= longest {
        let _ = writeln!(
            axis,
            r#"<text class="axis" x="{:.1}" y="{:.0}" text-anchor="middle">{tick:.0}</text>"#,
            x(tick),
            bottom + 18.0
        );
        tick += step;
    }
    let _ = writeln!(
        axis,
        r#"<text class="axis" x="{:.1}" y="{:.0}" text-anchor="middle">{AXIS}</text>"#,
        x(longest / 2.0),
        bottom + 40.0
    );
    axis
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{KERNELS, rows};
    use super::*;

    #[test]
    fn there_is_a_bar_for_each_comparison_and_none_without_a_peer() {
        let svg = draw(&KERNELS, &rows());
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert_eq!(svg.matches("class=\"ahead\"").count(), 2);
        assert_eq!(svg.matches("class=\"model\"").count(), 1);
        assert!(svg.contains("12.0 t/s, peer 10.0 t/s") && svg.contains("12.00 s, peer 10.00 s"));
        assert!(svg.contains("A &lt;model&gt; &amp; &quot;name&quot;") && !svg.contains("NaN"));
        for tag in ["svg", "text", "style", "tspan"] {
            let opened = svg.matches(&format!("<{tag}")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn nothing_measured_is_an_empty_plot() {
        assert!(!draw(&KERNELS, &[]).contains("NaN"));
    }
}
