//! The REST APIs of Apicurio Registry: version 2 (registries 2.x, still served by 3.x) and version
//! 3 (registries 3.x).
//!
//! Both return a schema as its bare text, and its metadata from another path. They differ in the
//! paths, in field names (in version 2 the artifact's name is `id`, a string that may look like a
//! number), and in the error format.

use super::answer::{Number, PLAIN, json, part};
use crate::model::spec::{ApicurioApi, Catalog, SchemaIdKind};
use crate::model::{FetchFailure, SchemaId};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use serde::Deserialize;

/// The characters that are not percent-encoded in a version. `=` is one, because `branch=latest` is
/// an expression and not a name.
const VERSION: &AsciiSet = &PLAIN.remove(b'=');
/// The group of an artifact without a group id.
const DEFAULT_GROUP: &str = "default";

/// The common fields of version 2's `ArtifactMetaData` (of the latest version) and
/// `VersionMetaData` (of a given version).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaDataV2 {
    global_id: Option<Number>,
    content_id: Option<Number>,
    #[serde(rename = "type")]
    kind: String,
}

/// Version 3's `VersionMetaData`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaDataV3 {
    global_id: Option<Number>,
    content_id: Option<Number>,
    #[serde(rename = "artifactType")]
    kind: String,
}

/// `ArtifactReference`, the same in both versions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApicurioReference {
    pub(super) name: String,
    group_id: Option<String>,
    pub(super) artifact_id: String,
    version: Option<String>,
}

impl ApicurioReference {
    /// The group of the artifact. Without a group id that is the registry's default group, whatever
    /// group the catalog names.
    pub(super) fn group(&self) -> &str {
        self.group_id.as_deref().unwrap_or(DEFAULT_GROUP)
    }

    pub(super) fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("latest")
    }
}

/// Version 2's `Error`.
#[derive(Deserialize)]
struct ErrorV2 {
    #[serde(rename = "error_code")]
    code: i64,
    message: String,
}

/// Version 3's `ProblemDetails`.
#[derive(Deserialize)]
struct ErrorV3 {
    status: i64,
    title: String,
}

/// The paths of a bare schema and of the list of its references.
pub(super) struct Places {
    pub(super) content: String,
    pub(super) references: String,
}

/// One version of the API.
#[derive(Clone, Copy)]
pub(super) struct Api(ApicurioApi);

impl Api {
    pub(super) fn of(catalog: &Catalog) -> Api {
        Api(catalog.api.unwrap_or_default())
    }

    fn base(self) -> &'static str {
        match self.0 {
            ApicurioApi::V2 => "/apis/registry/v2",
            ApicurioApi::V3 => "/apis/registry/v3",
        }
    }

    fn artifact(self, group: &str, artifact: &str) -> String {
        format!("{}/groups/{}/artifacts/{}", self.base(), part(group), part(artifact))
    }

    /// The path of the metadata of an artifact's version.
    pub(super) fn metadata(self, group: &str, artifact: &str, version: &str) -> String {
        let artifact = self.artifact(group, artifact);
        match (self.0, version) {
            (ApicurioApi::V2, "latest") => format!("{artifact}/meta"),
            (ApicurioApi::V2, version) => format!("{artifact}/versions/{}/meta", part(version)),
            (ApicurioApi::V3, version) => format!("{artifact}/versions/{}", expression(version)),
        }
    }

    /// The paths of a schema by its id. The registry's operator can change the default handling of
    /// references, so the query sets it.
    pub(super) fn by_number(self, use_id: SchemaIdKind, id: SchemaId) -> Places {
        let by = match use_id {
            SchemaIdKind::GlobalId => "globalIds",
            SchemaIdKind::ContentId => "contentIds",
        };
        let path = format!("{}/ids/{by}/{id}", self.base());
        let references = format!("{path}/references");
        let content = match (self.0, use_id) {
            (ApicurioApi::V2, SchemaIdKind::GlobalId) => format!("{path}?dereference=false"),
            (ApicurioApi::V3, SchemaIdKind::GlobalId) => {
                format!("{path}?references=PRESERVE&returnArtifactType=true")
            }
            // A content id has no type, and its references are always preserved.
            (_, SchemaIdKind::ContentId) => path,
        };
        Places { content, references }
    }

    /// The paths of a schema by the version of its artifact.
    pub(super) fn by_version(self, group: &str, artifact: &str, version: &str) -> Places {
        let artifact = self.artifact(group, artifact);
        match self.0 {
            ApicurioApi::V2 => {
                let path = format!("{artifact}/versions/{}", part(version));
                let content = format!("{path}?dereference=false");
                Places { content, references: format!("{path}/references") }
            }
            ApicurioApi::V3 => {
                let path = format!("{artifact}/versions/{}", expression(version));
                let content = format!("{path}/content?references=PRESERVE");
                Places { content, references: format!("{path}/references") }
            }
        }
    }

    /// The id and the type of a schema, from its metadata.
    ///
    /// # Errors
    /// The metadata is invalid or has no id of the kind `use_id`.
    pub(super) fn number(
        self,
        body: &[u8],
        use_id: SchemaIdKind,
    ) -> Result<(SchemaId, String), FetchFailure> {
        let (global_id, content_id, kind) = match self.0 {
            ApicurioApi::V2 => {
                let MetaDataV2 { global_id, content_id, kind } = json(body)?;
                (global_id, content_id, kind)
            }
            ApicurioApi::V3 => {
                let MetaDataV3 { global_id, content_id, kind } = json(body)?;
                (global_id, content_id, kind)
            }
        };
        let (id, name) = match use_id {
            SchemaIdKind::GlobalId => (global_id, "globalId"),
            SchemaIdKind::ContentId => (content_id, "contentId"),
        };
        let missing = || FetchFailure::Failed(format!("the response has no `{name}`"));
        Ok((id.ok_or_else(missing)?.0, kind))
    }

    /// The code and message of an error body; `None` if it does not have this API's error format.
    pub(super) fn message(self, body: &[u8]) -> Option<String> {
        match self.0 {
            ApicurioApi::V2 => {
                let ErrorV2 { code, message } = serde_json::from_slice(body).ok()?;
                Some(format!("{code} {message}"))
            }
            ApicurioApi::V3 => {
                let ErrorV3 { status, title } = serde_json::from_slice(body).ok()?;
                Some(format!("{status} {title}"))
            }
        }
    }
}

/// A version expression of API version 3: `branch=` and a branch name, or the name of the version.
fn expression(version: &str) -> String {
    match version {
        "latest" => "branch=latest".to_owned(),
        version => utf8_percent_encode(version, VERSION).to_string(),
    }
}

/// The group of a catalog's artifacts.
pub(super) fn group(catalog: &Catalog) -> &str {
    catalog.group_id.as_deref().unwrap_or(DEFAULT_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: Api = Api(ApicurioApi::V2);
    const V3: Api = Api(ApicurioApi::V3);

    #[test]
    fn apicurio_metadata_with_every_published_field() {
        let v2 = |id: &str| {
            format!(
                r#"{{"groupId":"g","id":"{id}","name":"N","description":"D","type":"AVRO",
                "version":"18","createdBy":"u","createdOn":"2019-03-22T12:51:19Z",
                "modifiedBy":"u","modifiedOn":"2019-07-19T15:09:00Z","globalId":12984719247,
                "contentId":82736,"state":"ENABLED","labels":["l"],"properties":{{"p":"q"}},
                "references":[{{"groupId":"g","artifactId":"a","version":"2","name":"n"}}]}}"#
            )
        };
        // The artifact's name is a string, even if it looks like a number.
        for id in ["Procurement-Invoice", "7"] {
            let text = v2(id);
            let of = |use_id| V2.number(text.as_bytes(), use_id).unwrap();
            assert_eq!(of(SchemaIdKind::GlobalId), (12_984_719_247, "AVRO".to_owned()), "{id}");
            assert_eq!(of(SchemaIdKind::ContentId), (82_736, "AVRO".to_owned()), "{id}");
            assert!(V3.number(text.as_bytes(), SchemaIdKind::GlobalId).is_err());
        }
        let v3 = r#"{"groupId":"g","artifactId":"7","version":"1","artifactType":"PROTOBUF",
            "name":"N","description":"D","owner":"u","createdOn":"2019-05-17T12:00:00Z",
            "modifiedBy":"u","modifiedOn":"2019-05-17T12:00:00Z","globalId":"183282932983",
            "contentId":12347,"state":"ENABLED","labels":{"l":"m"}}"#;
        let of = |use_id| V3.number(v3.as_bytes(), use_id).unwrap();
        assert_eq!(of(SchemaIdKind::GlobalId), (183_282_932_983, "PROTOBUF".to_owned()));
        assert_eq!(of(SchemaIdKind::ContentId), (12_347, "PROTOBUF".to_owned()));
        assert!(V2.number(v3.as_bytes(), SchemaIdKind::GlobalId).is_err());
        let without = br#"{"type":"JSON","globalId":1}"#;
        assert!(V2.number(without, SchemaIdKind::GlobalId).is_ok());
        let failure = V2.number(without, SchemaIdKind::ContentId).unwrap_err();
        assert_eq!(failure, FetchFailure::Failed("the response has no `contentId`".to_owned()));
    }

    #[test]
    fn apicurio_errors_are_those_of_their_version() {
        let v2 = br#"{"message":"No artifact","error_code":404,"detail":"d","name":"n"}"#;
        let v3 = br#"{"detail":"d","title":"No artifact","status":404,"name":"n"}"#;
        assert_eq!(V2.message(v2).as_deref(), Some("404 No artifact"));
        assert_eq!(V3.message(v3).as_deref(), Some("404 No artifact"));
        assert_eq!((V2.message(v3), V3.message(v2), V2.message(b"")), (None, None, None));
    }

    #[test]
    fn apicurio_paths_of_both_versions() {
        assert_eq!(
            V2.metadata("g 1", "a/b", "latest"),
            "/apis/registry/v2/groups/g%201/artifacts/a%2Fb/meta"
        );
        assert_eq!(
            V2.metadata("g", "a", "2"),
            "/apis/registry/v2/groups/g/artifacts/a/versions/2/meta"
        );
        for (version, want) in
            [("latest", "branch=latest"), ("2", "2"), ("branch=x", "branch=x"), ("a/b", "a%2Fb")]
        {
            let path = format!("/apis/registry/v3/groups/g/artifacts/a/versions/{want}");
            assert_eq!(V3.metadata("g", "a", version), path);
            let places = V3.by_version("g", "a", version);
            assert_eq!(places.content, format!("{path}/content?references=PRESERVE"));
            assert_eq!(places.references, format!("{path}/references"));
        }
        let content = |api: Api, use_id| api.by_number(use_id, 9).content;
        assert_eq!(
            content(V2, SchemaIdKind::GlobalId),
            "/apis/registry/v2/ids/globalIds/9?dereference=false"
        );
        assert_eq!(content(V2, SchemaIdKind::ContentId), "/apis/registry/v2/ids/contentIds/9");
        assert_eq!(content(V3, SchemaIdKind::ContentId), "/apis/registry/v3/ids/contentIds/9");
        let lost = r#"{"name":"n","groupId":null,"artifactId":"a","version":null}"#;
        let lost: ApicurioReference = serde_json::from_str(lost).unwrap();
        assert_eq!((lost.group(), lost.version()), ("default", "latest"));
    }
}
