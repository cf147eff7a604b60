//! `onMetaData`: what the encoder says about itself.
//!
//! Only hints are taken from it. Codecs, sizes and rates come from the decoder
//! configuration, since encoders fill these fields as they like.

use super::amf0::Value;

/// An encoder's words about its stream; all of them hints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// It says that video will come.
    pub video: bool,
    /// It says that audio will come.
    pub audio: bool,
    /// Bits per second of all tracks, if it names any.
    pub bitrate_bps: Option<u64>,
    /// The encoder's name and version.
    pub encoder: Option<String>,
}

/// Longest encoder name that is kept, characters.
const ENCODER_CHARS_MAX: usize = 128;

impl Metadata {
    /// Reads a data message (`@setDataFrame`, `onMetaData`, object) or an FLV script
    /// tag (`onMetaData`, object); `None` if it is something else.
    pub fn from_values(values: &[Value]) -> Option<Self> {
        let values = match values.split_first()? {
            (first, rest) if first.as_text() == Some("@setDataFrame") => rest,
            _ => values,
        };
        let [name, object, ..] = values else {
            return None;
        };
        let is_metadata = name.as_text() == Some("onMetaData");
        (is_metadata && matches!(object, Value::Object(_))).then(|| Self::from_object(object))
    }

    fn from_object(object: &Value) -> Self {
        Self {
            video: object.field("videocodecid").is_some_and(names_a_codec),
            audio: object.field("audiocodecid").is_some_and(names_a_codec),
            bitrate_bps: bitrate_bps(object),
            encoder: object
                .field("encoder")
                .and_then(Value::as_text)
                .map(shortened),
        }
    }
}

/// A codec is a number other than 0 in classic FLV, a number or text in newer files.
fn names_a_codec(value: &Value) -> bool {
    match value {
        Value::Number(number) => *number != 0.0,
        Value::String(name) => !name.is_empty(),
        Value::Boolean(_)
        | Value::Object(_)
        | Value::Array(_)
        | Value::Date(_)
        | Value::Null
        | Value::Undefined => false,
    }
}

fn bitrate_bps(object: &Value) -> Option<u64> {
    let kbps: f64 = ["videodatarate", "audiodatarate"]
        .iter()
        .filter_map(|name| object.field(name)?.as_number())
        .filter(|kbps| kbps.is_finite() && *kbps > 0.0)
        .sum();
    // The cast saturates.
    (kbps > 0.0).then_some((kbps * 1000.0) as u64)
}

fn shortened(name: &str) -> String {
    name.chars().take(ENCODER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        Value::object([
            ("videocodecid", Value::Number(7.0)),
            ("audiocodecid", Value::Number(0.0)),
            ("videodatarate", Value::Number(2500.0)),
            ("audiodatarate", Value::Number(f64::NAN)),
            ("encoder", Value::text("Lavf59")),
        ])
    }

    #[test]
    fn both_forms_are_read() {
        let plain = [Value::text("onMetaData"), sample()];
        let wrapped = [
            Value::text("@setDataFrame"),
            Value::text("onMetaData"),
            sample(),
        ];
        let expected = Metadata {
            video: true,
            audio: false,
            bitrate_bps: Some(2_500_000),
            encoder: Some("Lavf59".into()),
        };
        assert_eq!(Metadata::from_values(&plain), Some(expected.clone()));
        assert_eq!(Metadata::from_values(&wrapped), Some(expected));
    }

    #[test]
    fn other_data_messages_are_not_metadata() {
        assert_eq!(Metadata::from_values(&[]), None);
        assert_eq!(
            Metadata::from_values(&[Value::text("onTextData"), sample()]),
            None
        );
        assert_eq!(Metadata::from_values(&[Value::text("onMetaData")]), None);
    }
}
