//! `astral events`: what happens at the node, as it happens.

use std::io::Write as _;

use astral_proto::api::{Node, Stream, Ticket};
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::client::decode;
use crate::commands::Session;
use crate::failure::Failure;
use crate::{signals, tables};

/// Longest event that is read, against a server that is no node.
const EVENT_MAX: usize = 1024 * 1024;

/// Prints events until the node ends or the user has seen enough.
pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let stop = signals::stop_token()?;
    let mut body = session.api.open("/api/v1/events").await?.into_body();
    let mut buffer = BytesMut::new();
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failure::other(format!("the events end: {error}")))?;
        let Some(bytes) = frame.data_ref() else {
            continue;
        };
        buffer.extend_from_slice(bytes);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event = buffer.split_to(end);
            buffer.advance(2);
            if let Some((kind, data)) = parse(&event) {
                print(session.global.json, &kind, &data)?;
            }
        }
        if buffer.len() > EVENT_MAX {
            return Err(Failure::other("what answers there sends no events"));
        }
    }
    session.note("the node has ended");
    Ok(())
}

/// Kind and data of an event; none of a comment.
fn parse(event: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(event).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start().to_owned())
    };
    Some((
        field("event:")?,
        serde_json::from_str(&field("data:")?).ok()?,
    ))
}

fn print(as_json: bool, kind: &str, data: &Value) -> Result<(), Failure> {
    let line = if as_json {
        let mut data = data.clone();
        if let Some(fields) = data.as_object_mut() {
            fields.insert("kind".to_owned(), kind.into());
        }
        data.to_string()
    } else {
        words(kind, data)?
    };
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(Failure::other)
}

/// An event as a line for people.
fn words(kind: &str, data: &Value) -> Result<String, Failure> {
    let change = data["change"].as_str().unwrap_or("?");
    let object = &data[kind];
    Ok(match kind {
        "node" => {
            let node: Node = decode(object)?;
            let role = tables::role(node.role);
            let at = node.addresses.first().cloned().unwrap_or_default();
            let children = node.children;
            format!(
                "{change:8} node    {} ({role}, {children} children) {at}",
                node.name
            )
        }
        "stream" => {
            let stream: Stream = decode(object)?;
            let state = tables::state(stream.state);
            let rate = crate::format::rate(stream.bitrate_bps);
            let viewers = stream.viewers;
            format!(
                "{change:8} stream  {} ({state}, {rate}, {viewers} viewers)",
                stream.slug
            )
        }
        "ticket" => {
            let ticket: Ticket = decode(object)?;
            let state = tables::ticket_state(&ticket);
            let (from, to) = (ticket.source.short(), ticket.destination.short());
            format!(
                "{change:8} ticket  {} of {} from {from} to {to} ({state})",
                ticket.id, ticket.stream.slug
            )
        }
        other => format!("{change:8} {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_events() {
        assert_eq!(parse(b": still here"), None);
        let event = b"event: ticket\nid: 7\ndata: {\"change\":\"removed\"}";
        let (kind, data) = parse(event).expect("an event");
        assert_eq!(kind, "ticket");
        assert_eq!(data["change"], "removed");
    }

    #[test]
    fn kinds_of_a_newer_node_are_shown_as_they_are() {
        let data = serde_json::json!({"change": "added", "cluster": {}});
        assert_eq!(words("cluster", &data).expect("words"), "added    cluster");
    }
}
