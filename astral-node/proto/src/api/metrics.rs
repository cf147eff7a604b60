//! Metrics in the format that who scrapes them reads.
//!
//! What programs write is OpenMetrics 1.0. Whoever does not ask for that gets the older
//! text format 0.0.4 of Prometheus, which every tool reads.

/// Content type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics as it is to be answered to a request with this `Accept`, and its content
/// type.
pub fn answer(open: String, accept: Option<&str>) -> (&'static str, String) {
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        (OPEN_METRICS, open)
    } else {
        (TEXT, plain(&open))
    }
}

/// The text format: samples are the same; a family of counters has its samples' name, an
/// info is a gauge, and there are neither units nor an end.
fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        let (tag, rest) = match line.strip_prefix("# ") {
            Some(words) => words.split_once(' ').unwrap_or((words, "")),
            None => ("", line),
        };
        match tag {
            "" => out.extend([line, "\n"]),
            "HELP" => help = rest.split_once(' '),
            "TYPE" => {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
                let (end, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                    out.extend(["# HELP ", name, end, " ", words, "\n"]);
                }
                out.extend(["# TYPE ", name, end, " ", kind, "\n"]);
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "\
# HELP astral_build Which program.
# TYPE astral_build info
astral_build_info{version=\"1\"} 1
# HELP astral_peers Nodes that are connected.
# TYPE astral_peers gauge
astral_peers 3
# HELP astral_upload_bytes What was sent.
# TYPE astral_upload_bytes counter
# UNIT astral_upload_bytes bytes
astral_upload_bytes_total 7
# EOF
";

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_text_format() {
        let wanted = "\
# HELP astral_build_info Which program.
# TYPE astral_build_info gauge
astral_build_info{version=\"1\"} 1
# HELP astral_peers Nodes that are connected.
# TYPE astral_peers gauge
astral_peers 3
# HELP astral_upload_bytes_total What was sent.
# TYPE astral_upload_bytes_total counter
astral_upload_bytes_total 7
";
        for accept in [None, Some("*/*"), Some("text/plain")] {
            assert_eq!(answer(OPEN.to_owned(), accept), (TEXT, wanted.to_owned()));
        }
    }

    #[test]
    fn prometheus_itself_asks_for_openmetrics() {
        let accept =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
        let answered = answer(OPEN.to_owned(), Some(accept));
        assert_eq!(answered, (OPEN_METRICS, OPEN.to_owned()));
    }
}
