//! What `top` shows: as many lines as the terminal has, the most telling ones.

use astral_proto::api::Node;

use super::Look;
use crate::format::rate;
use crate::health;
use crate::tables::{self, Rows};
use crate::term::Style;

/// Lines above the tables: two of the node, one for trouble or warnings, one empty.
const HEAD: usize = 4;
/// Lines that a table takes besides its rows: title, header, an empty one.
const FRAME: usize = 3;
/// Width of the bar of upload.
const BAR: usize = 20;

/// All lines, at most `height`.
pub(super) fn lines(
    look: &Look,
    trouble: Option<&str>,
    width: usize,
    height: usize,
) -> Vec<String> {
    let node = &look.node;
    let tables = [
        ("streams", tables::streams(&look.streams, node.uuid)),
        ("tickets", tables::tickets(&look.tickets)),
        ("nodes", tables::nodes(&look.nodes)),
    ];
    let mut lines = head(look, trouble, width);
    let needs: Vec<usize> = tables
        .iter()
        .map(|(_, rows)| rows.lines.len().max(1))
        .collect();
    let room = height.saturating_sub(HEAD + FRAME * tables.len());
    for ((title, rows), share) in tables.iter().zip(shares(&needs, room)) {
        section(&mut lines, title, rows, share);
    }
    lines.truncate(height);
    lines
}

fn head(look: &Look, trouble: Option<&str>, width: usize) -> Vec<String> {
    let node = &look.node;
    let name = tables::printable(&node.name);
    let role = tables::role(node.role);
    let title = Style::Bold.on(&format!("{name}  {}", node.uuid));
    let first = format!("{title}  {role}, {}/", look.base);
    let second = format!("upload {}", upload(node));
    let advice = health::advice(node, &look.nodes);
    let third = match trouble.or(advice.first().map(String::as_str)) {
        Some(words) => Style::Red.on(&cut(&tables::printable(words), width)),
        None => "q ends it".to_owned(),
    };
    vec![first, second, third, String::new()]
}

/// Upload in use, of what may be used.
fn upload(node: &Node) -> String {
    let (Some(used), Some(limit)) = (node.upload_used_bps, node.upload_limit_bps) else {
        return tables::upload(node);
    };
    if limit == 0 {
        return "0: this node never forwards".to_owned();
    }
    let share = used as f64 / limit as f64;
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    let bar = "█".repeat(full) + &"░".repeat(BAR - full);
    format!(
        "{bar} {} of {} ({:.0} %)",
        rate(used),
        rate(limit),
        share * 100.0
    )
}

fn section(lines: &mut Vec<String>, title: &str, rows: &Rows, share: usize) {
    let count = rows.lines.len();
    lines.push(Style::Bold.on(&format!("{title} ({count})")));
    if rows.lines.is_empty() {
        lines.push(rows.empty.to_owned());
        lines.push(String::new());
        return;
    }
    lines.push(rows.header.clone());
    if count <= share {
        lines.extend(rows.lines.iter().cloned());
    } else {
        let shown = share.saturating_sub(1);
        lines.extend(rows.lines.iter().take(shown).cloned());
        lines.push(format!("… and {} more", count - shown));
    }
    lines.push(String::new());
}

/// Shares `room` so that each gets what it needs, up to an equal share of the rest.
fn shares(needs: &[usize], room: usize) -> Vec<usize> {
    let mut shares = vec![0; needs.len()];
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|&index| needs[index]);
    let mut left = room;
    for (served, index) in order.iter().copied().enumerate() {
        let share = needs[index].min(left / (needs.len() - served));
        shares[index] = share;
        left -= share;
    }
    shares
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::fake;

    fn look(streams: usize) -> Look {
        let stream =
            |number: usize| from_value(fake::stream(&format!("show-{number}"), "x")).unwrap();
        let mut node: Value = fake::node();
        node["upload_used_bps"] = json!(2_000_000);
        node["warnings"] = json!(["nobody can reach this node"]);
        Look {
            base: "http://127.0.0.1:8000".to_owned(),
            node: from_value(node.clone()).unwrap(),
            nodes: vec![from_value(node).unwrap()],
            streams: (0..streams).map(stream).collect(),
            tickets: Vec::new(),
        }
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        let text = lines(&look(2), None, 120, 40).join("\n");
        for wanted in [
            fake::NODE,
            "show-0",
            "show-1",
            "streams (2)",
            "█████░░░",
            "25 %",
            "nobody can reach this node",
            "no tickets",
            "nodes (1)",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_shows_what_fits_and_says_what_does_not() {
        let shown = lines(&look(50), Some("no node answers"), 80, 24);
        assert!(shown.len() <= 24, "{}", shown.len());
        let text = shown.join("\n");
        assert!(
            text.contains("no node answers") && text.contains(" more"),
            "{text}"
        );
        assert!(text.contains("nodes (1)"), "{text}");
        assert!(lines(&look(50), None, 10, 3).len() <= 3);
    }

    #[test]
    fn room_goes_to_those_who_need_it() {
        assert_eq!(shares(&[1, 50, 2], 20), [1, 17, 2]);
        assert_eq!(shares(&[50, 50, 50], 9), [3, 3, 3]);
        assert_eq!(shares(&[5, 5, 5], 0), [0, 0, 0]);
    }
}
