//! AMF0, the value notation of RTMP's commands and metadata.
//!
//! Follows "Action Message Format – AMF 0" (2007). Counts in the data are hints:
//! nothing is reserved for them. References, record sets and AMF3 values are
//! refused: no publisher sends them.

use thiserror::Error;

/// How much one message may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects and arrays within each other; default 8.
    pub depth: usize,
    /// Values in all, nested ones included; default 1,024.
    pub items: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 8,
            items: 1024,
        }
    }
}

/// One AMF0 value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A double.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text; bytes that are not UTF-8 are replaced.
    String(String),
    /// Named values in the order of the message: an object, a typed object or an ECMA array.
    Object(Vec<(String, Value)>),
    /// Values without names.
    Array(Vec<Value>),
    /// Milliseconds since 1970, its time zone ignored.
    Date(f64),
    /// Nothing.
    Null,
    /// Nothing, and not even set.
    Undefined,
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// An object of these fields.
    pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The field `name` of an object.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let Self::Object(fields) = self else {
            return None;
        };
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value)
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match *self {
            Self::Number(number) => Some(number),
            Self::Boolean(_)
            | Self::String(_)
            | Self::Object(_)
            | Self::Array(_)
            | Self::Date(_)
            | Self::Null
            | Self::Undefined => None,
        }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }
}

/// Why bytes are not AMF0 that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmfError {
    /// The message ends within a value.
    #[error("AMF0 value is cut short")]
    Eof,
    /// Objects or arrays are nested deeper than [`Limits::depth`].
    #[error("AMF0 values are nested too deep")]
    Depth,
    /// More values than [`Limits::items`].
    #[error("too many AMF0 values in one message")]
    Items,
    /// A type that no publisher sends.
    #[error("AMF0 type {0:#04x} is not supported")]
    Marker(u8),
}

/// All values of one message.
///
/// # Errors
/// [`AmfError`] at the first byte that cannot be taken.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder {
        bytes,
        depth_left: limits.depth,
        items_left: limits.items,
    };
    let mut values = Vec::new();
    while !decoder.bytes.is_empty() {
        values.push(decoder.value()?);
    }
    Ok(values)
}

struct Decoder<'a> {
    bytes: &'a [u8],
    depth_left: usize,
    items_left: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self) -> Result<Value, AmfError> {
        self.items_left = self.items_left.checked_sub(1).ok_or(AmfError::Items)?;
        match self.byte()? {
            0x00 => Ok(Value::Number(self.number()?)),
            0x01 => Ok(Value::Boolean(self.byte()? != 0)),
            0x02 => Ok(Value::String(self.short_text()?)),
            0x03 => self.nested(Self::fields),
            0x05 => Ok(Value::Null),
            0x06 => Ok(Value::Undefined),
            0x08 => {
                self.take::<4>()?;
                self.nested(Self::fields)
            }
            0x0a => self.nested(Self::elements),
            0x0b => {
                let date = self.number()?;
                self.take::<2>()?;
                Ok(Value::Date(date))
            }
            0x0c | 0x0f => {
                let length = u32::from_be_bytes(self.take()?);
                Ok(Value::String(self.text(length as usize)?))
            }
            0x10 => {
                self.short_text()?;
                self.nested(Self::fields)
            }
            marker => Err(AmfError::Marker(marker)),
        }
    }

    fn nested(
        &mut self,
        inner: fn(&mut Self) -> Result<Value, AmfError>,
    ) -> Result<Value, AmfError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(AmfError::Depth)?;
        let value = inner(self)?;
        self.depth_left += 1;
        Ok(value)
    }

    fn fields(&mut self) -> Result<Value, AmfError> {
        let mut fields = Vec::new();
        loop {
            let name = self.short_text()?;
            if name.is_empty() && self.bytes.first() == Some(&0x09) {
                self.byte()?;
                return Ok(Value::Object(fields));
            }
            fields.push((name, self.value()?));
        }
    }

    fn elements(&mut self) -> Result<Value, AmfError> {
        let count = u32::from_be_bytes(self.take()?);
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(self.value()?);
        }
        Ok(Value::Array(elements))
    }

    fn number(&mut self) -> Result<f64, AmfError> {
        Ok(f64::from_be_bytes(self.take()?))
    }

    fn short_text(&mut self) -> Result<String, AmfError> {
        let length = u16::from_be_bytes(self.take()?);
        self.text(length.into())
    }

    fn text(&mut self, length: usize) -> Result<String, AmfError> {
        let (text, rest) = self.bytes.split_at_checked(length).ok_or(AmfError::Eof)?;
        self.bytes = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn byte(&mut self) -> Result<u8, AmfError> {
        Ok(self.take::<1>()?[0])
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (bytes, rest) = self.bytes.split_first_chunk().ok_or(AmfError::Eof)?;
        self.bytes = rest;
        Ok(*bytes)
    }
}

/// The bytes of these values. Texts and names are cut at 65,535 bytes.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        put_value(&mut out, value);
    }
    out
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => put_number(out, 0x00, *number),
        Value::Boolean(set) => out.extend([0x01, u8::from(*set)]),
        Value::String(text) => {
            out.push(0x02);
            put_text(out, text);
        }
        Value::Object(fields) => put_fields(out, fields),
        Value::Array(elements) => {
            let count = u32::try_from(elements.len()).unwrap_or(u32::MAX);
            out.push(0x0a);
            out.extend(count.to_be_bytes());
            elements.iter().for_each(|element| put_value(out, element));
        }
        Value::Date(date) => {
            put_number(out, 0x0b, *date);
            out.extend([0, 0]);
        }
        Value::Null => out.push(0x05),
        Value::Undefined => out.push(0x06),
    }
}

fn put_fields(out: &mut Vec<u8>, fields: &[(String, Value)]) {
    out.push(0x03);
    for (name, value) in fields {
        put_text(out, name);
        put_value(out, value);
    }
    out.extend([0, 0, 0x09]);
}

fn put_number(out: &mut Vec<u8>, marker: u8, number: f64) {
    out.push(marker);
    out.extend(number.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
        decode(bytes, Limits::default())
    }

    #[test]
    fn values_survive_a_round_trip() {
        let values = vec![
            Value::text("connect"),
            Value::Number(1.0),
            Value::object([
                ("app", Value::text("live")),
                ("on", Value::Boolean(true)),
                ("list", Value::Array(vec![Value::Null, Value::Undefined])),
                ("when", Value::Date(1e12)),
            ]),
        ];
        assert_eq!(decoded(&encode(&values)), Ok(values));
    }

    #[test]
    fn the_count_of_an_array_reserves_nothing() {
        assert_eq!(decoded(&[0x0a, 0xff, 0xff, 0xff, 0xff]), Err(AmfError::Eof));
        assert_eq!(decoded(&[0x08, 0xff, 0xff, 0xff, 0xff]), Err(AmfError::Eof));
    }

    #[test]
    fn nesting_ends_at_the_depth_limit() {
        let nested = [0x0a, 0, 0, 0, 1].repeat(20_000);
        assert_eq!(decoded(&nested), Err(AmfError::Depth));
        let mut allowed = [0x0a, 0, 0, 0, 1].repeat(8);
        allowed.push(0x05);
        assert!(decoded(&allowed).is_ok());
    }

    #[test]
    fn more_than_1024_values_are_refused() {
        assert_eq!(decoded(&[0x05; 1024]).map(|values| values.len()), Ok(1024));
        assert_eq!(decoded(&[0x05; 1025]), Err(AmfError::Items));
    }

    #[test]
    fn an_ecma_array_is_read_to_its_end_marker_whatever_its_count() {
        let bytes = [0x08, 0, 0, 0, 0, 0, 1, b'a', 0x05, 0, 0, 9];
        let expected = Value::object([("a", Value::Null)]);
        assert_eq!(decoded(&bytes), Ok(vec![expected]));
    }

    #[test]
    fn amf3_and_references_are_refused() {
        assert_eq!(decoded(&[0x11]), Err(AmfError::Marker(0x11)));
        assert_eq!(decoded(&[0x07, 0, 0]), Err(AmfError::Marker(0x07)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(0u8..18, 0..400)) {
            let _ = decoded(&bytes);
        }
    }
}
