//! The bindings of a file, and how one names another as its exit.

use super::place::YamlPlace;
use super::vaults;
use crate::settings::error::Error;

/// The supported server bindings.
const SERVERS: [&str; 6] = ["tcp", "tls", "http", "ws", "fan", "echo"];
const CLIENTS: [&str; 4] = ["tcp", "tls", "http", "ws"];

/// The bindings of a file.
pub(super) struct Bindings<'a> {
    /// The whole file.
    pub(super) top: YamlPlace<'a>,
    /// All bindings, in the order of the file.
    pub(super) all: Vec<YamlPlace<'a>>,
}

/// The type and the kind of a binding.
pub(super) fn kind(binding: &YamlPlace<'_>) -> Result<(String, String), Error> {
    Ok((binding.need("type")?.text()?, binding.need("kind")?.text()?))
}

/// The ports of a binding's options: a number, or a list of numbers.
pub(super) fn ports(options: &YamlPlace<'_>) -> Result<Vec<u16>, Error> {
    options.need("port")?;
    let port = |place: &YamlPlace<'_>| {
        let text = place.text()?;
        text.parse().map_err(|_| place.wrong(format!("`{text}` is not a port number")))
    };
    options.list("port").iter().map(port).collect()
}

impl<'a> Bindings<'a> {
    /// Reads the bindings and checks that each is of a supported type.
    pub(super) fn new(top: &YamlPlace<'a>) -> Result<Bindings<'a>, Error> {
        vaults::check(top)?;
        let bindings = top.below("bindings")?;
        for binding in &bindings {
            let (kind, role) = kind(binding)?;
            let known = match role.as_str() {
                "server" => SERVERS.contains(&kind.as_str()),
                "client" => CLIENTS.contains(&kind.as_str()),
                _ => false,
            };
            if !known {
                let problem = format!("a binding of type {kind}, kind {role} is not supported");
                return Err(binding.wrong(problem));
            }
            if let Some(telemetry) = binding.get("telemetry") {
                telemetry.only(&["metrics"])?;
                telemetry.texts("metrics")?;
            }
        }
        Ok(Bindings { top: top.clone(), all: bindings })
    }

    /// The binding that `exit` names; an error if it is not of kind `role` and one of `types`.
    pub(super) fn exit(
        &self,
        from: &YamlPlace<'_>,
        exit: &YamlPlace<'_>,
        role: &str,
        types: &[&str],
    ) -> Result<YamlPlace<'a>, Error> {
        let name = exit.text()?;
        let found = self.all.iter().find(|it| it.name == name);
        let fits = |it: &&YamlPlace<'_>| {
            kind(it).is_ok_and(|(kind, its)| its == role && types.contains(&kind.as_str()))
        };
        let types = types.join(" or ");
        let problem = format!("the exit `{name}` is not a binding of type {types}, kind {role}");
        found.filter(fits).cloned().ok_or_else(|| from.wrong(problem))
    }
}
