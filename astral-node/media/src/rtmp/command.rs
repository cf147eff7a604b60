//! Commands: what a client asks, and the values of our replies (RTMP 1.0 §7).

use super::amf0::{AmfError, Limits, Value, decode};

/// A command message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    /// Its name, such as `connect`.
    pub(super) name: String,
    /// Transaction id; 0 asks for no reply.
    pub(super) transaction: f64,
    /// The command object and everything after it.
    arguments: Vec<Value>,
}

impl Command {
    /// Reads a command message.
    pub(super) fn parse(bytes: &[u8], limits: Limits) -> Result<Self, AmfError> {
        let mut values = decode(bytes, limits)?.into_iter();
        let name = values.next().ok_or(AmfError::Eof)?;
        let transaction = values.next().and_then(|value| value.as_number());
        Ok(Self {
            name: name.as_text().unwrap_or_default().to_owned(),
            transaction: transaction.unwrap_or(0.0),
            arguments: values.collect(),
        })
    }

    /// A text field of the command object, without a `?query` and slashes around it.
    pub(super) fn object_text(&self, field: &str) -> String {
        let object = self.arguments.first();
        let text = object.and_then(|object| object.field(field)?.as_text());
        without_query(text.unwrap_or_default())
            .trim_matches('/')
            .to_owned()
    }

    /// The first argument after the command object, a stream's name, without `?query`.
    pub(super) fn stream_name(&self) -> String {
        let name = self.arguments.get(1).and_then(Value::as_text);
        without_query(name.unwrap_or_default()).to_owned()
    }
}

/// Encoders pass a query on as a part of the name (`key?x=1`).
fn without_query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(name, _)| name)
}

/// The reply to `connect`.
///
/// `capsEx` 0 and the codecs of `fourCcList` say what of Enhanced RTMP is understood.
pub(super) fn connected(transaction: f64) -> Vec<Value> {
    let codecs = ["avc1", "mp4a"].map(Value::text).to_vec();
    let server = Value::object([
        ("fmsVer", Value::text("FMS/3,0,1,123")),
        ("capabilities", Value::Number(31.0)),
    ]);
    let information = Value::object([
        ("level", Value::text("status")),
        ("code", Value::text("NetConnection.Connect.Success")),
        ("description", Value::text("Connected.")),
        ("objectEncoding", Value::Number(0.0)),
        ("fourCcList", Value::Array(codecs)),
        ("capsEx", Value::Number(0.0)),
    ]);
    vec![
        Value::text("_result"),
        Value::Number(transaction),
        server,
        information,
    ]
}

/// A `_result` that carries only `value`.
pub(super) fn result(transaction: f64, value: Value) -> Vec<Value> {
    vec![
        Value::text("_result"),
        Value::Number(transaction),
        Value::Null,
        value,
    ]
}

/// `onStatus` (§7.2.2); `level` is `status` or `error`.
pub(super) fn on_status(level: &str, code: &str, description: &str) -> Vec<Value> {
    with_information("onStatus", level, code, description)
}

/// `onFCPublish` or `onFCUnpublish`, which some encoders wait for.
pub(super) fn on_fc(name: &str, code: &str) -> Vec<Value> {
    with_information(name, "status", code, "")
}

fn with_information(name: &str, level: &str, code: &str, description: &str) -> Vec<Value> {
    let information = Value::object([
        ("level", Value::text(level)),
        ("code", Value::text(code)),
        ("description", Value::text(description)),
    ]);
    vec![
        Value::text(name),
        Value::Number(0.0),
        Value::Null,
        information,
    ]
}
