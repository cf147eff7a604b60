//! How a stream reaches all who watch below this node, where the node counts that.

use serde::Deserialize;
use serde_json::Value;

use crate::tables::NONE;

/// Figures of a stream's audience; a node that does not know one leaves it out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Audience {
    /// Delay from the source that 99 of 100 stay below, in milliseconds.
    delay_p99_ms: Option<f64>,
    /// Most hops from the publisher.
    depth: Option<u64>,
    /// Pauses of more than a second in the last minute.
    stalls: Option<u64>,
    /// Frames lost in the last minute.
    lost: Option<u64>,
}

impl Audience {
    /// Of a stream as the API gave it.
    pub(crate) fn of(stream: &Value) -> Option<Self> {
        Self::deserialize(stream.get("audience")?).ok()
    }

    /// A cell of the table.
    pub(crate) fn words(&self) -> String {
        let number = |value: Option<u64>, what: &str| Some(format!("{} {what}", value?));
        let delay = self.delay_p99_ms.map(|ms| format!("p99 {ms:.0} ms"));
        let parts = [
            delay,
            number(self.depth, "hops"),
            number(self.stalls, "stalls"),
            number(self.lost, "lost"),
        ];
        let words: Vec<String> = parts.into_iter().flatten().collect();
        match words.is_empty() {
            true => NONE.to_owned(),
            false => words.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_that_are_known_are_shown_and_others_are_not() {
        let of = |audience: Value| Audience::of(&json!({"audience": audience}));
        let all =
            of(json!({"viewers": 9, "delay_p99_ms": 480, "depth": 3, "stalls": 0, "lost": 2}));
        assert_eq!(all.unwrap().words(), "p99 480 ms, 3 hops, 0 stalls, 2 lost");
        assert_eq!(of(json!({"depth": 1})).unwrap().words(), "1 hops");
        assert_eq!(of(json!({})).unwrap().words(), "-");
        assert_eq!(of(Value::Null), None);
        assert_eq!(Audience::of(&json!({})), None);
    }
}
