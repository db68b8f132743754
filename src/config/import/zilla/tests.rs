//! Tests of the conversion of chains, and of refusals with their lines.

use crate::config::root::Config;
use crate::config::route::Condition;
use crate::config::route::{EndpointKind, Route};
use crate::config::{Balance, FileFormat, Mutual, TlsVersion};
use crate::settings::error::Error;
use crate::settings::pattern::Pattern;

const PROXY: &str = include_str!("../../../../examples/zilla/proxy.yaml");

/// A chain that ends in `echo`, with or without `fan` before it.
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
    let lookup = |name: &str| match name {
        "PORT" => Some("7115".to_owned()),
        "UPSTREAM" => Some("a.example".to_owned()),
        "STORE_PASSWORD" => Some("generated".to_owned()),
        _ => None,
    };
    let parsed = Config::parse_with(text, FileFormat::Yaml, "f", &lookup);
    parsed.map_err(|error: Error| error.to_string())
}

/// Applies each replacement to `text` and checks that the error contains the given text.
fn refused(text: &str, cases: &[(&str, &str, &str)]) {
    for (from, to, want) in cases {
        assert!(text.contains(from), "{from}");
        let error = parse(&text.replacen(from, to, 1)).expect_err(to);
        assert!(error.contains(want), "{error}\n{want}");
    }
}

#[test]
fn zilla_echo_and_reflect_become_a_listener_with_routes() {
    for (end, endpoint) in
        [("north_echo", EndpointKind::Echo), ("north_fan", EndpointKind::Reflect)]
    {
        let config = parse(&chain(end)).unwrap();
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].address.to_string(), "0.0.0.0:7114");
        assert_eq!(config.listeners[0].allowed_origins, [Pattern::new("same-origin")]);
        let listeners = vec!["north_tcp.7114".to_owned()];
        let protocol = Pattern::new("echo");
        let when = vec![Condition { protocol, ..Condition::default() }];
        let route = Route { when, listeners: listeners.clone(), ..Route::to(endpoint) };
        let reject = Route { listeners, status: 404, ..Route::to(EndpointKind::Reject) };
        assert_eq!(config.routes, [route, reject]);
        assert!(config.apps.is_empty());
        assert!(config.metrics.zilla && !config.metrics.open);
        assert_eq!(config.metrics.namespace, "example");
    }
}

#[test]
fn zilla_ports_variables_and_conditions() {
    let text = chain("north_echo").replace("port: 7114", "port: [7114, '${{env.PORT}}']");
    let text = text
        .replace("upgrade: websocket", "':path': /a*")
        .replace("- protocol: echo", "- {protocol: a, scheme: http}\n          - authority: b");
    let config = parse(&text).unwrap();
    assert_eq!(config.listeners[1].address.port(), 7115);
    assert_eq!(config.routes[0].listeners, ["north_tcp.7114", "north_tcp.7115"]);
    let conditions = config.routes[0].when.iter().map(|it| {
        [&it.protocol, &it.scheme, &it.authority, &it.path].map(Pattern::as_str).join(" ")
    });
    assert_eq!(conditions.collect::<Vec<_>>(), ["a http  /a*", "  b /a*"]);
    assert_eq!(config.routes[1].when[0].path.as_str(), "/a*");
    let text = text.replace("authority: b", "path: /b");
    assert!(parse(&text).unwrap_err().contains("a route of north_http has a condition"));
    let text = chain("north_echo").replace("name: example", "name: 'a${{env.PORT}}b${{env.PORT}}'");
    assert_eq!(parse(&text).unwrap().metrics.namespace, "a7115b7115", "within a text");
}

#[test]
fn zilla_unsupported_parts_are_named_with_their_line() {
    refused(
        &chain("north_fan"),
        &[
            ("type: echo", "type: kafka", "f:30:3: bindings.north_echo: a binding of type kafka"),
            ("kind: server\n    exit: north_echo", "kind: proxy", "f:26:3: bindings.north_fan: "),
            ("exit: north_echo", "exit: none", "f:26:3: bindings.north_fan: the exit `none` is"),
            ("exit: north_ws", "exit: north_echo", "bindings.north_http: the exit `north_echo`"),
            ("port: 7114", "port: 1-2", "f:9:7: bindings.north_tcp.options.port: `1-2` is not a"),
            ("host: 0.0.0.0", "host: a.b", "f:4:3: bindings.north_tcp: `a.b` is not an IP"),
            (
                "upgrade: websocket",
                "upgrade: h2c",
                "f:17:15: bindings.north_http.routes[0].when[0].headers.upgrade: only `upgrade",
            ),
            ("upgrade: websocket", "x: y", "f:17:15: bindings.north_http.routes[0].when[0].head"),
            (
                "port: 7114",
                "port: '${{env.NO}}'",
                "f:9:7: bindings.north_tcp.options.port: the env",
            ),
            (
                "port: 7114",
                "port: '${{x}}'",
                "options.port: an expression must have the form `${{env",
            ),
            ("type: tcp", "type: sse", "f:4:3: bindings.north_tcp: a binding of type sse"),
            (
                "type: tcp",
                "type: tls",
                "f:3:1: bindings: at least one binding of type tcp, kind server is required",
            ),
            ("name: example", "stores: {}", "f:2:1: stores: unknown key; accepted keys: name, v"),
            (
                "name: example",
                "catalogs: {a: {}}",
                "f:2:12: catalogs.a: catalogs are not supported",
            ),
            (
                "    type: fan\n",
                "    type: fan\n    options: {}\n",
                "f:28:5: bindings.north_fan.opt",
            ),
        ],
    );
}

#[test]
fn zilla_ports_may_lead_to_different_chains() {
    let text = chain("north_echo").replace("port: 7114", "port: [7114, 7115, 7116]").replacen(
        "    exit: north_http\n",
        "    routes:\n      - when:\n          - port: [7115]\n        exit: other_http\n    \
         exit: north_http\n  other_http:\n    type: http\n    kind: server\n    exit: other_ws\n  \
         other_ws:\n    type: ws\n    kind: server\n    exit: north_fan\n",
        1,
    );
    let config = parse(&text).unwrap();
    let routes = config.routes.iter().map(|it| (it.endpoint, it.listeners.join(" ")));
    let (all, one) = ("north_tcp.7114 north_tcp.7116".to_owned(), "north_tcp.7115".to_owned());
    let want = [
        (EndpointKind::Echo, all.clone()),
        (EndpointKind::Reject, all),
        (EndpointKind::Reflect, one.clone()),
        (EndpointKind::Reject, one),
    ];
    assert_eq!(routes.collect::<Vec<_>>(), want);
    refused(
        &text,
        &[
            ("- port: [7115]", "- cidr: 10.0.0.0/8", "north_tcp.routes[0].when[0].cidr: unknown"),
            ("    exit: north_http\n", "", "bindings.north_tcp: the binding has no exit"),
        ],
    );
}

#[test]
fn zilla_proxy_chain_has_tls_on_both_sides() {
    let config = parse(PROXY).unwrap();
    let [listener, exporter] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(listener.address.to_string(), "0.0.0.0:7143");
    let [certificate] = listener.tls.certificates.as_slice() else { panic!("one certificate") };
    assert_eq!((&*certificate.pkcs12, &*certificate.alias), ("localhost.p12", "localhost"));
    assert_eq!(certificate.password.expose(), "generated");
    assert_eq!((listener.tls.mutual, listener.tls.min_version), (Mutual::None, TlsVersion::V12));
    let [metrics, proxied, reject] = config.routes.as_slice() else { panic!("three routes") };
    assert_eq!((proxied.endpoint, reject.status), (EndpointKind::Proxy, 404));
    let proxy = proxied.proxy.as_ref().unwrap();
    assert_eq!(proxy.upstreams[0].to_string(), "wss://a.example:8443");
    assert_eq!((proxy.upstreams.len(), proxy.balance), (1, Balance::RoundRobin));
    assert_eq!(
        (&*proxy.tls.ca_file, proxy.tls.ca_aliases.join(" ")),
        ("trust.p12", "localhost".into())
    );
    assert!(proxy.tls.ca_system && proxy.tls.server_name == "localhost");
    assert_eq!(proxy.tls.ca_password.expose(), "generated");
    assert_eq!((exporter.address.port(), &*exporter.name), (7190, "prometheus.7190"));
    assert_eq!(
        (metrics.endpoint, &metrics.listeners[..]),
        (EndpointKind::Metrics, &["prometheus.7190".to_owned()][..])
    );
    assert_eq!(metrics.when[0].path.as_str(), "/metrics");
    assert!(config.metrics.open);
}

#[test]
fn zilla_spellings_of_a_proxy() {
    let proxy = |text: &str| {
        let routes = parse(text).unwrap_or_else(|error| panic!("{error}")).routes;
        routes.iter().find_map(|it| it.proxy.clone()).expect("a proxy")
    };
    let plain = PROXY.replace("exit: tls_client", "exit: tcp_client");
    assert_eq!(proxy(&plain).upstreams[0].to_string(), "ws://a.example:8443");
    let many = PROXY.replace("host: ${{env.UPSTREAM}}", "host: [a, '::1']");
    let urls: Vec<_> = proxy(&many).upstreams.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["wss://a:8443", "wss://[::1]:8443"]);
    let alone = PROXY.replace("      trustcacerts: true\n", "");
    assert!(!proxy(&alone).tls.ca_system, "trust is enough");
    let system = PROXY.replace("      trust:\n        - localhost\n", "");
    assert_eq!(proxy(&system).tls.ca_file, "");
    let headers = "      overrides:\n        :authority: b.example\n        Cookie: a=b\n";
    let headers = PROXY.replace("    exit: tls_client", &format!("{headers}    exit: tls_client"));
    let set = proxy(&headers).set_headers.clone();
    assert_eq!(set.keys().collect::<Vec<_>>(), ["Cookie", "Host"]);
    assert!(!proxy(&headers).pass_headers.iter().any(|it| it == "Cookie"));
    let with_alias =
        PROXY.replace("      trustcacerts: true\n", "      keys: [Me]\n      version: TLSv1.3\n");
    let tls = &proxy(&with_alias).tls;
    assert_eq!((&*tls.certificate.alias, tls.min_version), ("Me", TlsVersion::V13));
    let pem = PROXY.replace("type: pkcs12", "type: pem").replace(".p12", ".pem");
    assert_eq!(proxy(&pem).tls.ca_password.expose(), "");
    let certificate = parse(&pem).unwrap().listeners[0].tls.certificates[0].clone();
    assert_eq!((&*certificate.cert, &*certificate.key), ("localhost.pem", "localhost.pem"));
    let mutual = "      sni:\n        - localhost\n      trust: [me]\n      alpn";
    let mutual = PROXY.replacen("      sni:\n        - localhost\n      alpn", mutual, 1);
    let tls = parse(&mutual).unwrap().listeners[0].tls.clone();
    assert_eq!(
        (tls.mutual, &*tls.client_ca, &*tls.client_ca_aliases[0]),
        (Mutual::Required, "trust.p12", "me")
    );
}

// Long because it is one table of faulty files and their messages.
#[test]
fn zilla_unsupported_parts_of_a_proxy_are_named() {
    refused(
        PROXY,
        &[
            ("type: filesystem", "type: aws", "f:14:3: vaults.stores: a vault of type aws"),
            ("type: pkcs12", "type: jks", "f:17:7: vaults.stores.options.keys: the type must be"),
            (
                "        store: localhost.p12\n",
                "",
                "vaults.stores.options.keys: the key `store` is",
            ),
            (
                "vault: stores",
                "vault: other",
                "f:33:3: bindings.tls_server: the vault `other` does",
            ),
            ("    vault: stores\n", "", "f:33:3: bindings.tls_server: the key `vault` is"),
            (
                "      keys:\n        - localhost\n",
                "",
                "bindings.tls_server.options: the key `keys` is missing or empty",
            ),
            ("      sni:", "      signers: [a]\n      sni:", "tls_server.options.signers: unknown"),
            ("- http/1.1", "- h2", "tls_server.options.alpn: alpn must include http"),
            ("      sni:", "      mutual: maybe\n      sni:", "options: mutual must be required"),
            ("      sni:", "      version: SSLv3\n      sni:", "options: version must be TLS"),
            (
                "      sni:",
                "      mutual: required\n      sni:",
                "options: the key `trust` is missing or empty",
            ),
            ("exit: tcp_client", "exit: tcp_server", "bindings.tls_client: the exit `tcp_server`"),
            ("    exit: tcp_client\n", "", "bindings.tls_client: the key `exit` is missing"),
            ("host: ${{env.UPSTREAM}}", "host: a/b", "tcp_client.options.host: `a/b:8443` is"),
            (
                "      host: ${{env.UPSTREAM}}\n",
                "",
                "bindings.tcp_client.options: the key `host` is",
            ),
            ("port: 8443", "port: 0", "tcp_client.options.host: `a.example:0` is not"),
            (
                "type: prometheus",
                "type: kafka",
                "f:91:5: telemetry.exporters.prometheus: an exporter of type kafka is not \
                 supported; supported: stdout, prometheus, otlp",
            ),
            ("type: prometheus", "type: stdout", "exporters.prometheus.options: unknown key"),
            (
                "scheme: http\n",
                "scheme: https\n",
                "endpoints[0]: the scheme must be http, not https",
            ),
            ("port: 7190", "port: x", "endpoints[0].port: expected a port number"),
            ("  metrics:\n", "  attributes: {}\n  metrics:\n", "telemetry.attributes: unknown key"),
        ],
    );
    let neither = PROXY.replace("      trust:\n        - localhost\n", "");
    let options = [("trustcacerts: true", "trustcacerts: false", "options: either trust or")];
    refused(&neither, &options);
    let authority = PROXY
        .replace("    exit: tls_client", "      overrides: {':path': /}\n    exit: tls_client");
    assert!(parse(&authority).unwrap_err().contains("overrides.:path: only `:authority` and"));
}

#[test]
fn zilla_exporter_stdout_writes_events_and_otlp_has_no_effect() {
    let with =
        |exporters: &str| format!("{}telemetry:\n  exporters:\n{exporters}", chain("north_echo"));
    let stdout = parse(&with("    a: {type: stdout}\n")).unwrap();
    assert!(stdout.log.events_to_stdout && stdout.warnings.is_empty());
    assert_eq!(stdout.listeners.len(), 1);
    let otlp = "    a:\n      type: otlp\n      options:\n        interval: 10\n        \
                signals: [metrics, logs]\n        endpoint:\n          protocol: http\n          \
                location: http://localhost:4317\n";
    let config = parse(&with(otlp)).unwrap();
    assert!(!config.log.events_to_stdout);
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    let want = "f:35:5: telemetry.exporters.a: an exporter of type otlp has no effect";
    assert!(warning.starts_with(want), "{warning}");
    let without =
        |exporter: &str| Config { warnings: Vec::new(), ..parse(&with(exporter)).unwrap() };
    assert_eq!(without(otlp), parse(&chain("north_echo")).unwrap(), "there is no other difference");
    refused(
        &with(otlp),
        &[
            ("http://", "grpc://", "f:42:11: telemetry.exporters.a.options.endpoint.location: th"),
            ("[metrics, logs]", "[traces]", "options.signals[0]: a signal must be metrics or logs"),
            ("interval: 10", "interval: x", "options.interval: expected an integer, 0 or more"),
            ("protocol: http", "protocol: grpc", "endpoint.protocol: the protocol must be http"),
            ("location:", "url:", "options.endpoint.url: unknown key"),
            ("interval:", "every:", "options.every: unknown key"),
            ("type: otlp", "type: otel", "f:35:5: telemetry.exporters.a: an exporter of type otel"),
        ],
    );
}

/// A chain with `echo` whose http binding has an authorization, with a role on the http route.
fn guarded() -> String {
    let guard = "guards:\n  my_jwt:\n    type: jwt\n    options:\n      \
                 issuer: https://auth.example.com\n      audience: https://api.example.com\n      \
                 roles: realm.roles\n      identity: email\n      challenge: 30\n      \
                 attributes: {name: profile.name}\n      keys:\n        \
                 - {kty: oct, kid: a, alg: HS256, k: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY}\n\
                 bindings:\n";
    let options = "    options:\n      access-control:\n        policy: cross-origin\n        \
                   allow:\n          origins: ['https://A.example']\n          \
                   methods: [GET]\n      \
                   authorization:\n        my_jwt:\n          credentials:\n            \
                   headers: {authorization: 'Bearer {credentials}'}\n            \
                   query: {access_token: '{credentials}'}\n            \
                   cookies: {token: '{credentials}'}\n    routes:\n      - guarded:\n          \
                   my_jwt: [echo:stream]\n        when:";
    let text = chain("north_echo").replace("bindings:\n", guard);
    text.replacen("    routes:\n      - when:", options, 1)
}

#[test]
fn zilla_guards_and_origins_of_an_http_binding() {
    let config = parse(&guarded()).unwrap_or_else(|error| panic!("{error}"));
    let guard = &config.guards[0];
    let named = [&guard.name, &guard.issuer, &guard.audience, &guard.roles, &guard.identity];
    let urls = ["https://auth.example.com", "https://api.example.com"];
    assert_eq!(named, ["my_jwt", urls[0], urls[1], "realm.roles", "email"]);
    assert_eq!((guard.challenge_s, &*guard.keys[0].kid, guard.keys.len()), (30, "a", 1));
    assert_eq!(guard.attributes["name"], "profile.name");
    assert_eq!(guard.credentials.headers["authorization"], "Bearer {credentials}");
    assert_eq!(guard.credentials.query["access_token"], "{credentials}");
    assert_eq!(guard.credentials.cookies["token"], "{credentials}");
    let roles: Vec<_> = config.routes.iter().map(|it| it.guarded.get("my_jwt").cloned()).collect();
    let roles_of_all = Some(vec!["echo:stream".to_owned()]);
    // The reject route has the same guard, so a client that the guard refuses does not get its 404.
    assert_eq!(roles, [roles_of_all.clone(), roles_of_all]);
    assert_eq!(config.listeners[0].allowed_origins, [Pattern::new("https://a.example")]);
    let any = guarded().replace("          origins: ['https://A.example']\n", "");
    assert!(parse(&any).unwrap().listeners[0].allowed_origins.is_empty());
    let url = guarded();
    let (head, tail) = url.split_once("      keys:\n").unwrap();
    let (_, tail) = tail.split_once('\n').unwrap();
    let fetched = parse(&format!("{head}      keys: http://k.example/set\n{tail}")).unwrap();
    assert_eq!(fetched.guards[0].url(), "http://k.example/set");
    let none = parse(&format!("{head}{tail}")).unwrap();
    assert_eq!(none.guards[0].url(), "https://auth.example.com/.well-known/jwks.json");
    let inner = guarded()
        .replace("- protocol: echo\n", "- protocol: echo\n        guarded: {my_jwt: [b]}\n");
    assert_eq!(parse(&inner).unwrap().routes[0].guarded["my_jwt"], ["echo:stream", "b"]);
}

#[test]
fn zilla_unsupported_parts_of_a_guard_are_named() {
    refused(
        &guarded(),
        &[
            ("type: jwt", "type: x509", "f:4:3: guards.my_jwt: a guard of type x509 is not"),
            (
                "      issuer:",
                "      issuers: [a]\n      issuer:",
                "f:7:7: guards.my_jwt.options.iss",
            ),
            ("challenge: 30", "challenge: soon", "options.challenge: expected an integer"),
            ("kid: a", "kyd: a", "guards.my_jwt.options.keys[0].kyd: unknown key"),
            (
                "my_jwt:\n          cred",
                "other:\n          cred",
                "authorization.other: the guard `other` does",
            ),
            (
                "Bearer {credentials}",
                "Bearer",
                "credentials.headers.authorization: expected a text",
            ),
            ("policy: cross-origin", "policy: none", "access-control: policy must be same"),
            ("my_jwt: [echo", "other: [echo", "routes[0].guarded.other: the authorization of"),
            ("methods: [GET]", "method: [GET]", "access-control.allow.method: unknown key"),
            (
                "      access-control:",
                "      requests: []\n      access-control:",
                "options.requests:",
            ),
            (
                "      access-control:",
                "      versions: [h2]\n      access-control:",
                "versions must include http/1.1",
            ),
        ],
    );
    let lost = chain("north_echo")
        .replace("        exit: north_echo", "        guarded: {g: []}\n        exit: north_echo");
    assert!(parse(&lost).unwrap_err().contains("bindings.north_ws.routes[0].guarded.g: the auth"));
}

#[test]
fn zilla_errors_name_the_line_of_the_original() {
    refused(
        &guarded(),
        &[
            ("challenge: 30", "challenge: 90000", "f:4:3: guards[0].challenge_s: 90000 is out of"),
            ("k: MDEy", "k: MD", "f:4:3: guards[0].keys[0]: the value (not shown)"),
            ("https://A.example", "nowhere", "f:16:3: listeners[0].allowed_origins[0]: `nowhere`"),
            ("protocol: echo", "path: echo", "f:16:3: routes[0].when[0].path: `echo` is not"),
        ],
    );
}
