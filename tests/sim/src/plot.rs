//! A report as a page: what was measured in words, and four plots over time.

use std::fmt::Write as _;

use astral_proto::sim::{Point, Report, Spread};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 22.0;
const COLOURS: [&str; 3] = ["#2a6fdb", "#d1495b", "#3a9d5d"];

type Series = (&'static str, fn(&Point) -> f64);

/// The page, with everything in it.
pub fn page(report: &Report) -> String {
    let mut html = String::from(HEAD);
    let verdict = if report.holds() {
        "<b class=good>everything held</b>"
    } else {
        "<b class=bad>something did not hold</b>"
    };
    let _ = write!(
        html,
        "<h1>{}</h1><p>{}</p><p>{} nodes at first, {} in all, {} s, seed {}: {verdict}</p>",
        escape(&report.scenario),
        escape(&report.about),
        report.nodes,
        report.joined,
        report.duration_s,
        report.seed
    );
    html.push_str(&figures(report));
    html.push_str(&judged(report));
    let plots: [(&str, &[Series]); 5] = [
        (
            "Who wants the stream, and to whom it comes",
            &[
                ("wanting", |p| f64::from(p.wanting)),
                ("served", |p| f64::from(p.served)),
            ],
        ),
        (
            "Delay from the source, in ms",
            &[
                ("half of them", |p| p.delay_p50_ms),
                ("99 of 100", |p| p.delay_p99_ms),
            ],
        ),
        (
            "Nodes to whom video came again after a gap, in each second",
            &[("gaps", |p| f64::from(p.gaps))],
        ),
        (
            "Control messages and heartbeats, in bit/s per node",
            &[("control", |p| p.control_bps)],
        ),
        (
            "Depth of the tree, the publisher's copies, supernodes",
            &[
                ("deepest node", |p| f64::from(p.depth_max)),
                ("publisher's copies", |p| f64::from(p.publisher_copies)),
                ("supernodes", |p| f64::from(p.supernodes)),
            ],
        ),
    ];
    for (title, series) in plots {
        html.push_str(&plot(title, series, &report.series));
    }
    html.push_str("</body></html>\n");
    html
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Simulation</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}h2{font-size:1em;margin:1.5em 0 .3em}
.good{color:#2a7d46}.bad{color:#c02b3f}svg{width:100%;height:auto}text{font:11px system-ui,sans-serif;fill:#666}
</style><body>";

fn figures(report: &Report) -> String {
    let row = |name: &str, spread: &Spread| {
        format!(
            "<tr><td>{name}<td>{}<td>{}<td>{}<td>{}",
            spread.p50_ms, spread.p90_ms, spread.p99_ms, spread.max_ms
        )
    };
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    format!(
        "<table><tr><th>in milliseconds<th>half<th>9 of 10<th>99 of 100<th>longest{}{}{}{}</table>\
         <table><tr><td>frames on time, with a second of buffer<td>{}\
         <tr><td>frames lost<td>{}\
         <tr><td>nodes served at the end<td>{}\
         <tr><td>bytes that the publisher did not send<td>{}\
         <tr><td>copies that the publisher sent<td>{:.1}\
         <tr><td>depth, on average and at most<td>{:.1} · {}\
         <tr><td>control, of all bytes<td>{}\
         <tr><td>control, per node<td>{:.0} bit/s\
         <tr><td>video that came twice<td>{}\
         <tr><td>changes of parent, per node and minute<td>{:.2}</table>",
        row("from the wish to a promise", &report.join),
        row("from the wish to the first video", &report.first_video),
        row("delay from the source", &report.delay),
        row("gap when a parent is lost", &report.gap),
        percent(report.on_time),
        report.frames_lost,
        percent(report.served),
        percent(report.offload),
        report.publisher_copies,
        report.depth_mean,
        report.depth_max,
        percent(report.control),
        report.control_bps,
        percent(report.twice),
        report.switches,
    )
}

fn judged(report: &Report) -> String {
    let mut html = String::from("<h2>What was expected</h2><table>");
    for judged in &report.judged {
        let class = if judged.met { "good" } else { "bad" };
        let (figure, must) = (escape(&judged.figure), escape(&judged.must));
        let _ = write!(
            html,
            "<tr><td>{figure} {must}<td class={class}>{:.5}",
            judged.is
        );
    }
    html.push_str("</table>");
    for violation in &report.violations {
        let (check, what) = (escape(&violation.check), escape(&violation.what));
        let (at_s, node) = (violation.at_s, violation.node);
        let _ = write!(
            html,
            "<p class=bad>{at_s:.3} s, node {node}: {check}: {what}"
        );
    }
    html
}

fn plot(title: &str, series: &[Series], points: &[Point]) -> String {
    let last_s = points.last().map_or(1.0, |point| point.at_s).max(1.0);
    let values = series.iter().flat_map(|(_, of)| points.iter().map(of));
    let top = nice(values.fold(1.0, f64::max));
    let x = |at_s: f64| LEFT + at_s / last_s * (WIDTH - LEFT - 8.0);
    let y = |value: f64| 8.0 + (1.0 - value / top) * (HEIGHT - BOTTOM - 8.0);
    let mut svg = format!(
        "<h2>{title}</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{title}'>"
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = write!(
            svg,
            "<path d='M{LEFT} {at:.1}H{WIDTH}' stroke='#e4e4e4'/>\
             <text x='{:.0}' y='{:.1}' text-anchor=end>{value}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for step in 0..=6 {
        let at_s = last_s * f64::from(step) / 6.0;
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{}' text-anchor=middle>{at_s:.0} s</text>",
            x(at_s),
            HEIGHT - 6.0
        );
    }
    for (number, (name, of)) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let line: Vec<String> = points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.at_s), y(of(point))))
            .collect();
        let _ = write!(
            svg,
            "<polyline points='{}' fill=none stroke='{colour}' stroke-width=1.6 />\
             <text x='{}' y='{}' style='fill:{colour}'>{name}</text>",
            line.join(" "),
            LEFT + 8.0 + 150.0 * number as f64,
            18
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The next number of 1, 2, 4, 8 times a power of ten, so that quarters are round.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([nice(1.0), nice(3.0), nice(950.0)], [1.0, 4.0, 1000.0]);
    }
}
