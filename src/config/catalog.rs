//! Checks of catalogs, the sources of message schemas, beyond what their types express.

use std::path::Path;

use hyper::header::HeaderValue;

use super::error::{Error, Problem};
use super::outgoing;
use super::range::range;
use crate::model::spec::{Catalog, CatalogKind};
use crate::tls;

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
            let wrong = |error| Error::keyed(format!("{key}.ca_file"), Problem::File(error));
            tls::roots(&path).map_err(wrong)?;
            *file = path.to_string_lossy().into_owned();
        }
    }
    Ok(())
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
    range("max_age_s", catalog.max_age_ms() / 1000, 1..=86_400, " seconds")?;
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
    let shown = !catalog.credentials.headers.authorization.expose().is_empty();
    [
        ("subjects", !registry, !catalog.subjects.is_empty()),
        ("url", registry, !catalog.url.is_empty()),
        ("max_age_s", registry, catalog.max_age_s.is_some()),
        ("ca_file", registry, !catalog.ca_file.is_empty()),
        ("credentials", registry, shown),
        ("context", catalog.kind == CatalogKind::SchemaRegistry, catalog.context.is_some()),
        ("group_id", apicurio, catalog.group_id.is_some()),
        ("use_id", apicurio, catalog.use_id.is_some()),
        ("id_encoding", apicurio, catalog.id_encoding.is_some()),
        ("api", apicurio, catalog.api.is_some()),
    ]
    .into_iter()
    .find_map(|(key, known, given)| (given && !known).then_some(key))
}
