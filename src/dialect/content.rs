//! The content of an event apart from the dialect that it was published in, for the subscribers of
//! linked channels, who read it in a dialect of their own.

use crate::codec::json::Scratch;
use crate::codec::value::{DecodeLimits, decode_json};
use crate::codec::{self, Format, Value};
use std::borrow::Cow;

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Content<'e> {
    /// The event's name, if its dialect has names.
    pub event: Option<Cow<'e, str>>,
    /// Its data.
    pub data: ContentData<'e>,
}

/// The data of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum ContentData<'e> {
    /// A text, which may be JSON.
    Text(Cow<'e, str>),
    /// A decoded value.
    Value(&'e Value),
    /// The bytes of a binary message.
    Binary(&'e [u8]),
}

impl ContentData<'_> {
    /// The data as a text; a value is written as JSON. `None` for a binary message.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            ContentData::Text(text) => Some(Cow::Borrowed(text)),
            ContentData::Value(Value::Text(text)) => Some(Cow::Borrowed(text)),
            ContentData::Value(value) => {
                let mut json = Vec::new();
                codec::encode_any(Format::Json, value, &mut json).ok()?;
                String::from_utf8(json).ok().map(Cow::Owned)
            }
            ContentData::Binary(_) => None,
        }
    }

    /// The data as a value; a text that is JSON is decoded, and any other text stays one. `None`
    /// for a binary message.
    pub fn value(&self) -> Option<Value> {
        match self {
            ContentData::Text(text) => {
                let mut json = text.as_bytes().to_vec();
                let limits = DecodeLimits { bytes: json.len(), ..DecodeLimits::default() };
                let decoded = decode_json(&mut json, &limits, &mut Scratch::default());
                Some(decoded.unwrap_or_else(|_| Value::text(text)))
            }
            ContentData::Value(value) => Some((*value).clone()),
            ContentData::Binary(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_or_a_value() {
        let text = |text| ContentData::Text(Cow::Borrowed(text));
        assert_eq!(text(r#"{"a":1}"#).value(), Some(Value::map([("a", Value::Int(1))])));
        assert_eq!(text("7").value(), Some(Value::Int(7)));
        assert_eq!(text("not json").value(), Some(Value::text("not json")));
        assert_eq!(text("").value(), Some(Value::text("")));
        assert_eq!(text("as it is").text().as_deref(), Some("as it is"));
        let map = Value::map([("a", Value::Array(vec![Value::Null]))]);
        assert_eq!(ContentData::Value(&map).text().as_deref(), Some(r#"{"a":[null]}"#));
        assert_eq!(ContentData::Value(&map).value(), Some(map.clone()));
        assert_eq!(ContentData::Value(&Value::text("t")).text().as_deref(), Some("t"));
        let binary = ContentData::Binary(b"\x01");
        assert_eq!((binary.text(), binary.value()), (None, None));
    }
}
