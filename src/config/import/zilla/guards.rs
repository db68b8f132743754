//! Zilla guards of type jwt, and the credentials of http bindings.

use super::place::YamlPlace;
use crate::config::guard::{CREDENTIALS, Credentials, GuardConfig, GuardKey};
use crate::config::root::Config;
use crate::settings::error::Error;
use crate::settings::secret::Secret;
use std::collections::BTreeMap;

/// The required roles by the name of the guard.
pub(super) type Guarded = BTreeMap<String, Vec<String>>;

/// The guards of a file. Their credentials are set later, by [`authorise`].
pub(super) fn read(top: &YamlPlace<'_>) -> Result<Vec<GuardConfig>, Error> {
    top.below("guards")?.iter().map(guard).collect()
}

fn guard(place: &YamlPlace<'_>) -> Result<GuardConfig, Error> {
    place.only(&["type", "options"])?;
    let kind = place.need("type")?.text()?;
    if kind != "jwt" {
        return Err(place.wrong(format!("a guard of type {kind} is not supported")));
    }
    let mut guard = GuardConfig::new(place.name);
    // The author of the file chose the URL of the keys, so private addresses are allowed.
    guard.allow_private = true;
    // Zilla has no leeway.
    guard.leeway_s = 0;
    let Some(options) = place.get("options") else { return Ok(guard) };
    let known = &["issuer", "audience", "roles", "keys", "challenge", "identity", "attributes"];
    options.only(known)?;
    guard.issuer = options.word("issuer")?.unwrap_or_default();
    guard.audience = options.word("audience")?.unwrap_or_default();
    guard.roles = options.word("roles")?.unwrap_or(guard.roles);
    guard.identity = options.word("identity")?.unwrap_or(guard.identity);
    guard.challenge_s = options.number("challenge")?.unwrap_or(0);
    for attribute in options.below("attributes")? {
        guard.attributes.insert(attribute.name.to_owned(), attribute.text()?);
    }
    match options.list("keys").as_slice() {
        [url] if url.table().is_err() => guard.keys_url = url.text()?,
        keys => guard.keys = keys.iter().map(key).collect::<Result<_, _>>()?,
    }
    Ok(guard)
}

fn key(place: &YamlPlace<'_>) -> Result<GuardKey, Error> {
    place.only(&["kty", "kid", "alg", "use", "n", "e", "crv", "x", "y", "k"])?;
    let word = |name: &str| place.word(name).map(Option::unwrap_or_default);
    place.need("kty")?;
    Ok(GuardKey {
        kid: word("kid")?,
        alg: word("alg")?,
        kty: word("kty")?,
        usage: word("use")?,
        crv: word("crv")?,
        n: word("n")?,
        e: word("e")?,
        x: word("x")?,
        y: word("y")?,
        k: Secret::new(word("k")?),
        ..GuardKey::default()
    })
}

/// Adds the guard of an http binding's `authorization` to the configuration and returns its name.
pub(super) fn authorise(
    options: &YamlPlace<'_>,
    guards: &[GuardConfig],
    config: &mut Config,
) -> Result<Option<String>, Error> {
    let Some(place) = options.get("authorization") else { return Ok(None) };
    let named = place.table()?;
    let [named] = named.as_slice() else {
        return Err(place.wrong("expected exactly one guard"));
    };
    let guard = guards.iter().find(|it| it.name == named.name);
    let guard =
        guard.ok_or_else(|| named.wrong(format!("the guard `{}` does not exist", named.name)))?;
    named.only(&["credentials"])?;
    let credentials = credentials(&named.need("credentials")?)?;
    match config.guards.iter().find(|it| it.name == guard.name) {
        Some(other) if other.credentials != credentials => {
            return Err(
                named.wrong("another http binding has different credentials for this guard")
            );
        }
        Some(_) => {}
        None => config.guards.push(GuardConfig { credentials, ..guard.clone() }),
    }
    Ok(Some(guard.name.clone()))
}

fn credentials(place: &YamlPlace<'_>) -> Result<Credentials, Error> {
    place.only(&["headers", "query", "cookies"])?;
    let mut found = Credentials { headers: BTreeMap::new(), ..Credentials::default() };
    for (name, section) in [
        ("headers", &mut found.headers),
        ("query", &mut found.query),
        ("cookies", &mut found.cookies),
    ] {
        for pattern in place.below(name)? {
            let text = pattern.text()?;
            if text.matches(CREDENTIALS).count() != 1 {
                return Err(
                    pattern.wrong("expected a text that contains `{credentials}` exactly once")
                );
            }
            section.insert(pattern.name.to_owned(), text);
        }
    }
    Ok(found)
}

/// The roles that a route's `guarded` requires. Each guard must be `authorised`, the guard of the
/// chain's http binding.
pub(super) fn guarded(route: &YamlPlace<'_>, authorised: Option<&str>) -> Result<Guarded, Error> {
    let mut guarded = Guarded::new();
    for guard in route.below("guarded")? {
        if authorised != Some(guard.name) {
            let problem = "the authorization of the chain's http binding does not name this guard";
            return Err(guard.wrong(problem));
        }
        guarded.insert(guard.name.to_owned(), route.need("guarded")?.texts(guard.name)?);
    }
    Ok(guarded)
}
