//! Checks of catalogs, the sources of message schemas, beyond what their types express.

use std::path::Path;

use hyper::header::HeaderValue;

use super::outgoing;
use super::route::Route;
use crate::model::spec::{
    ApicurioApi, Catalog, CatalogKind, IdEncoding, SchemaIdKind, Spec, Subject,
};
use crate::settings::error::{Error, Problem};
use crate::settings::section::Section;
use crate::tls;

/// The example of the section in `polycast.example.toml`, as comments.
pub(super) const EXAMPLE: &str = r##"
# Sources of message schemas. "inline": in this file; "filesystem": in files, which are read
# together with the configuration. One [[catalogs]] for each, with a unique name; none by default.
# [[catalogs]]
# name = "local"
# type = "inline"
# [[catalogs.subjects]]
# name = "chat"
# # The version of the schema.
# version = "latest"
# # The text of an inline schema, or the path of a file.
# schema = '{"type": "object", "required": ["text"]}'
#
# Or a registry: "schema-registry" (Confluent's API; also "confluent-schema-registry", "karapace"
# and "karapace-schema-registry") or "apicurio" (also "apicurio-registry"). Requests to it do not
# block connections. When the registry fails, schemas that have been fetched stay in use, and the
# request is repeated after 1 s, and then after twice as long each time up to max_age_s. Until a
# schema has been fetched, messages are refused (1013). A schema may have at most 512 KiB, with all
# schemas that it refers to (at most 32, at most 8 levels deep).
# [[catalogs]]
# name = "registry"
# type = "schema-registry"
# # The URL of the registry, http or https, with the path below which its API is. Redirects are not
# # followed.
# url = "https://registry.example.com"
# # Maximum age of a schema that is looked up by its subject; then it is fetched again. Seconds, 1
# # to 86400.
# max_age_s = 300
# # PEM file of the certificate authorities that the registry is verified with. Empty is those of
# # the system.
# ca_file = ""
# # The Authorization field of requests to the registry: "Basic ..." or "Bearer ...". Empty is none.
# credentials = { headers = { authorization = "" } }
# # Only for "schema-registry": the context of subjects and schema ids.
# context = "default"
# # Only for "apicurio": the group of its artifacts; the id by which schemas are known, "globalId"
# # or "contentId"; and whether that id takes 8 bytes before a message ("default") or 4 ("legacy").
# # group_id = "default"
# # use_id = "globalId"
# # id_encoding = "default"
# # Only for "apicurio": the version of the REST API: "v2" (/apis/registry/v2, which registries 2.x
# # and 3.x serve) or "v3" (/apis/registry/v3, registries 3.x). With "v3", version may be a branch,
# # such as "branch=stable"; "latest" is "branch=latest".
# # api = "v2""##;

/// A catalog with every key, for the reference. The keys without a default have the values of the
/// example above.
pub(super) fn example_catalog() -> Catalog {
    let subject = Subject {
        name: "chat".to_owned(),
        version: "latest".to_owned(),
        schema: None,
        path: None,
        content: None,
    };
    Catalog {
        subjects: vec![subject],
        max_age_s: Some(300),
        context: Some("default".to_owned()),
        group_id: Some("default".to_owned()),
        use_id: Some(SchemaIdKind::default()),
        id_encoding: Some(IdEncoding::default()),
        api: Some(ApicurioApi::default()),
        ..Catalog::registry("local", CatalogKind::Inline, "")
    }
}

/// Checks all catalogs. If `folder` is given, also reads each `ca_file`, which is relative to
/// `folder`, and replaces it with its full path.
pub(super) fn prepare(catalogs: &mut [Catalog], folder: Option<&Path>) -> Result<(), Error> {
    for index in 0..catalogs.len() {
        let key = format!("catalogs[{index}]");
        let name = &catalogs[index].name;
        if let Some(other) = catalogs[..index].iter().position(|it| it.name == *name) {
            let (value, other) = (name.clone(), format!("catalogs[{other}].name"));
            return Err(Error::keyed(format!("{key}.name"), Problem::Duplicate { value, other }));
        }
        check(&catalogs[index]).map_err(|error| error.under(&key))?;
        let file = &mut catalogs[index].ca_file;
        if let Some(folder) = folder.filter(|_| !file.is_empty()) {
            let path = folder.join(&*file);
            let wrong = |error: tls::Error| {
                Error::keyed(format!("{key}.ca_file"), Problem::Other(error.to_string()))
            };
            tls::roots(&path).map_err(wrong)?;
            *file = path.to_string_lossy().into_owned();
        }
    }
    Ok(())
}

/// Reads the schema files that models of `routes` use, unless they have been read before; their
/// names are relative to `folder`. An error is reported when the model is compiled.
pub(super) fn read_schemas(catalogs: &mut [Catalog], routes: &[Route], folder: &Path) {
    let specs: Vec<&Spec> = routes.iter().flat_map(|route| route.model.specs()).collect();
    catalogs.iter_mut().for_each(|catalog| catalog.read_files(&specs, folder));
}

fn check(catalog: &Catalog) -> Result<(), Error> {
    if let Some(key) = strange_key(catalog) {
        let problem = format!("a catalog of this type does not accept the key `{key}`");
        return Err(Error::keyed(key, Problem::Other(problem)));
    }
    if !catalog.is_registry() {
        return Ok(());
    }
    let shape = |key: &str, found: &str, accepted| {
        Err(Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted }))
    };
    if !outgoing::is_target(&catalog.url) || catalog.url.contains('?') {
        let accepted = "an `http://` or `https://` URL with a host, without `user@`, `?query` and \
                        `#fragment`";
        return shape("url", &catalog.url, accepted);
    }
    catalog.check_ranges()?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let context = catalog.context.as_deref().unwrap_or("default");
    if context.is_empty() || !context.bytes().all(known) {
        let accepted = "one or more of A-Z, a-z, 0-9, `_`, `.` and `-`";
        return shape("context", context, accepted);
    }
    if catalog.group_id.as_ref().is_some_and(String::is_empty) {
        return shape("group_id", "", "a name that is not empty");
    }
    if HeaderValue::from_str(catalog.credentials.headers.authorization.expose()).is_err() {
        let problem = Problem::Secret { accepted: "printable ASCII characters" };
        return Err(Error::keyed("credentials.headers.authorization", problem));
    }
    Ok(())
}

/// The first key that is set although catalogs of this type do not have it.
fn strange_key(catalog: &Catalog) -> Option<&'static str> {
    let registry = catalog.is_registry();
    let apicurio = catalog.kind == CatalogKind::Apicurio;
    let has_authorization = !catalog.credentials.headers.authorization.expose().is_empty();
    [
        ("subjects", !registry, !catalog.subjects.is_empty()),
        ("url", registry, !catalog.url.is_empty()),
        ("max_age_s", registry, catalog.max_age_s.is_some()),
        ("ca_file", registry, !catalog.ca_file.is_empty()),
        ("credentials", registry, has_authorization),
        ("context", catalog.kind == CatalogKind::SchemaRegistry, catalog.context.is_some()),
        ("group_id", apicurio, catalog.group_id.is_some()),
        ("use_id", apicurio, catalog.use_id.is_some()),
        ("id_encoding", apicurio, catalog.id_encoding.is_some()),
        ("api", apicurio, catalog.api.is_some()),
    ]
    .into_iter()
    .find_map(|(key, known, given)| (given && !known).then_some(key))
}
