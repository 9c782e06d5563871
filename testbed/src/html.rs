//! A report as one HTML file that needs nothing else.

use crate::report::Report;
use std::fmt::Write as _;

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (second, value).
    pub points: Vec<(f64, f64)>,
}

/// Something that happened at a moment of a chart.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When, on the chart's clock.
    pub second: f64,
    /// What.
    pub text: String,
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--back:#fff;--one:#0b5cad;--two:#b3420a;--good:#1a7f37;--bad:#cf222e}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--back:#0d1117;--one:#58a6ff;--two:#f0883e;--good:#3fb950;--bad:#f85149}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.number{text-align:right;font-variant-numeric:tabular-nums}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}.soft{color:var(--soft)}
pre{overflow-x:auto;font:13px/1.3 monospace}svg{width:100%;height:auto}svg text{fill:var(--soft);font:12px system-ui,sans-serif}.grid{stroke:var(--line)}
.mark{stroke:var(--soft);stroke-dasharray:4 3}.s0{stroke:var(--one)}.s1{stroke:var(--two)}.f0{fill:var(--one)}.f1{fill:var(--two)}
";

/// A table of its own.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
}

/// What a page shows beside the report's checks and figures.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Title.
    pub title: String,
    /// When it was, for people.
    pub when: String,
    /// The topology, drawn with characters.
    pub picture: String,
    /// Lines of the chart, in Mbit/s.
    pub series: Vec<Series>,
    /// Marks in the chart.
    pub marks: Vec<Mark>,
    /// Tables before the checks.
    pub tables: Vec<Table>,
}

/// The whole page.
#[must_use]
pub fn page(page: &Page, report: &Report) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(&page.title)
    );
    let machine = report.machine();
    let failed = report.checks().iter().filter(|check| !check.passed).count();
    let _ = writeln!(
        text,
        "<p class=\"{}\">{} of {} checks passed</p>\n<p class=\"soft\">{}<br>{}, {} cores, Linux {}</p>",
        if report.passed() { "good" } else { "bad" },
        report.checks().len() - failed,
        report.checks().len(),
        escape(&page.when),
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel)
    );
    if page.series.iter().any(|series| series.points.len() > 1) {
        let _ =
            writeln!(text, "<h2>Throughput over time (Mbit/s)</h2>\n{}", chart(&page.series, &page.marks));
    }
    for table in &page.tables {
        let row = |cells: &[String], tag: &str| -> String {
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
        };
        let _ =
            writeln!(text, "<h2>{}</h2>\n<table><tr>{}</tr>", escape(&table.title), row(&table.head, "th"));
        for cells in &table.rows {
            let _ = writeln!(text, "<tr>{}</tr>", row(cells, "td"));
        }
        text.push_str("</table>\n");
    }
    if !page.picture.is_empty() {
        let _ = writeln!(text, "<h2>Topology</h2>\n<pre>{}</pre>", escape(&page.picture));
    }
    text.push_str("<h2>Checks</h2>\n<table><tr><th></th><th>Check</th><th>Seen</th></tr>\n");
    for check in report.checks() {
        let (class, word) = if check.passed { ("good", "ok") } else { ("bad", "failed") };
        let _ = writeln!(
            text,
            "<tr><td class=\"{class}\">{word}</td><td>{}</td><td class=\"soft\">{}</td></tr>",
            escape(&check.name),
            escape(&check.seen)
        );
    }
    text.push_str("</table>\n<h2>Figures</h2>\n<table>\n");
    for (name, value) in report.figures() {
        let _ = writeln!(text, "<tr><td>{}</td><td class=\"number\">{value:.2}</td></tr>", escape(name));
    }
    text.push_str("</table>\n</body></html>\n");
    text
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 290.0;

fn chart(series: &[Series], marks: &[Mark]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let seconds = points().map(|(second, _)| *second).fold(1.0, f64::max);
    let top = step(points().map(|(_, value)| *value).fold(1.0, f64::max) * 1.1);
    let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - 10.0);
    let y = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"throughput over time\">");
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - 10.0,
            y(value),
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    let mut second = 0.0;
    while second <= seconds {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second:.0} s</text>",
            x(second),
            BOTTOM + 18.0
        );
        second += step(seconds / 10.0).max(1.0);
    }
    for (index, mark) in marks.iter().enumerate() {
        // Neighbouring labels stand on two rows, so that they do not overlap.
        let row = if index % 2 == 0 { TOP - 22.0 } else { TOP - 6.0 };
        let at = x(mark.second);
        let anchor = if at > WIDTH * 0.85 { "end" } else { "start" };
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{row:.1}\" y2=\"{BOTTOM}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at + 3.0,
            row,
            escape(&mark.text)
        );
    }
    for (index, series) in series.iter().enumerate() {
        let path: Vec<String> = series
            .points
            .iter()
            .map(|(second, value)| format!("{:.1},{:.1}", x(*second), y(*value)))
            .collect();
        let class = index % 2;
        let left = LEFT + 180.0 * f64::from(u32::try_from(index).unwrap_or(0));
        let _ = write!(
            svg,
            "<polyline class=\"s{class}\" fill=\"none\" stroke-width=\"1.5\" points=\"{}\"/><rect class=\"f{class}\" x=\"{left:.1}\" y=\"6\" width=\"10\" height=\"10\"/><text x=\"{:.1}\" y=\"15\">{}</text>",
            path.join(" "),
            left + 15.0,
            escape(&series.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The next of 1, 2, 5, 10, 20, ... that is not below a value.
fn step(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= value)
        .unwrap_or(10.0 * power)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else_and_escapes_what_it_shows() {
        let mut report = Report::new("r");
        report.check("a <b> & c", false, "\"x\"");
        report.figure("outage_ms", 1.25);
        let series = [Series { name: "s".to_owned(), points: vec![(0.0, 1.0), (1.0, 90.0)] }];
        let marks = [Mark { second: 0.5, text: "killed".to_owned() }];
        let tables = vec![Table {
            title: "outages".to_owned(),
            head: vec!["what".to_owned()],
            rows: vec![vec!["12 < 13 ms".to_owned()]],
        }];
        let page = page(
            &Page {
                title: "t".to_owned(),
                when: "today".to_owned(),
                picture: "a -- b".to_owned(),
                series: series.to_vec(),
                marks: marks.to_vec(),
                tables,
            },
            &report,
        );
        assert!(page.contains("a &lt;b&gt; &amp; c") && page.contains("&quot;x&quot;"));
        assert!(page.contains("<polyline") && page.contains("killed") && page.contains("outage_ms"));
        assert!(page.contains("<td>12 &lt; 13 ms</td>") && page.contains("<pre>a -- b</pre>"));
        assert!(!page.contains("http") && !page.contains("src="), "a reference to something else");
    }

    #[test]
    fn axis_steps_are_round_and_not_below_the_value() {
        for (value, wanted) in
            [(0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (33.0, 50.0), (51.0, 100.0), (940.0, 1000.0)]
        {
            assert!((step(value) - wanted).abs() < 1e-9, "{value}: {}", step(value));
        }
    }
}
