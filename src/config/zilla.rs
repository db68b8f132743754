//! A Zilla file: its chains of bindings (tcp, http, ws, and echo, or fan and echo) become listeners
//! and routes. <https://docs.aklivity.io/zilla/latest/reference/config/bindings/>

use super::Listener;
use super::env::Lookup;
use super::error::{Error, Problem};
use super::pattern::Pattern;
use super::route::Condition;
use super::schema::{Config, Endpoint, Route};
use super::tree::{Key, Node, Value};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What Zilla answers where no route is.
const NO_ROUTE: u16 = 404;

/// Whether a file is one of Zilla's: its top has `bindings`.
pub(super) fn is_zilla(tree: &Node) -> bool {
    tree.get("bindings").is_some()
}

/// The configuration that a Zilla file stands for.
pub(super) fn read(tree: &Node, lookup: &Lookup<'_>) -> Result<Config, Error> {
    tree.only("", &["name", "telemetry", "bindings"])?;
    if let Some(telemetry) = tree.get("telemetry") {
        telemetry.only("telemetry", &["metrics"])?;
    }
    let bindings = tree.get("bindings").map(Node::entries).unwrap_or_default();
    let file = File { bindings, lookup };
    let mut config = Config { listeners: Vec::new(), routes: Vec::new(), ..Config::default() };
    for (key, binding) in bindings {
        let here = Here { key, binding };
        let (kind, role) = (here.word("type")?, here.word("kind")?);
        if !matches!(kind, "tcp" | "http" | "ws" | "fan" | "echo") || role != "server" {
            return Err(
                here.wrong(format!("a binding of type {kind}, kind {role} is not supported"))
            );
        }
    }
    for (key, binding) in bindings {
        let here = Here { key, binding };
        if here.word("type")? == "tcp" {
            file.tcp(here, &mut config)?;
        }
    }
    if config.listeners.is_empty() {
        return Err(Error::keyed("bindings", Problem::Other("none is of type tcp".to_owned())));
    }
    Ok(config)
}

struct File<'a> {
    bindings: &'a [(Key, Node)],
    lookup: &'a Lookup<'a>,
}

/// One binding.
#[derive(Clone, Copy)]
struct Here<'a> {
    key: &'a Key,
    binding: &'a Node,
}

/// A way on from a binding: on what conditions, any of them or always, and to which binding.
type Way<'a> = (Vec<Condition>, &'a Node);

impl Node {
    fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(entries) => entries,
            _ => &[],
        }
    }

    fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// Refuses what is no table, and one that has other keys.
    fn only(&self, path: &str, known: &'static [&'static str]) -> Result<(), Error> {
        if !matches!(self.value, Value::Table(_) | Value::Null) {
            let problem = Problem::Other("a table is needed here".to_owned());
            return Err(Error::keyed(path, problem).or_at(self.position));
        }
        let other = self.entries().iter().find(|(key, _)| !known.contains(&key.name.as_str()));
        let Some((key, _)) = other else { return Ok(()) };
        let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
        Err(Error::keyed(path, Problem::UnknownKey { known }).or_at(key.position))
    }
}

impl<'a> Here<'a> {
    fn path(&self) -> String {
        format!("bindings.{}", self.key.name)
    }

    fn wrong(&self, problem: String) -> Error {
        Error::keyed(self.path(), Problem::Other(problem)).or_at(self.key.position)
    }

    fn word(&self, name: &str) -> Result<&'a str, Error> {
        match self.binding.get(name).map(|node| &node.value) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(self.wrong(format!("it has no {name}"))),
        }
    }

    /// The ways on, in order: those of its routes, then its own exit.
    fn ways(&self, file: &File<'_>) -> Result<Vec<Way<'a>>, Error> {
        let mut ways = Vec::new();
        for route in self.binding.get("routes").map(Node::list).unwrap_or_default() {
            route.only(&format!("{}.routes", self.path()), &["when", "exit"])?;
            let when = route.get("when").map(Node::list).unwrap_or_default();
            let when = when.iter().map(|entry| self.condition(entry, file));
            let exit = route.get("exit").or(self.binding.get("exit"));
            let exit = exit.ok_or_else(|| self.wrong("a route has no exit".to_owned()))?;
            ways.push((when.collect::<Result<_, _>>()?, exit));
        }
        ways.extend(self.binding.get("exit").map(|exit| (Vec::new(), exit)));
        Ok(ways)
    }

    fn condition(&self, entry: &Node, file: &File<'_>) -> Result<Condition, Error> {
        let path = format!("{}.routes.when", self.path());
        let entry = match self.word("type")? {
            "http" => {
                entry.only(&path, &["headers"])?;
                let Some(headers) = entry.get("headers") else { return Ok(Condition::default()) };
                headers.only(&path, &["upgrade", ":scheme", ":authority", ":path"])?;
                headers
            }
            _ => {
                entry.only(&path, &["protocol", "scheme", "authority", "path"])?;
                entry
            }
        };
        let mut condition = Condition::default();
        for (key, node) in entry.entries() {
            let text = file.text(node).map_err(|error| error.under(&path))?;
            let place = match key.name.trim_start_matches(':') {
                "protocol" => &mut condition.protocol,
                "scheme" => &mut condition.scheme,
                "authority" => &mut condition.authority,
                "path" => &mut condition.path,
                // Messages are for WebSockets alone.
                _ if text.eq_ignore_ascii_case("websocket") => continue,
                _ => return Err(self.wrong("only `upgrade: websocket` is supported".to_owned())),
            };
            *place = Pattern::new(text);
        }
        Ok(condition)
    }
}

impl<'a> File<'a> {
    /// A text or a number; `${{env.NAME}}` is the variable.
    fn text(&self, node: &Node) -> Result<String, Error> {
        let wrong = |problem| Error::new(problem).or_at(node.position);
        let text = match &node.value {
            Value::Text(text) => text,
            Value::Int(number) => return Ok(number.to_string()),
            _ => return Err(wrong(Problem::Other("a text is needed here".to_owned()))),
        };
        let name = text.strip_prefix("${{env.").and_then(|rest| rest.strip_suffix("}}"));
        match name {
            Some(name) => {
                (self.lookup)(name).ok_or_else(|| wrong(Problem::Environment(name.to_owned())))
            }
            None if text.contains("${{") => Err(wrong(Problem::Other(
                "an expression stands for the whole value, and is `${{env.NAME}}`".to_owned(),
            ))),
            None => Ok(text.clone()),
        }
    }

    /// The binding that an exit names, which has to be of one of these types.
    fn exit(&self, from: Here<'_>, exit: &Node, kinds: &[&str]) -> Result<Here<'a>, Error> {
        let name = self.text(exit)?;
        let found = self.bindings.iter().find(|(key, _)| key.name == name);
        let to = found.map(|(key, binding)| Here { key, binding });
        match to {
            Some(to) if kinds.contains(&to.word("type")?) => Ok(to),
            _ => {
                let kinds = kinds.join(" or ");
                let problem = format!("its exit `{name}` is no binding of type {kinds}");
                Err(from.wrong(problem).or_at(exit.position))
            }
        }
    }

    fn tcp(&self, here: Here<'a>, config: &mut Config) -> Result<(), Error> {
        here.binding.only(&here.path(), &["type", "kind", "options", "exit"])?;
        let options = here.binding.get("options").ok_or_else(|| here.wrong("no options".into()))?;
        options.only(&format!("{}.options", here.path()), &["host", "port"])?;
        let host = match options.get("host").map(|host| self.text(host)).transpose()?.as_deref() {
            None => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Some("localhost") => Ipv4Addr::LOCALHOST.into(),
            Some(host) => {
                host.parse().map_err(|_| here.wrong(format!("`{host}` is no address")))?
            }
        };
        let port = options.get("port").ok_or_else(|| here.wrong("it has no port".to_owned()))?;
        let ports = match &port.value {
            Value::List(ports) => ports.iter().collect(),
            _ => vec![port],
        };
        let mut names = Vec::new();
        for port in ports {
            let port = self.text(port)?;
            let number = port.parse().map_err(|_| here.wrong(format!("`{port}` is no port")))?;
            let name = format!("{}.{number}", here.key.name);
            let address = SocketAddr::new(host, number);
            names.push(name.clone());
            config.listeners.push(Listener { address, name, ..Listener::default() });
        }
        let exit = here.binding.get("exit").ok_or_else(|| here.wrong("it has no exit".into()))?;
        self.http(self.exit(here, exit, &["http"])?, &names, config)
    }

    fn http(&self, here: Here<'a>, names: &[String], config: &mut Config) -> Result<(), Error> {
        here.binding.only(&here.path(), &["type", "kind", "routes", "exit"])?;
        for (outer, exit) in here.ways(self)? {
            let ws = self.exit(here, exit, &["ws"])?;
            ws.binding.only(&ws.path(), &["type", "kind", "routes", "exit"])?;
            for (inner, exit) in ws.ways(self)? {
                let endpoint = self.end(self.exit(ws, exit, &["echo", "fan"])?)?;
                let when = both(&outer, inner)
                    .ok_or_else(|| ws.wrong(format!("{} has the same condition", here.key.name)))?;
                let listeners = names.to_vec();
                config.routes.push(Route { when, listeners, ..Route::to(endpoint) });
            }
            // Who is not let in there is not for the next one.
            let (when, listeners) = (both(&[], outer).unwrap_or_default(), names.to_vec());
            let status = NO_ROUTE;
            config.routes.push(Route { when, listeners, status, ..Route::to(Endpoint::Reject) });
        }
        Ok(())
    }

    /// The end of a chain.
    fn end(&self, here: Here<'a>) -> Result<Endpoint, Error> {
        if here.word("type")? == "echo" {
            here.binding.only(&here.path(), &["type", "kind"])?;
            return Ok(Endpoint::Echo);
        }
        here.binding.only(&here.path(), &["type", "kind", "exit"])?;
        let exit = here.binding.get("exit").ok_or_else(|| here.wrong("it has no exit".into()))?;
        self.end(self.exit(here, exit, &["echo"])?)?;
        Ok(Endpoint::Reflect)
    }
}

/// Conditions of which each is one of `outer` and one of `inner`; `None` if a key is in both.
fn both(outer: &[Condition], inner: Vec<Condition>) -> Option<Vec<Condition>> {
    let any = [Condition::default()];
    let outer = if outer.is_empty() { &any } else { outer };
    let inner = if inner.is_empty() { any.to_vec() } else { inner };
    let mut all = Vec::new();
    for (one, other) in outer.iter().flat_map(|one| inner.iter().map(move |other| (one, other))) {
        let mut both = other.clone();
        for (place, more) in [
            (&mut both.scheme, &one.scheme),
            (&mut both.authority, &one.authority),
            (&mut both.path, &one.path),
        ] {
            match (place.is_empty(), more.is_empty()) {
                (_, true) => {}
                (true, false) => *place = more.clone(),
                (false, false) => return None,
            }
        }
        all.push(both);
    }
    // What always holds makes the others idle.
    Some(if all.contains(&Condition::default()) { Vec::new() } else { all })
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;

    /// The chain of an echo, with `fan` before it or not.
    fn chain(end: &str) -> String {
        format!(
            "---\nname: example\nbindings:\n  \
               north_tcp:\n    type: tcp\n    kind: server\n    options:\n      \
                 host: 0.0.0.0\n      port: 7114\n    exit: north_http\n  \
               north_http:\n    type: http\n    kind: server\n    routes:\n      \
                 - when:\n          - headers:\n              upgrade: websocket\n        \
                   exit: north_ws\n  \
               north_ws:\n    type: ws\n    kind: server\n    routes:\n      \
                 - when:\n          - protocol: echo\n        exit: {end}\n  \
               north_fan:\n    type: fan\n    kind: server\n    exit: north_echo\n  \
               north_echo:\n    type: echo\n    kind: server\n"
        )
    }

    fn parse(text: &str) -> Result<Config, String> {
        let lookup = |name: &str| (name == "PORT").then(|| "7115".to_owned());
        let parsed = Config::parse_with(text, Format::Yaml, "f", &lookup);
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn the_chains_of_echo_and_reflect_are_a_listener_and_its_routes() {
        for (end, endpoint) in [("north_echo", Endpoint::Echo), ("north_fan", Endpoint::Reflect)] {
            let config = parse(&chain(end)).unwrap();
            assert_eq!(config.listeners.len(), 1);
            assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:7114");
            let listeners = vec!["north_tcp.7114".to_owned()];
            let protocol = Pattern::new("echo");
            let when = vec![Condition { protocol, ..Condition::default() }];
            let route = Route { when, listeners: listeners.clone(), ..Route::to(endpoint) };
            let reject = Route { listeners, status: 404, ..Route::to(Endpoint::Reject) };
            assert_eq!(config.routes, [route, reject]);
            assert!(config.apps.is_empty());
        }
    }

    #[test]
    fn ports_variables_and_conditions_of_both() {
        let text = chain("north_echo").replace("port: 7114", "port: [7114, '${{env.PORT}}']");
        let text = text
            .replace("upgrade: websocket", "':path': /a*")
            .replace("- protocol: echo", "- {protocol: a, scheme: http}\n          - authority: b");
        let config = parse(&text).unwrap();
        assert_eq!(config.listeners[1].address.port(), 7115);
        assert_eq!(config.routes[0].listeners, ["north_tcp.7114", "north_tcp.7115"]);
        let shown = config.routes[0].when.iter().map(|it| {
            [&it.protocol, &it.scheme, &it.authority, &it.path].map(Pattern::as_str).join(" ")
        });
        assert_eq!(shown.collect::<Vec<_>>(), ["a http  /a*", "  b /a*"]);
        assert_eq!(config.routes[1].when[0].path.as_str(), "/a*");
        let text = text.replace("authority: b", "path: /b");
        assert!(parse(&text).unwrap_err().contains("north_http has the same condition"));
    }

    #[test]
    fn what_is_not_supported_is_named_with_its_line() {
        let text = chain("north_fan");
        for (from, to, want) in [
            ("type: echo", "type: kafka", "f:30:3: bindings.north_echo: a binding of type kafka"),
            ("kind: server\n    exit: north_echo", "kind: proxy", "f:26:3: bindings.north_fan: "),
            ("exit: north_echo", "exit: none", "f:26:3: bindings.north_fan: its exit `none` is no"),
            ("exit: north_ws", "exit: north_echo", "bindings.north_http: its exit `north_echo`"),
            ("port: 7114", "port: 1-2", "f:4:3: bindings.north_tcp: `1-2` is no port"),
            ("host: 0.0.0.0", "host: a.b", "f:4:3: bindings.north_tcp: `a.b` is no address"),
            ("upgrade: websocket", "upgrade: h2c", "f:11:3: bindings.north_http: only `upgrade"),
            ("upgrade: websocket", "x: y", "bindings.north_http.routes.when.x: unknown key"),
            ("port: 7114", "port: '${{env.NO}}'", "the environment variable `NO` is not set"),
            ("type: tcp", "type: tls", "f:4:3: bindings.north_tcp: a binding of type tls"),
            ("name: example", "vaults: {}", "f:2:1: vaults: unknown key; known here: name"),
            ("name: example", "telemetry: {exporters: {}}", "f:2:13: telemetry.exporters: "),
        ] {
            let error = parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(want), "{error}\n{want}");
        }
        assert!(parse(&text.replace("name: example", "telemetry: {metrics: [a]}")).is_ok());
    }
}
