//! The JSON Schema of a document.

use super::pattern::{self, NAME_STEPS};
use crate::model::{BadSchema, Invalid};
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;
use std::error::Error;

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

/// A compiled JSON Schema.
#[derive(Debug)]
pub struct JsonSchema(Validator);

impl JsonSchema {
    /// Compiles the text of a schema, as [`JsonModel::with`](crate::model::JsonModel::with) says.
    ///
    /// # Errors
    /// The text is not a valid schema, or it refers to a document that is not in `others`.
    pub fn new(schema: &str, others: &[(String, String)]) -> Result<JsonSchema, BadSchema> {
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
        options.build(&schema).map(JsonSchema).map_err(BadSchema::new)
    }

    pub(in crate::model) fn check(&self, document: &Value) -> Result<(), Invalid> {
        let (outcome, is_spent) = pattern::with_budget(|| self.0.validate(document));
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
    use crate::model::JsonModel;

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
}
