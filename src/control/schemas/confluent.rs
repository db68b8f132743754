//! The REST API of Confluent's Schema Registry, which Karapace and others also offer.
//!
//! `GET /subjects/{subject}/versions/{version}` returns a `Schema`, `GET /schemas/ids/{id}` a
//! `SchemaString`, and any failure an `ErrorMessage`. Both omit `schemaType` for Avro schemas.
//! Karapace's models of the three are a subset, so these types parse both.

use super::answer::{Number, part};
use crate::model::SchemaId;
use crate::model::spec::Catalog;
use serde::Deserialize;

/// The type of a schema without `schemaType`.
const DEFAULT_TYPE: &str = "AVRO";

/// `Schema`: one version of a subject.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SubjectVersion {
    pub(super) id: Number,
    #[serde(flatten)]
    pub(super) text: SchemaText,
}

/// `SchemaString`: a schema without its id.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaText {
    pub(super) schema: String,
    schema_type: Option<String>,
    references: Option<Vec<ConfluentReference>>,
}

impl SchemaText {
    pub(super) fn kind(&self) -> &str {
        self.schema_type.as_deref().unwrap_or(DEFAULT_TYPE)
    }

    pub(super) fn into_parts(self) -> (String, Vec<ConfluentReference>) {
        (self.schema, self.references.unwrap_or_default())
    }
}

/// `SchemaReference`. Version -1 is the latest one.
#[derive(Debug, Deserialize)]
pub(super) struct ConfluentReference {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: i64,
}

#[derive(Deserialize)]
struct ErrorMessage {
    #[serde(rename = "error_code")]
    code: i64,
    message: String,
}

/// The code and message of an error body; `None` if it does not have this API's error format.
pub(super) fn message(body: &[u8]) -> Option<String> {
    let ErrorMessage { code, message } = serde_json::from_slice(body).ok()?;
    Some(format!("{code} {message}"))
}

fn context(catalog: &Catalog) -> Option<&str> {
    catalog.context.as_deref().filter(|context| *context != "default")
}

/// The path of a version of a subject. A subject that names its context itself is not changed.
pub(super) fn version_path(catalog: &Catalog, subject: &str, version: &str) -> String {
    let subject = match context(catalog) {
        Some(context) if !subject.starts_with(":.") => format!(":.{context}:{subject}"),
        _ => subject.to_owned(),
    };
    format!("/subjects/{}/versions/{}", part(&subject), part(version))
}

/// The path of a schema by its id. Ids belong to a context.
pub(super) fn id_path(catalog: &Catalog, id: SchemaId) -> String {
    let context = match context(catalog) {
        Some(context) => format!("?subject={}", part(&format!(":.{context}:"))),
        None => String::new(),
    };
    format!("/schemas/ids/{id}{context}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confluent_answers_with_every_published_field() {
        // Confluent's `Schema`, all properties.
        let text = r#"{"subject":"chat","id":100001,"guid":"0197-ab","version":1,
            "schemaType":"JSON","references":[{"name":"a.json","subject":"a","version":-1}],
            "metadata":{"tags":{},"properties":{},"sensitive":[]},"ruleSet":{},
            "schema":"{}","schemaTags":[],"ts":1,"deleted":false}"#;
        let found: SubjectVersion = serde_json::from_str(text).unwrap();
        assert_eq!((found.id, found.text.kind()), (Number(100_001), "JSON"));
        let (schema, references) = found.text.into_parts();
        assert_eq!((&*schema, references[0].version), ("{}", -1));
        // Confluent's `SchemaString`, which has no `id`.
        let text = r#"{"subject":null,"guid":null,"version":null,"schemaType":"PROTOBUF",
            "schema":"syntax = \"proto3\";","references":null,"metadata":null,"ruleSet":null,
            "maxId":9,"ts":1,"deleted":false}"#;
        let found: SchemaText = serde_json::from_str(text).unwrap();
        assert_eq!(found.kind(), "PROTOBUF");
        assert_eq!(found.into_parts().1.len(), 0);
        // Karapace's `Schema` of an Avro schema.
        let text = r#"{"subject":"chat","version":2,"id":3,"schema":"\"int\""}"#;
        let found: SubjectVersion = serde_json::from_str(text).unwrap();
        assert_eq!((found.id, found.text.kind()), (Number(3), "AVRO"));
        for bad in ["{}", r#"{"id":1}"#, r#"{"schema":"{}"}"#, "[]", "null", "\"Not Found\""] {
            assert!(serde_json::from_str::<SubjectVersion>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn confluent_errors_are_recognised() {
        let theirs = br#"{"error_code":40403,"message":"Schema not found"}"#;
        assert_eq!(message(theirs).as_deref(), Some("40403 Schema not found"));
        let others: [&[u8]; 5] = [b"", b"<html>", b"{}", b"\"Not Found\"", br#"{"error_code":1}"#];
        for other in others {
            assert_eq!(message(other), None);
        }
    }
}
