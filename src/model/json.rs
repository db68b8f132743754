//! JSON documents with or without a schema.

use super::pattern::{self, NAME_STEPS};
use super::{BadSchema, Invalid};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, Validator};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::error::Error;
use std::fmt;

/// A document that is parsed and not stored. Unlike `serde::de::IgnoredAny`, it is checked as
/// strictly as a [`Value`]: UTF-8, surrogates, the range of numbers, and the depth.
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

/// The documents that a schema may refer to, each with the name by which it is referred to.
struct Others(Vec<(String, Value)>);

impl Retrieve for Others {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let uri = uri.as_str();
        // A relative reference was resolved against the base URI of the schema.
        let is =
            |name: &str| uri.strip_suffix(name).is_some_and(|b| b.is_empty() || b.ends_with('/'));
        let found = self.0.iter().find(|(name, _)| is(name));
        found
            .map(|(_, it)| it.clone())
            .ok_or_else(|| format!("the schema `{uri}` is not available").into())
    }
}

/// Rules for a JSON document (RFC 8259), which may have at most 127 levels.
#[derive(Debug)]
pub struct JsonModel {
    schema: Option<Validator>,
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
        let schema: Value = serde_json::from_str(schema).map_err(BadSchema::new)?;
        let patterns = PatternOptions::fancy_regex().backtrack_limit(NAME_STEPS);
        let mut options =
            jsonschema::options().should_validate_formats(false).with_pattern_options(patterns);
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft7);
        }
        let read = |(name, text): &(String, String)| Some((name.clone(), text.parse().ok()?));
        let others = Others(others.iter().filter_map(read).collect());
        let options = options.offline().with_retriever(others);
        let options = options.with_keyword("pattern", |_, value, _| pattern::keyword(value));
        let schema = options.build(&schema).map_err(BadSchema::new)?;
        Ok(JsonModel { schema: Some(schema) })
    }

    pub(super) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        let malformed = |error| Invalid::malformed(format_args!("not JSON: {error}"));
        let Some(schema) = &self.schema else {
            return serde_json::from_slice(message).map(|Anything| ()).map_err(malformed);
        };
        let document: Value = serde_json::from_slice(message).map_err(malformed)?;
        let (outcome, is_spent) = pattern::with_budget(|| schema.validate(&document));
        let is_costly =
            |kind: &_| matches!(kind, ValidationErrorKind::BacktrackLimitExceeded { .. });
        // Refuse the message even if the schema would accept it, as with a pattern below `not`.
        if is_spent || outcome.as_ref().is_err_and(|error| is_costly(error.kind())) {
            return Err(Invalid::costly("a pattern of the schema takes too many steps"));
        }
        outcome.map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "/" } else { &place };
            let rule = error.schema_path().to_string();
            let rule = rule.rsplit('/').next().unwrap_or_default();
            Invalid::broken(format_args!("{place} breaks the schema's rule `{rule}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2},
            "tags": {"items": {"type": "integer"}}
        },
        "required": ["name"]
    }"#;

    #[test]
    fn json_model_validates_documents() {
        let json = JsonModel::new(SCHEMA).unwrap();
        assert_eq!(json.check(br#"{"name":"ab","tags":[1,2]}"#), Ok(()));
        for (message, malformed, reason) in [
            (r#"{"name":"ab""#, true, "not JSON: EOF while parsing an object at line 1 column 12"),
            ("", true, "not JSON: EOF while parsing a value at line 1 column 0"),
            (r#"{} {}"#, true, "not JSON: trailing characters at line 1 column 4"),
            ("{}", false, "/ breaks the schema's rule `required`"),
            (r#"{"name":"a"}"#, false, "/name breaks the schema's rule `minLength`"),
            (r#"{"name":"ab","tags":[1,"x"]}"#, false, "/tags/1 breaks the schema's rule `type`"),
        ] {
            let reason = reason.to_owned();
            assert_eq!(
                json.check(message.as_bytes()),
                Err(Invalid { malformed, missing: false, costly: false, reason })
            );
        }
        assert_eq!(JsonModel::any().check(b"[1]"), Ok(()));
        assert!(JsonModel::any().check(b"[1").is_err());
    }

    #[test]
    fn json_model_bounds_the_depth() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(JsonModel::any().check(nested(127).as_bytes()), Ok(()));
        assert!(JsonModel::any().check(nested(128).as_bytes()).is_err_and(|error| error.malformed));
        assert!(JsonModel::any().check("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn json_model_uses_the_draft_of_the_schema_or_7() {
        // `prefixItems` has a meaning only in draft 2020-12.
        let tuple = r#""prefixItems": [{"type": "string"}]"#;
        let old = JsonModel::new(&format!("{{{tuple}}}")).unwrap();
        assert_eq!(old.check(b"[1]"), Ok(()));
        for (draft, refused) in [
            ("https://json-schema.org/draft/2020-12/schema", true),
            ("https://json-schema.org/draft/2019-09/schema", false),
            ("http://json-schema.org/draft-06/schema#", false),
            ("http://json-schema.org/draft-04/schema#", false),
        ] {
            let json = JsonModel::new(&format!(r#"{{"$schema": "{draft}", {tuple}}}"#)).unwrap();
            assert_eq!(json.check(b"[1]").is_err(), refused, "{draft}");
        }
    }

    #[test]
    fn json_model_does_not_assert_formats() {
        let json = JsonModel::new(r#"{"format": "email"}"#).unwrap();
        assert_eq!(json.check(br#""x""#), Ok(()));
    }

    #[test]
    fn json_model_refuses_bad_and_remote_schemas() {
        for bad in [
            "",
            "{",
            "1",
            r#"{"type": "no such"}"#,
            r#"{"$ref": "https://example.com/other.json"}"#,
            r#"{"$ref": "file:///etc/passwd"}"#,
            r##"{"$ref": "#/definitions/none"}"##,
            r#"{"pattern": "("}"#,
        ] {
            assert!(JsonModel::new(bad).is_err(), "{bad}");
        }
        let within = r##"{"$ref": "#/definitions/a", "definitions": {"a": {"type": "null"}}}"##;
        assert_eq!(JsonModel::new(within).unwrap().check(b"null"), Ok(()));
    }

    #[test]
    fn json_model_resolves_given_references() {
        let schema = r#"{"properties": {"a": {"$ref": "a.json"}, "b": {"$ref": "urn:b"}}}"#;
        let others = [("a.json", r#"{"$ref": "c.json"}"#), ("urn:b", r#"{"type": "string"}"#)];
        let c = ("c.json", r#"{"type": "null"}"#);
        let given = |list: &[(&str, &str)]| {
            let list = list.iter().map(|(name, text)| (name.to_string(), text.to_string()));
            JsonModel::with(schema, &list.collect::<Vec<_>>())
        };
        let json = given(&[others[0], others[1], c]).unwrap();
        assert_eq!(json.check(br#"{"a": null, "b": "x"}"#), Ok(()));
        assert!(json.check(br#"{"a": 1}"#).is_err() && json.check(br#"{"b": 1}"#).is_err());
        assert!(given(&others).is_err(), "c.json is missing");
    }

    #[test]
    fn json_pattern_that_takes_too_many_steps_is_costly() {
        let started = std::time::Instant::now();
        for schema in [
            r#"{"pattern": "^(a+(?=a|$))+c$"}"#,
            r#"{"not": {"pattern": "^(a+(?=a|$))+c$"}}"#,
            r#"{"anyOf": [{"pattern": "^(a+(?=a|$))+c$"}, true]}"#,
            r#"{"patternProperties": {"^(a+(?=a|$))+c$": false}}"#,
        ] {
            let json = JsonModel::new(schema).unwrap();
            for text in ["a".repeat(51), "a".repeat(10_000)] {
                let text = match schema.contains("Properties") {
                    true => format!("{{\"{text}\": 1}}"),
                    false => format!("\"{text}\""),
                };
                assert!(json.check(text.as_bytes()).is_err_and(|it| it.costly), "{schema}");
            }
            // The next message has its own budget.
            assert_eq!(json.check(br#"["x"]"#), JsonModel::new(schema).unwrap().check(br#"["x"]"#));
        }
        assert!(started.elapsed().as_secs() < 5);
    }

    #[test]
    fn json_patterns_of_one_message_share_a_budget() {
        // The digit is at the end of each text, so the look-ahead backtracks.
        let schema = r#"{"items": {"pattern": "^(?=.*[0-9])(?=.*[a-z]).{8,}$"}}"#;
        let json = JsonModel::new(schema).unwrap();
        let list = |count: usize| format!("[{}]", vec![r#""abcdefg1""#; count].join(","));
        let passes = |count| json.check(list(count).as_bytes());
        assert_eq!(passes(1), Ok(()));
        let mut max = 1;
        while max < 100_000 && passes(max).is_ok() {
            max *= 2;
        }
        assert!((100..=2 * pattern::STEPS).contains(&max), "{max}");
        assert!(passes(max).is_err_and(|invalid| invalid.costly));
        // Patterns that are matched in linear time are not counted.
        let json = JsonModel::new(r#"{"items": {"pattern": "^[a-z]+[0-9]$"}}"#).unwrap();
        assert_eq!(json.check(list(50_000).as_bytes()), Ok(()));
        let broken = json.check(br#"["x"]"#).unwrap_err();
        assert_eq!(broken.reason, "/0 breaks the schema's rule `pattern`");
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
            let of_value = serde_json::from_slice::<Value>(text).unwrap_err();
            let invalid = JsonModel::any().check(text).unwrap_err();
            assert_eq!(invalid.reason, format!("not JSON: {of_value}"));
        }
        assert!(JsonModel::any().check(deep(128).as_bytes()).is_err());
    }
}
