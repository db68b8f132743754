//! JSON documents with or without a schema.

use super::compiled::JsonSchema;
use super::{BadSchema, Invalid};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// A document that is parsed and not stored. Unlike `serde::de::IgnoredAny`, it is checked as
/// strictly as a [`serde_json::Value`]: UTF-8, surrogates, the range of numbers, and the depth.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Anything, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Anything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
        Ok(Anything)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Anything, A::Error> {
        while entries.next_element::<Anything>()?.is_some() {}
        Ok(Anything)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Anything, A::Error> {
        while entries.next_entry::<Anything, Anything>()?.is_some() {}
        Ok(Anything)
    }
}

/// Rules for a JSON document (RFC 8259), which may have at most 127 levels.
#[derive(Debug)]
pub struct JsonModel {
    schema: Option<JsonSchema>,
}

impl JsonModel {
    /// Accepts any document.
    pub fn any() -> JsonModel {
        JsonModel { schema: None }
    }

    /// Accepts documents that conform to a JSON Schema of draft 4, 6, 7, 2019-09 or 2020-12, as
    /// `$schema` says; the default is draft 7. `format` is not checked. References may only lead
    /// into the schema itself.
    ///
    /// # Errors
    /// The text is not a valid schema, or it refers to other documents.
    pub fn new(schema: &str) -> Result<JsonModel, BadSchema> {
        JsonModel::with(schema, &[])
    }

    /// As [`JsonModel::new`], with the texts that the schema may refer to in `others`, each with
    /// the name by which it is referred to.
    ///
    /// # Errors
    /// The text is not a valid schema, or it refers to a document that is not in `others`.
    pub fn with(schema: &str, others: &[(String, String)]) -> Result<JsonModel, BadSchema> {
        Ok(JsonModel { schema: Some(JsonSchema::new(schema, others)?) })
    }

    pub(super) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        let malformed = |error| Invalid::malformed(format_args!("not JSON: {error}"));
        let Some(schema) = &self.schema else {
            return serde_json::from_slice(message).map(|Anything| ()).map_err(malformed);
        };
        schema.check(&serde_json::from_slice(message).map_err(malformed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_model_bounds_the_depth() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(JsonModel::any().check(nested(127).as_bytes()), Ok(()));
        assert!(JsonModel::any().check(nested(128).as_bytes()).is_err_and(|error| error.malformed));
        assert!(JsonModel::any().check("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn json_without_a_schema_is_held_to_what_a_document_is() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let texts = ["{\"a\":[1,-1,1.5,1e5,null,true,\"\\u00e9\"]}", "1", "\"\\ud83d\\ude00\""];
        for text in texts.map(str::to_owned).into_iter().chain([deep(127)]) {
            assert_eq!(JsonModel::any().check(text.as_bytes()), Ok(()), "{text}");
        }
        let bad: [&[u8]; 12] = [
            b"",
            b"[1",
            b"{} {}",
            b"1e999",
            b"\"\\ud800\"",
            b"\"\xff\"",
            b"\"\n\"",
            b"01",
            b"nul",
            b"{1:2}",
            b"[1,]",
            b"{\"a\"}",
        ];
        for text in bad {
            let of_value = serde_json::from_slice::<serde_json::Value>(text).unwrap_err();
            let invalid = JsonModel::any().check(text).unwrap_err();
            assert_eq!(invalid.reason, format!("not JSON: {of_value}"));
        }
        assert!(JsonModel::any().check(deep(128).as_bytes()).is_err());
    }
}
