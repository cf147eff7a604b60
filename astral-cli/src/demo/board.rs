//! The demo's lines: one per node, what it gets and from whom.

use std::time::Duration;

use astral_proto::api::Stream;
use futures_util::future::join_all;

use super::lab::Member;
use crate::format::{duration, rate};

/// A line per node, and one with the time.
pub(super) async fn lines(members: &[Member], stream: &str, elapsed: Duration) -> Vec<String> {
    let looks = members.iter().map(|member| async move {
        let found = member.api.get::<Stream>(&["streams", stream]).await;
        found.ok().map(|(stream, _)| stream)
    });
    let found = join_all(looks).await;
    let mut lines: Vec<String> = members
        .iter()
        .zip(&found)
        .map(|(member, stream)| match stream {
            Some(stream) => line(member, members, stream),
            None => format!("{:<10} does not answer", member.name),
        })
        .collect();
    lines.push(format!("{} so far; Ctrl-C ends it", duration(elapsed)));
    lines
}

fn line(member: &Member, members: &[Member], stream: &Stream) -> String {
    let local = &stream.local;
    let source = match local.parent {
        Some(parent) => {
            let known = members.iter().find(|other| other.uuid == parent);
            format!(
                "from {}",
                known.map_or_else(|| parent.short(), |other| other.name.to_owned())
            )
        }
        None if stream.publisher == member.uuid => "from the encoder".to_owned(),
        None => "from nobody yet".to_owned(),
    };
    format!(
        "{:<10} {source:<16} {} hops {:>5.0} ms {:>11} {:>7} frames {:>4} lost",
        member.name,
        local.hops,
        local.latency_ms,
        rate(stream.bitrate_bps),
        local.frames_received,
        local.frames_lost,
    )
}
