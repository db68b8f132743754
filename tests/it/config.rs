//! The valid values of a configuration, and the key and the line in the error of each invalid one.

use polycast::config::{
    BadSignature, Config, DuplicateSubscribe, FileFormat, IoDriver, ListenAddress, Overrides,
    Problem, Route, RouteQuery,
};

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, FileFormat::Toml, "f").map_err(|error| error.to_string())
}

/// Checks texts in front of the smallest application: each with the beginning of its error, or ""
/// if it is valid.
fn check(cases: &[(&str, &str)]) {
    for (text, refusal) in cases {
        verify(&format!("{text}\n{APP}"), refusal);
    }
}

/// As `check`, with texts in the table of the smallest application, which begin on line 5.
fn check_app(cases: &[(&str, &str)]) {
    for (text, refusal) in cases {
        verify(&format!("{APP}{text}\n"), refusal);
    }
}

fn verify(text: &str, refusal: &str) {
    match parse(text) {
        Ok(_) => assert_eq!(refusal, "", "{text}"),
        Err(error) => {
            assert!(!refusal.is_empty(), "{text}: {error}");
            assert!(error.starts_with(&format!("f:{refusal}")), "{text}: {error}");
        }
    }
}

#[test]
fn config_listen_option_keeps_the_other_settings_of_the_listener() {
    let address = |text: &str| text.parse::<ListenAddress>().unwrap();
    let (one, two) = (&address("127.0.0.1:7001"), &address("unix:/run/polycast.sock"));
    let listen = |text: &str, addresses: &[&ListenAddress]| {
        let config = parse(&format!("{text}{APP}")).unwrap();
        let listen = addresses.iter().map(|it| (*it).clone()).collect();
        config.with(Overrides { listen, ..Overrides::default() }).map_err(|it| it.to_string())
    };
    let pair = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        format!("{{ cert = '{folder}/{name}.pem', key = '{folder}/{name}.key' }}")
    };
    let at = |more: &str| format!("[[listeners]]\naddress = '127.0.0.1:6443'\n{more}\n");
    let tls = |name: &str| {
        let (pair, folder) = (pair(name), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"));
        at(&format!(
            "allowed_origins = ['https://a.example']\n[listeners.tls]\ncertificates = [{pair}]\n\
             mutual = 'required'\nclient_ca = '{folder}/ca.pem'"
        ))
    };
    let named = at("name = 'main'\nallowed_origins = ['same-origin']");
    for (text, addresses) in [
        (tls("ec"), &[one][..]),
        (tls("ec"), &[one, two]),
        (named.clone(), &[one]),
        (String::new(), &[one, two]),
    ] {
        let own = parse(&format!("{text}{APP}")).unwrap().with(Overrides::default()).unwrap();
        let listeners = listen(&text, addresses).unwrap().listeners;
        assert_eq!(listeners.iter().map(|it| &it.address).collect::<Vec<_>>(), addresses);
        for listener in listeners {
            let address = own.listeners[0].address.clone();
            assert_eq!(listener.tls.acceptor().unwrap().is_some(), listener.tls.is_on());
            let back = polycast::config::Listener { address, ..listener };
            assert_eq!(back, own.listeners[0], "{text}");
        }
    }
    // Several equal listeners count as one.
    let alike = at("") + &at("").replace("6443", "6444");
    assert_eq!(listen(&alike, &[one]).unwrap().listeners.len(), 1);
    for (text, addresses, problem) in [
        (tls("ec") + &at("").replace("6443", "6444"), &[one][..], "settings of the new addresses"),
        (tls("ec") + &at("").replace("6443", "6444"), &[one, two], "settings of the new addresses"),
        (
            tls("ec") + &tls("rsa").replace("6443", "6444"),
            &[one],
            "the configuration differ in other settings",
        ),
        (
            named.clone() + &at("").replace("6443", "6444"),
            &[one],
            "the configuration differ in other settings",
        ),
        (named, &[one, two], "has a name, which several addresses cannot share"),
    ] {
        let error = listen(&text, addresses).unwrap_err();
        assert!(error.starts_with("command line: --listen: the "), "{error}");
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn path_patterns_that_no_path_is_like_are_refused() {
    let with = |path: &str| {
        parse(&format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = 'echo'\n{APP}"))
    };
    for path in ["/a/*", "*", "*.json", "/a@b;c", "/a%20b", "/.well-known/*", "/a..b", "/caf%C3%A9"]
    {
        assert!(with(path).is_ok(), "{path}");
    }
    for path in ["//a", "/a//*", "/./a", "/a/..", "*/../a", "/%61", "/a%40b", "/a%2fb", "/a/."] {
        let error = with(path).unwrap_err().to_string();
        assert!(error.contains(&format!("when[0].path: `{path}` is not accepted")), "{error}");
    }
}

#[test]
fn config_ranges_of_queues_and_buffers() {
    check(&[
        ("threads = 256", ""),
        ("threads = 257", "1:1: threads: 257 is out of range; accepted: 0 to 256"),
        ("drain_s = 0", ""),
        ("drain_s = 86401", "1:1: drain_s: 86401 is out of range; accepted: 0 to 86400 seconds"),
        ("limits.receive_buffers = 16", ""),
        ("limits.receive_buffers = 32768", ""),
        ("limits.receive_buffers = 1000", "1:8: limits.receive_buffers: 1000 is not accepted"),
        ("limits.receive_buffers = 8", "1:8: limits.receive_buffers: 8 is not accepted"),
        ("limits.receive_buffers = 65536", "1:8: limits.receive_buffers: 65536 is not"),
        ("limits.receive_buffer_bytes = 512", ""),
        ("limits.receive_buffer_bytes = 511", "1:8: limits.receive_buffer_bytes: 511 is out"),
        ("limits.receive_buffer_bytes = '64KiB'", ""),
        ("limits.receive_buffer_bytes = 65537", "1:8: limits.receive_buffer_bytes: 65537"),
        ("limits.write_queue_bytes = 65536", ""),
        ("limits.write_queue_bytes = '63KiB'", "1:8: limits.write_queue_bytes: 64512 is out"),
        ("limits.mailbox_messages = 4095", "1:8: limits.mailbox_messages: 4095 is not"),
    ]);
}

#[test]
fn config_ranges_of_histories() {
    let reflect = |text: &str| format!("[[routes]]\nendpoint = 'reflect'\nreflect.{text}\n");
    for (text, refusal) in [
        ("history = 0", ""),
        ("history = 10000", ""),
        ("history = 10001", "3:9: routes[0].reflect.history: 10001 is out of range"),
        ("history = -1", "3:19: routes[0].reflect.history"),
        ("history_bytes = 1024", ""),
        ("history_bytes = 1023", "3:9: routes[0].reflect.history_bytes: 1023 is out of range"),
        ("history_bytes = '64MiB'", ""),
        ("history_bytes = 67108865", "3:9: routes[0].reflect.history_bytes: 67108865 is out of"),
    ] {
        verify(&format!("{}{APP}", reflect(text)), refusal);
    }
}

#[test]
fn config_ranges_of_messages_and_timeouts() {
    check(&[
        ("limits.fragments = 0", "1:8: limits.fragments: 0 is out of range"),
        ("limits.http_head_bytes = 1023", "1:8: limits.http_head_bytes: 1023 is out"),
        ("limits.http_head_fields = 15", "1:8: limits.http_head_fields: 15 is out"),
        ("limits.http_head_fields = 1025", "1:8: limits.http_head_fields: 1025 is out"),
        ("limits.http_head_bytes = 65537", "1:8: limits.http_head_bytes: 65537 is out"),
        ("limits.message_bytes = '2GiB'", "1:8: limits.message_bytes: 2147483648 is out"),
        ("timeouts.handshake_ms = 1", ""),
        ("timeouts.handshake_ms = 3600000", ""),
        ("timeouts.handshake_ms = 0", "1:10: timeouts.handshake_ms: 0 is out of range"),
        ("timeouts.handshake_ms = 3600001", "1:10: timeouts.handshake_ms: 3600001 is out of"),
        ("timeouts.head_ms = 0", "1:10: timeouts.head_ms: 0 is out of range"),
        ("timeouts.send_ms = 3600001", "1:10: timeouts.send_ms: 3600001 is out of range"),
        ("pusher.activity_timeout_s = 0", "1:8: pusher.activity_timeout_s: 0 is out of range"),
        ("pusher.activity_timeout_s = 86400", ""),
        ("pusher.pong_timeout_s = 0", "1:8: pusher.pong_timeout_s: 0 is out of range"),
        ("pusher.inactivity_timeout_s = 0", "1:8: pusher.inactivity_timeout_s: 0 is out of"),
        ("pusher.inactivity_timeout_s = 1", ""),
        ("pusher.inactivity_timeout_s = 604800", ""),
        ("pusher.inactivity_timeout_s = 604801", "1:8: pusher.inactivity_timeout_s: 604801 is"),
        ("limits.memory_bytes = 0", ""),
        ("limits.memory_bytes = '16MiB'", ""),
        ("limits.memory_bytes = 16777215", "1:8: limits.memory_bytes: 16777215 is out of range"),
        ("limits.memory_bytes = '65536GiB'", ""),
        ("limits.memory_bytes = '65537GiB'", "1:8: limits.memory_bytes: 70369817919488 is out"),
        ("limits.min_bytes_per_s = 0", ""),
        ("limits.min_bytes_per_s = 1048576", ""),
        ("limits.min_bytes_per_s = 1048577", "1:8: limits.min_bytes_per_s: 1048577 is out of"),
        ("limits.overload_sockets = 1", ""),
        ("limits.overload_bytes = '1024GiB'", ""),
        ("limits.overload_bytes = 1099511627777", "1:8: limits.overload_bytes: 1099511627777 is"),
    ]);
    check_app(&[
        ("limits.watchlist_length = 0", "5:8: apps[0].limits.watchlist_length: 0 is out of range"),
        ("limits.watchlist_length = 1000", ""),
        ("limits.watchlist_length = 1001", "5:8: apps[0].limits.watchlist_length: 1001 is out"),
        ("limits.client_events_per_s = 0", ""),
        ("limits.channels = 0", "5:8: apps[0].limits.channels: 0 is out of range"),
        ("limits.channels = 16777216", ""),
        ("limits.channels = 16777217", "5:8: apps[0].limits.channels: 16777217 is out of"),
        ("limits.listed_channels = 0", "5:8: apps[0].limits.listed_channels: 0 is out of range"),
        ("limits.listed_channels = 1048576", ""),
        ("limits.listed_channels = 1048577", "5:8: apps[0].limits.listed_channels: 1048577 is"),
        ("limits.subscriptions_per_s = 0", ""),
        ("limits.subscriptions_per_s = 60000", ""),
        ("limits.subscriptions_per_s = 60001", "5:8: apps[0].limits.subscriptions_per_s: 60001"),
        ("cors_origins = ['*', 'https://*.example.com']", ""),
        ("cors_origins = ['example.com']", "5:17: apps[0].cors_origins[0]: `example.com` is not"),
        ("bad_signature = 'no'", "5:17: apps[0].bad_signature: `no` is not accepted"),
        ("limits.client_events_per_s = 60001", "5:8: apps[0].limits.client_events_per_s: 60001"),
    ]);
}

#[test]
fn config_profile_sets_missing_keys() {
    let app = |more: &str| {
        let text = format!("[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n{more}");
        Config::parse(&text, FileFormat::Toml, "f")
            .unwrap_or_else(|it| panic!("{it}"))
            .apps
            .remove(0)
    };
    let own = app("");
    let of = |profile: &str| {
        let app = app(&format!("profile = '{profile}'"));
        let limits = &app.limits;
        (
            (limits.channel_name_length, app.terminate_close_code, app.duplicate_subscribe),
            (limits.event_bytes, limits.message_bytes, limits.presence_member_bytes),
            (limits.user_id_length, limits.client_events_per_s, limits.cache_ttl_s),
        )
    };
    let flags = |profile: &str| {
        let app = app(&format!("profile = '{profile}'"));
        let origins: Vec<&str> = app.cors_origins.iter().map(|it| it.as_str()).collect();
        let flags = [app.error_before_close, app.numeric_user_ids, app.counts_in_reads];
        (app.bad_signature, flags, origins.join(" "))
    };
    let (refuse, close) = (BadSignature::Refuse, BadSignature::Close);
    assert_eq!(flags("pusher"), (refuse, [false; 3], String::new()));
    assert_eq!(flags("vask"), (close, [false; 3], String::new()));
    assert_eq!(flags("soketi"), (refuse, [true; 3], "*".to_owned()));
    let ours = of("polycast");
    let (names, bytes, rest) = ours;
    assert_eq!(of("pusher"), ((164, names.1, names.2), bytes, rest));
    assert_eq!(of("vask"), ((names.0, 4200, names.2), bytes, rest));
    let soketi = (102_400, 262_144, 2048);
    let ack = DuplicateSubscribe::Ack;
    assert_eq!(of("soketi"), ((names.0, names.1, ack), soketi, (1024, 0, 3600)));
    assert_eq!(app("profile = 'polycast'"), own);
    let replies = app("limits.cache_ttl_s = 7\nduplicate_subscribe = 'error'\nprofile = 'soketi'");
    assert_eq!((replies.limits.cache_ttl_s, replies.limits.event_bytes), (7, 102_400));
    assert_eq!(replies.duplicate_subscribe, DuplicateSubscribe::Error);
    check_app(&[
        ("profile = 'pusherr'", "5:11: apps[0].profile: `pusherr` is not accepted"),
        ("profile = 7", "5:11: apps[0].profile: expected one of polycast, pusher, vask, soketi"),
        ("profile = 'soketi'\nlimits = 7", "6:10: apps[0].limits: expected"),
    ]);
    let text = "apps:\n  - id: '1'\n    key: k\n    secret: s\n    limits:\n    profile: soketi\n";
    let yaml = Config::parse(text, FileFormat::Yaml, "f").unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(yaml.apps[0].limits.cache_ttl_s, 3600, "a section without entries");
    // The values of a profile must fit the other keys; the error has the place of the profile.
    let text = format!("limits:\n  http_body_bytes: 65536\n{text}");
    let error = Config::parse(&text, FileFormat::Yaml, "f").expect_err("too long").to_string();
    assert!(error.starts_with("f:8:5: apps[0].limits.event_bytes: 102400 is too"), "{error}");
}

#[test]
fn config_related_numbers_must_fit() {
    check(&[
        (
            "[limits]\nframe_bytes = 2000\nmessage_bytes = 1000",
            "2:1: limits.frame_bytes: 2000 is too large; the maximum is limits.message_bytes, \
             which is 1000",
        ),
        (
            "[limits]\nhttp_body_bytes = '8KiB'",
            "1:2: limits.http_head_bytes: 16384 is too large; the maximum is limits.http_body",
        ),
        (
            "[limits]\nframe_bytes = 1000\nmessage_bytes = 1000",
            "4:1: apps[0].limits.message_bytes: 65536 is too large; the maximum is the server",
        ),
    ]);
    check_app(&[
        ("limits.event_bytes = 524288", ""),
        (
            "limits.event_bytes = 524289",
            "5:8: apps[0].limits.event_bytes: 524289 is too large; the maximum is half of the",
        ),
        (
            "limits.event_bytes = 1048577",
            "5:8: apps[0].limits.event_bytes: 1048577 is too large; the maximum is the server",
        ),
    ]);
}

/// A default that exceeds the server's limit is no error, since the section may be unused.
#[test]
fn config_zilliqa_messages_fit_the_servers() {
    let limit = "[limits]\nframe_bytes = 100000\nmessage_bytes = 100000\n[zilliqa]\n";
    let small = "[limits]\nframe_bytes = 65535\nmessage_bytes = 65535\n";
    check(&[
        (&format!("{limit}message_bytes = 100000"), ""),
        (
            &format!("{limit}message_bytes = 100001"),
            "5:1: zilliqa.message_bytes: 100001 is too large; the maximum is the server's \
             limits.message_bytes, which is 100000",
        ),
        (&small.replace("65535", "65536"), ""),
        (
            &format!("{small}[zilliqa]\nmessage_bytes = 65537"),
            "5:1: zilliqa.message_bytes: 65537 is too large",
        ),
    ]);
}

#[test]
fn config_listeners_are_one_or_more_and_differ() {
    check(&[
        ("listeners = []", "1:1: listeners: at least one entry is required"),
        ("listeners = [{ address = '[::1]:1' }, { address = '0.0.0.0:1' }]", ""),
        ("listeners = [{ address = '[::1]:0' }, { address = '[::1]:0' }]", ""),
        (
            "[[listeners]]\naddress = '[::1]:1'\n[[listeners]]\naddress = '[::0:1]:1'",
            "4:1: listeners[1].address: `[::1]:1` is already used at listeners[0].address",
        ),
    ]);
}

const GUARD: &str = "[[guards]]\nname = 'g'\nissuer = 'https://auth.example.com'\n";

/// Checks texts in a guard: each with the beginning of its error, or "" if it is valid.
fn check_guard(cases: &[(&str, &str)]) {
    for (more, error) in cases {
        check(&[(&*format!("{GUARD}{more}"), *error)]);
    }
}

#[test]
fn config_ranges_of_guards() {
    for (key, min, max) in [
        ("keys_refresh_s", 10, 86_400),
        ("keys_floor_s", 1, 3600),
        ("leeway_s", 0, 3600),
        ("challenge_s", 0, 86_400),
        ("token_bytes", 256, 32_768),
    ] {
        let accepted = [format!("{key} = {min}"), format!("{key} = {max}")];
        check_guard(&accepted.each_ref().map(|text| (text.as_str(), "")));
        let below = (min > 0).then(|| min - 1);
        for bad in below.into_iter().chain([max + 1]) {
            let error = format!("4:1: guards[0].{key}: {bad} is out of range; accepted: {min} to");
            check_guard(&[(&format!("{key} = {bad}"), &error)]);
        }
    }
}

#[test]
fn config_names_and_keys_of_guards() {
    let short = "4:9: guards[0].keys[0]: the value (not shown) is not accepted; accepted: a sec";
    let encodings = "accepted: exactly one of `pem`, `secret` and `kty`";
    let encodings =
        format!("4:9: guards[0].keys[0]: the value (not shown) is not accepted; {encodings}");
    let fits = "4:9: guards[0].keys[0]: the value (not shown) is not accepted; accepted: a key \
                for at least one of the guard's `algorithms`";
    let url = |url: &str| format!("4:1: guards[0].keys_url: `{url}` is not accepted; accepted: at");
    let secret = "0123456789abcdef0123456789abcdef";
    check_guard(&[
        ("", ""),
        (&format!("keys = [{{ secret = '{secret}' }}]"), ""),
        (&format!("keys = [{{ secret = '{secret}', alg = 'HS256' }}]"), ""),
        (&format!("keys = [{{ secret = '{}' }}]", &secret[1..]), short),
        (&format!("keys = [{{ secret = '{secret}', pem = 'x' }}]"), &encodings),
        ("keys = [{ kid = 'a' }]", &encodings),
        (&format!("keys = [{{ secret = '{secret}' }}]\nalgorithms = ['HS512']"), fits),
        (
            "algorithms = ['none']",
            "4:15: guards[0].algorithms[0]: `none` is not accepted; accepted",
        ),
        ("keys_url = 'https://a/b'", ""),
        ("keys_url = 'http://a/b'", &url("http://a/b")),
        ("keys_url = 'http://a/b'\nallow_private = true", ""),
        ("keys_url = 'ftp://a/b'\nallow_private = true", &url("ftp://a/b")),
        ("keys_url = 'https://u@a/b'", &url("https://u@a/b")),
        ("roles = ''", "4:1: guards[0].roles: `` is not accepted"),
        ("identity = ''", "4:1: guards[0].identity: `` is not accepted"),
        (GUARD, "5:1: guards[1].name: `g` is already used at guards[0].name"),
    ]);
    check(&[
        ("[[guards]]\nname = 'g'", "1:1: guards[0].keys: `/.well-known/jwks.json` is not accepted"),
        ("[[guards]]\nname = 'a b'", "2:1: guards[0].name: `a b` is not accepted"),
        ("[[guards]]", "1:1: guards[0].name: the key is missing and has no default"),
    ]);
}

#[test]
fn config_certificate_guards() {
    let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
    let listening = "[[listeners]]\naddress = '[::1]:1'\n[listeners.tls]\nmutual = 'requested'\n\
                     client_ca = 'ca.pem'\ncertificates = [{ cert = 'a', key = 'b' }]\n";
    let guard = "[[guards]]\nname = 'g'\ntype = 'certificate'\n";
    let lists = |more: &str| format!("{listening}{guard}[guards.certificate]\n{more}");
    let fingerprint = |text: &str| lists(&format!("fingerprints = ['{text}']"));
    let colons: Vec<_> =
        digits.as_bytes().chunks(2).map(|it| str::from_utf8(it).unwrap()).collect();
    let colons = colons.join(":");
    check(&[
        (&format!("{listening}{guard}"), ""),
        (&lists("common_names = ['a', '*']"), ""),
        (&lists("alternative_names = ['dns:*', 'email:a@b', 'uri:spiffe://a', 'ip:::1']"), ""),
        (&fingerprint(&digits), ""),
        (&fingerprint(&colons), ""),
    ]);
    for bad in [
        "",
        &digits[1..],
        &digits[2..],
        &format!("{digits}00"),
        &digits.replace('0', "g"),
        &digits.replacen("01", "+1", 1),
        &format!("{colons}:"),
        &colons[3..],
        "é",
    ] {
        let error = "11:17: guards[0].certificate.fingerprints[0]: expected a SHA-256 fingerprint";
        check(&[(&fingerprint(bad), error)]);
    }
    let place = |list: &str, found: &str| {
        format!(
            "11:{}: guards[0].certificate.{list}: `{found}` is not accepted; accepted: a name",
            list.len() + 2
        )
    };
    let needed = "expected ";
    check(&[
        (&lists("common_names = ['']"), &place("common_names[0]", "")),
        (&lists("alternative_names = ['a.example']"), &place("alternative_names[0]", "a.example")),
        (&lists("alternative_names = ['dns:']"), &place("alternative_names[0]", "dns:")),
        (&lists("alternative_names = ['DNS:a']"), &place("alternative_names[0]", "DNS:a")),
        (guard, &format!("3:1: guards[0].type: {needed}\"jwt\", or a listener whose `tls.mutual`")),
        (
            &format!("{listening}{guard}issuer = 'https://a'"),
            &format!("9:1: guards[0].type: {needed}\"jwt\", because the guard has keys that"),
        ),
        (
            &format!("{GUARD}certificate.common_names = ['a']"),
            &format!("4:1: guards[0].certificate: {needed}no value, because the guard's `type` is"),
        ),
        (
            &format!("{GUARD}type = 'x509'"),
            "4:8: guards[0].type: `x509` is not accepted; accepted: jwt",
        ),
    ]);
}

#[test]
fn config_credentials_have_one_place_each() {
    let place = |key: &str, text: &str| format!("credentials.{key} = {{ a = '{text}' }}");
    for key in ["cookies", "headers", "query"] {
        let error = format!("4:19: guards[0].credentials.{key}.a: `x` is not accepted");
        check_guard(&[(&place(key, "x {credentials}"), "")]);
        let text = place(key, "x");
        let column = text.find("a = ").unwrap() + 1;
        let error = error.replace("19", &column.to_string());
        check_guard(&[(&text, &error)]);
    }
    for (protocol, fits) in [
        ("bearer.{credentials}", true),
        ("{credentials}.x", true),
        ("{credentials}", false),
        ("bearer", false),
        ("a b{credentials}", false),
    ] {
        let error = format!("4:13: guards[0].credentials.protocol: `{protocol}` is not accepted");
        let error = if fits { "" } else { &error };
        check_guard(&[(&format!("credentials.protocol = '{protocol}'"), error)]);
    }
}

#[test]
fn config_route_conditions() {
    for (key, good, bad) in [
        ("path", "/a*", "a"),
        ("path", "*", "/a?b"),
        ("query", "a=*&b=c", "a&b"),
        ("scheme", "wss", "ftp"),
        ("scheme", "*", "http*"),
        ("authority", "*.example.com:80", "Example.com"),
        ("authority", "[::1]:80", "a/b"),
        ("protocol", "v1.*", "a b"),
    ] {
        let route =
            |text: &str| format!("[[routes]]\nendpoint = 'echo'\nwhen = [{{ {key} = '{text}' }}]");
        let error = format!("3:11: routes[0].when[0].{key}: `{bad}` is not accepted; accepted: ");
        check(&[(&route(good), ""), (&route(bad), &error)]);
    }
    let route = |more: &str| format!("[[routes]]\nendpoint = 'reject'\n{more}");
    check(&[
        (&route("when = [{}]"), "3:9: routes[0].when[0]: at least one entry is required"),
        (&route("status = 400"), ""),
        (&route("status = 599"), ""),
        (
            &route("status = 399"),
            "3:1: routes[0].status: 399 is out of range; accepted: 400 to 599",
        ),
        (
            &route("status = 600"),
            "3:1: routes[0].status: 600 is out of range; accepted: 400 to 599",
        ),
        (&route("guarded = { g = [] }"), "3:13: routes[0].guarded.g: `g` is not accepted"),
        (&route("listeners = ['a']"), "3:14: routes[0].listeners[0]: `a` is not accepted"),
        (&route("listeners = ['']"), "3:14: routes[0].listeners[0]: `` is not accepted"),
        (
            "[[listeners]]\naddress = '[::1]:1'\nname = 'a'\n\
             [[listeners]]\naddress = '[::1]:2'\nname = 'a'",
            "6:1: listeners[1].name: `a` is already used at listeners[0].name",
        ),
        (
            "[[listeners]]\naddress = '[::1]:1'\nname = 'a b'",
            "3:1: listeners[0].name: `a b` is not accepted",
        ),
        (
            "[[listeners]]\naddress = '[::1]:1'\nallowed_origins = ['same-origin', 'a/b']",
            "3:35: listeners[0].allowed_origins[1]: `a/b` is not accepted",
        ),
    ]);
}

#[test]
fn config_log_levels_are_levels_or_directives() {
    check(&[
        ("log.level = 'off'", ""),
        ("log.level = 'DEBUG'", ""),
        ("log.level = 'warn,polycast=debug'", ""),
        ("log.level = 'polycast[span{field=1}]=trace,error'", ""),
        ("log.level = 'debgu'", "1:5: log.level: `debgu` is not accepted; accepted: off, error,"),
        ("log.level = 'polycast=loud'", "1:5: log.level: `polycast=loud` is not accepted"),
        ("log.level = ''", "1:5: log.level: `` is not accepted"),
    ]);
}

#[test]
fn config_paths_begin_with_a_slash() {
    check(&[
        ("pusher.path_prefix = ''", ""),
        ("pusher.path_prefix = '/ws'", ""),
        ("pusher.path_prefix = '/a/b'", ""),
        ("pusher.path_prefix = '/'", "1:8: pusher.path_prefix: `/` is not accepted"),
        ("pusher.path_prefix = 'ws'", "1:8: pusher.path_prefix: `ws` is not accepted"),
        ("pusher.path_prefix = '/ws/'", "1:8: pusher.path_prefix: `/ws/` is not accepted"),
        ("pusher.path_prefix = '/a?b'", "1:8: pusher.path_prefix: `/a?b` is not accepted"),
        ("routes = []", "1:1: routes: at least one entry is required"),
        ("routes = [{ endpoint = 'apps' }]", ""),
        ("routes = [{ when = [{ path = '*' }], endpoint = 'apps' }]", ""),
        (
            "routes = [{ when = [{ path = '/' }, { path = 'echo' }], endpoint = 'echo' }]",
            "1:39: routes[0].when[1].path: `echo` is not accepted",
        ),
    ]);
}

#[test]
fn config_accepted_names_secrets_and_origins() {
    let app = |id: &str, key: &str, secret: &str| {
        format!("[[apps]]\nid = '{id}'\nkey = '{key}'\nsecret = '{secret}'\n")
    };
    verify(&app("A-b_c.9", "A-b_c.9", "any thing"), "");
    verify(&app("", "k", "s"), "2:1: apps[0].id: `` is not accepted; accepted: one or more of");
    verify(&app("1", "a/b", "s"), "3:1: apps[0].key: `a/b` is not accepted");
    verify(&app("1", "é", "s"), "3:1: apps[0].key: `é` is not accepted");
    verify(&app("1", "k", " "), "4:1: apps[0].secret: the value (not shown) is not accepted");
    check_app(&[
        ("keys = [{ key = 'a b', secret = 's' }]", "5:11: apps[0].keys[0].key: `a b` is not"),
        ("keys = [{ key = 'b', secret = '' }]", "5:22: apps[0].keys[0].secret: the value"),
        ("allowed_origins = ['https://a.b:1', 'http://*.b', '*', 'null', '*.b']", ""),
        ("allowed_origins = ['*', 'a.b']", "5:25: apps[0].allowed_origins[1]: `a.b` is not"),
        ("allowed_origins = ['https://a.b/']", "5:20: apps[0].allowed_origins[0]: `https:"),
        ("allowed_origins = ['https://A.b']", "5:20: apps[0].allowed_origins[0]: `https:"),
    ]);
}

#[test]
fn config_tokens_are_long_and_not_printed() {
    let refusal = |place: &str| format!("{place}: the value (not shown) is not accepted; accepted");
    check(&[
        ("console.token = ''", ""),
        ("console.token = 'abcdefghijklmnop'", ""),
        ("console.token = 'abcdefghijklmno'", &refusal("1:9: console.token")),
        ("console.token = 'abcdefgh ijklmnop'", &refusal("1:9: console.token")),
        ("metrics.token = 'abcdefghijklmnop'", ""),
        ("metrics.token = 'abcdefghijklmnöp'", &refusal("1:9: metrics.token")),
    ]);
}

#[test]
fn config_ranges_of_applications() {
    check_app(&[
        ("limits.connections = 0", ""),
        ("limits.subscriptions_per_connection = 0", "5:8: apps[0].limits.subscriptions_per_con"),
        ("limits.channel_name_length = 0", "5:8: apps[0].limits.channel_name_length: 0 is out"),
        ("limits.event_name_length = 1025", "5:8: apps[0].limits.event_name_length: 1025 is"),
        ("limits.channels_per_trigger = 0", "5:8: apps[0].limits.channels_per_trigger: 0 is"),
        ("limits.event_bytes = 0", "5:8: apps[0].limits.event_bytes: 0 is out of range"),
        ("limits.message_bytes = 124", "5:8: apps[0].limits.message_bytes: 124 is out of"),
    ]);
}

#[test]
fn config_application_ids_and_keys_are_unique() {
    let second = |rest: &str| format!("[[apps]]\nsecret = 't'\n{rest}\n");
    check_app(&[
        (&second("id = '2'\nkey = 'l'"), ""),
        (&second("id = '1'\nkey = 'l'"), "7:1: apps[1].id: `1` is already used at apps[0].id"),
        (&second("id = '2'\nkey = 'k'"), "8:1: apps[1].key: `k` is already used at apps[0].key"),
        (&second("id = 'k'\nkey = 'l'"), "7:1: apps[1].id: `k` is already used at apps[0].key"),
        (&second("id = '2'\nkey = '1'"), "2:1: apps[0].id: `1` is already used at apps[1].key"),
        (&second("id = 'same'\nkey = 'same'"), ""),
        (
            &second("id = '2'\nkey = 'l'\nkeys = [{ key = 'k', secret = 's' }]"),
            "9:11: apps[1].keys[0].key: `k` is already used at apps[0].key",
        ),
        (
            "keys = [{ key = 'k', secret = 's' }]",
            "5:11: apps[0].keys[0].key: `k` is already used at apps[0].key",
        ),
    ]);
}

#[test]
fn config_key_pairs_and_routes_keep_their_order() {
    let config = parse(&format!("{APP}keys = [{{ key = 'old', secret = 't' }}]")).unwrap();
    let pairs = config.apps[0].key_pairs().map(|(key, secret)| (key, secret.expose()));
    assert_eq!(pairs.collect::<Vec<_>>(), [("k", "s"), ("old", "t")]);
    let endpoint = |path| {
        let asked = RouteQuery { path, query: "", authority: None, secure: false, listener: "" };
        config.routes.iter().find(|route| route.takes(&asked, &[]).is_some()).unwrap().endpoint
    };
    assert_eq!(format!("{:?} {:?}", endpoint("/echo"), endpoint("/app/k")), "Echo Apps");
    let own = ["/", "/console", "/console/page.js", "/metrics", "/live", "/ready"].map(endpoint);
    assert_eq!(format!("{own:?}"), "[Console, Console, Console, Metrics, Health, Health]");
}

#[test]
fn config_command_line_overrides_the_file() {
    let overrides = Overrides {
        listen: vec!["0.0.0.0:1".parse().unwrap(), "[::]:2".parse().unwrap()],
        threads: Some(2),
        no_pin: true,
        io: Some(IoDriver::Epoll),
        log_level: Some("debug".to_owned()),
        log_format: None,
    };
    let config = parse(APP).unwrap().with(overrides).unwrap();
    let addresses: Vec<_> = config.listeners.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(addresses, ["0.0.0.0:1", "[::]:2"]);
    assert_eq!((config.threads, config.pin, config.io), (2, false, IoDriver::Epoll));
    assert_eq!(config.log.level, "debug");
    let unchanged = parse(APP).unwrap().with(Overrides::default()).unwrap();
    assert_eq!(unchanged, parse(APP).unwrap());
    let wrong = Overrides { threads: Some(257), ..Overrides::default() };
    let error = parse(APP).unwrap().with(wrong).unwrap_err().to_string();
    assert_eq!(error, "command line: threads: 257 is out of range; accepted: 0 to 256");
}

#[test]
fn config_io_is_one_of_three_words() {
    let io = |line: &str| parse(&format!("{line}\n{APP}")).map(|config| config.io);
    assert_eq!(io("").unwrap(), IoDriver::Auto);
    for (word, driver) in
        [("auto", IoDriver::Auto), ("io_uring", IoDriver::IoUring), ("epoll", IoDriver::Epoll)]
    {
        assert_eq!(io(&format!("io = '{word}'")).unwrap(), driver);
    }
    let error = io("io = 'kqueue'").unwrap_err().to_string();
    assert!(error.contains("io") && error.contains("auto, io_uring, epoll"), "{error}");
}

#[test]
fn config_demo_listens_on_loopback_only() {
    let demo = |address: &str| {
        let listen = vec![address.parse().unwrap()];
        Config::demo().with(Overrides { listen, ..Overrides::default() })
    };
    let config = Config::demo().with(Overrides::default()).unwrap();
    assert!(config.is_demo && !parse(APP).unwrap().is_demo);
    let app = &config.apps[0];
    assert_eq!([&*app.id, &app.key, &app.name], ["1", "app-key", "demo"]);
    assert_eq!(app.secret.expose(), "app-secret");
    for address in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        demo(address).unwrap();
    }
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let error = demo(address).unwrap_err();
        assert!(matches!(*error.problem, Problem::DemoAddress(_)), "{error}");
        assert!(error.to_string().contains("write a configuration"), "{error}");
    }
}

#[test]
fn config_webhook_urls_and_ranges() {
    let hook = |more: &str| format!("[[apps.webhooks]]\nurl = 'https://a.example/x?y'\n{more}");
    for (more, refusal) in [
        ("", ""),
        ("event_types = ['channel_occupied', 'subscription_count']", ""),
        ("event_types = ['x']", "7:16: apps[0].webhooks[0].event_types[0]: `x` is not accepted"),
        ("headers = { X-Token = 'a b' }", ""),
        ("headers = { Host = 'a' }", "7:13: apps[0].webhooks[0].headers.Host: `Host` is not"),
        ("headers = { 'a b' = 'a' }", "7:13: apps[0].webhooks[0].headers.a b: `a b` is not"),
        ("headers = { a = \"\\n\" }", "7:13: apps[0].webhooks[0].headers.a: the value (not"),
        ("batch_ms = 0", "7:1: apps[0].webhooks[0].batch_ms: 0 is out of range"),
        ("batch_ms = 60001", "7:1: apps[0].webhooks[0].batch_ms: 60001 is out of range"),
        ("queue_bytes = '4KiB'", ""),
        ("queue_bytes = 4095", "7:1: apps[0].webhooks[0].queue_bytes: 4095 is out of range"),
        ("queue_bytes = '2GiB'", "7:1: apps[0].webhooks[0].queue_bytes: 2147483648 is out"),
    ] {
        check_app(&[(&hook(more), refusal)]);
    }
    for url in ["", "a.example", "/x", "ftp://a", "https://", "https://u:p@a/", "http://a/#b"] {
        let text = format!("[[apps.webhooks]]\nurl = '{url}'");
        check_app(&[(&text, "6:1: apps[0].webhooks[0].url: the value (not shown) is not")]);
    }
    let missing = "5:1: apps[0].webhooks[0].url: the key is missing";
    check_app(&[("[[apps.webhooks]]\nbatch = true", missing)]);
}

#[test]
fn config_history_channels_and_ranges() {
    let history = |more: &str| format!("[[apps.history]]\n{more}");
    for (more, refusal) in [
        ("channels = ['chat-*']", ""),
        ("", "5:1: apps[0].history[0].channels: the key is missing"),
        ("channels = []", "6:1: apps[0].history[0].channels: "),
        ("channels = ['a', '']", "6:18: apps[0].history[0].channels[1]: "),
        ("channels = ['a']\nevents = 1\nbytes = 1024\nttl_s = 1\nrewind = 0", ""),
        ("channels = ['a']\nevents = 10000\nbytes = '8MiB'\nttl_s = 86400\nrewind = 10000", ""),
        ("channels = ['a']\nevents = 0", "7:1: apps[0].history[0].events: 0 is out of range"),
        ("channels = ['a']\nevents = 10001", "7:1: apps[0].history[0].events: 10001 is out of"),
        ("channels = ['a']\nbytes = 1023", "7:1: apps[0].history[0].bytes: 1023 is out of range"),
        ("channels = ['a']\nbytes = 8388609", "7:1: apps[0].history[0].bytes: 8388609 is out"),
        ("channels = ['a']\nttl_s = 0", "7:1: apps[0].history[0].ttl_s: 0 is out of range"),
        ("channels = ['a']\nttl_s = 86401", "7:1: apps[0].history[0].ttl_s: 86401 is out of"),
        ("channels = ['a']\nrewind = 10001", "7:1: apps[0].history[0].rewind: 10001 is out of"),
        ("channels = ['a']\nclient_events = 1", "7:17: apps[0].history[0].client_events: "),
        ("channels = ['a']\nevent = 1", "7:1: apps[0].history[0].event: "),
    ] {
        check_app(&[(&history(more), refusal)]);
    }
}

#[test]
fn config_node_urls_and_ranges() {
    check(&[
        ("zilliqa.node.urls = ['https://a.example/?key=b', 'http://[::1]:4201']", ""),
        ("zilliqa.node.urls = ['ftp://a']", "1:22: zilliqa.node.urls[0]: "),
        ("zilliqa.node.urls = ['http://u@a']", "1:22: zilliqa.node.urls[0]: "),
        ("zilliqa.history = 0", ""),
        ("zilliqa.history = 1000", ""),
        ("zilliqa.history = 1001", "1:9: zilliqa.history: 1001 is out of range"),
        ("zilliqa.history_bytes = '1MiB'", ""),
        ("zilliqa.history_bytes = 1048575", "1:9: zilliqa.history_bytes: 1048575 is out of range"),
        ("zilliqa.node.interval_ms = 10", ""),
        ("zilliqa.node.interval_ms = 9", "1:14: zilliqa.node.interval_ms: 9 is out of range"),
        ("zilliqa.node.interval_ms = 3600001", "1:14: zilliqa.node.interval_ms: 3600001 is"),
        ("zilliqa.node.timeout_ms = 600000", ""),
        ("zilliqa.node.timeout_ms = 600001", "1:14: zilliqa.node.timeout_ms: 600001 is out"),
        ("zilliqa.node.timeout_ms = 9", "1:14: zilliqa.node.timeout_ms: 9 is out of range"),
        ("zilliqa.node.retry_ms = 9", "1:14: zilliqa.node.retry_ms: 9 is out of range"),
        ("zilliqa.node.retry_max_ms = 1000", ""),
        ("zilliqa.node.retry_max_ms = 999", "1:14: zilliqa.node.retry_max_ms: 999 is out"),
        ("zilliqa.node.stale_ms = 9", "1:14: zilliqa.node.stale_ms: 9 is out of range"),
        ("zilliqa.node.ahead = 64", ""),
        ("zilliqa.node.ahead = 0", "1:14: zilliqa.node.ahead: 0 is out of range"),
        ("zilliqa.node.ahead = 65", "1:14: zilliqa.node.ahead: 65 is out of range"),
        ("zilliqa.node.answer_bytes = '64KiB'", ""),
        ("zilliqa.node.answer_bytes = 65535", "1:14: zilliqa.node.answer_bytes: 65535 is out"),
        ("zilliqa.node.replay = 0", ""),
        ("zilliqa.node.replay = 1000001", "1:14: zilliqa.node.replay: 1000001 is out"),
        ("zilliqa.node.replay_wait_ms = 3600001", "1:14: zilliqa.node.replay_wait_ms: 3600001"),
        ("zilliqa.node.contracts = 16", ""),
        ("zilliqa.node.contracts = 15", "1:14: zilliqa.node.contracts: 15 is out of range"),
        ("zilliqa.node.headers = { Authorization = 'Bearer x' }", ""),
        ("zilliqa.node.headers = { Host = 'x' }", "1:26: zilliqa.node.headers.Host: `Host` is"),
        ("zilliqa.node.headers = { A = \"x\\n\" }", "1:26: zilliqa.node.headers.A: "),
    ]);
}

#[test]
fn config_ranges_of_zilliqa() {
    let route = "[[routes]]\nendpoint = 'zilliqa'\n";
    let token = "zilliqa.publish_token = '0123456789abcdef'";
    let a = "0x2ce491a0fd9e318b39172258101b7c836da7449b";
    let served = format!("{token}\n{route}");
    let elsewhere = format!("{token}\nzilliqa.publish_path = '/x'");
    let (list, short) = (format!("['{a}']"), format!("['{}']", &a[..41]));
    let list = format!("zilliqa.contracts = {list}");
    let short = format!("zilliqa.contracts = {short}");
    check(&[
        ("zilliqa.wire = 'documented'", ""),
        ("zilliqa.wire = 'other'", "1:16: zilliqa.wire: "),
        ("zilliqa.error_format = 'text'", ""),
        ("zilliqa.error_format = 'json'", "1:24: zilliqa.error_format: "),
        ("zilliqa.contracts = 'node'\nzilliqa.node.urls = ['http://a']", ""),
        ("zilliqa.contracts = 'node'", "1:9: zilliqa.contracts: `node`"),
        ("zilliqa.contracts = []", ""),
        (&list, ""),
        (&short, "1:21: zilliqa.contracts"),
        ("zilliqa.contracts = 'all'", "1:21: zilliqa.contracts: "),
        ("zilliqa.message_bytes = 125", ""),
        ("zilliqa.message_bytes = 124", "1:9: zilliqa.message_bytes: 124 is out of range"),
        ("zilliqa.addresses_per_core = 1", ""),
        ("zilliqa.addresses_per_core = 1073741824", ""),
        ("zilliqa.addresses_per_core = 0", "1:9: zilliqa.addresses_per_core: 0"),
        ("zilliqa.addresses_per_core = 1073741825", "1:9: zilliqa.addresses_per_core: 10737"),
        ("zilliqa.addresses_per_connection = 1", ""),
        ("zilliqa.addresses_per_connection = 0", "1:9: zilliqa.addresses_per_connection: 0"),
        ("zilliqa.addresses_per_connection = 1048577", "1:9: zilliqa.addresses_per_conn"),
        ("zilliqa.fragment_bytes = 1024", ""),
        ("zilliqa.fragment_bytes = 1023", "1:9: zilliqa.fragment_bytes: 1023 is out"),
        ("zilliqa.queue_bytes = '64KiB'", ""),
        ("zilliqa.queue_bytes = 65535", "1:9: zilliqa.queue_bytes: 65535 is out of range"),
        ("zilliqa.dropped_in_a_row = 0", ""),
        ("zilliqa.dropped_in_a_row = 60001", "1:9: zilliqa.dropped_in_a_row: 60001 is out"),
        ("zilliqa.ping_after_s = 59", ""),
        ("zilliqa.ping_after_s = 0", "1:9: zilliqa.ping_after_s: 0 is out of range"),
        ("zilliqa.ping_after_s = 60", "1:1: zilliqa.idle_timeout_s: 60 is out of range"),
        ("zilliqa.idle_timeout_s = 31", ""),
        ("zilliqa.idle_timeout_s = 30", "1:9: zilliqa.idle_timeout_s: 30 is out of range"),
        ("zilliqa.publish_path = 'epochs'", "1:9: zilliqa.publish_path: "),
        (&served, ""),
        (token, "1:1: zilliqa.publish_path: "),
        (&elsewhere, "2:9: zilliqa.publish_path: "),
        ("zilliqa.publish_token = 'short'", "1:9: zilliqa.publish_token: "),
    ]);
    // The section is an application by itself.
    assert!(parse(route).is_ok());
    assert!(parse("").is_err());
}

#[test]
fn config_broadcastt_ranges_and_no_webhooks() {
    check(&[
        ("broadcastt.activity_timeout_s = 1", ""),
        ("broadcastt.activity_timeout_s = 0", "1:12: broadcastt.activity_timeout_s: 0 is out of"),
        ("broadcastt.activity_timeout_s = 86401", "1:12: broadcastt.activity_timeout_s: 86401"),
        ("broadcastt.pong_timeout_s = 86400", ""),
        ("broadcastt.pong_timeout_s = 0", "1:12: broadcastt.pong_timeout_s: 0 is out of range"),
        ("broadcastt.channel_name_length = 1024", ""),
        ("broadcastt.channel_name_length = 1025", "1:12: broadcastt.channel_name_length: 1025"),
        ("broadcastt.channel_name_length = 0", "1:12: broadcastt.channel_name_length: 0 is out"),
        ("broadcastt.batch_events = 1000", ""),
        ("broadcastt.batch_events = 1001", "1:12: broadcastt.batch_events: 1001 is out of range"),
        ("broadcastt.batch_events = 0", "1:12: broadcastt.batch_events: 0 is out of range"),
        ("broadcastt.infer_channel = true", ""),
    ]);
    let lacking = "only the default, because the dialect `broadcastt` does not support this key";
    check_app(&[
        ("dialect = 'broadcastt'", ""),
        ("dialect = 'broadcast'", "5:11: apps[0].dialect: "),
        ("subscription_count = true", ""),
        (
            "dialect = 'broadcastt'\nsubscription_count = true",
            &format!(
                "6:1: apps[0].subscription_count: `true` is not accepted; accepted: {lacking}"
            ),
        ),
        (
            "dialect = 'broadcastt'\nwebhooks = [{ url = 'https://a.example/' }]",
            "6:1: apps[0].webhooks: ",
        ),
    ]);
}

/// Checks texts in the Zenith section: each with a part of its error, which names the last line.
fn check_zenith(cases: &[(&str, &str)]) {
    for (text, refusal) in cases {
        match parse(&format!("[zenith]\n{text}\n")) {
            Ok(_) => assert_eq!(*refusal, "", "{text}"),
            Err(error) => {
                let line = 1 + text.lines().count();
                assert!(error.starts_with(&format!("f:{line}:")), "{text}: {error}");
                assert!(!refusal.is_empty() && error.contains(refusal), "{text}: {error}");
            }
        }
    }
}

#[test]
fn config_ranges_of_zenith() {
    for (key, min, max) in [
        ("topic_length", 16, 65_536),
        ("subscriptions_per_connection", 1, 1 << 20),
        ("pending_per_connection", 1, 1 << 20),
        ("messages_per_s", 0, 1_000_000),
        ("wrong_tokens_per_connection", 0, 1_000_000),
        ("wrong_tokens_per_minute", 0, 1_000_000),
        ("answer_timeout_s", 1, 3600),
        ("ping_s", 1, 3600),
        ("pong_s", 1, 3600),
        ("batch", 1, 10_000),
        ("log_elements", 1, 1 << 20),
    ] {
        let refusal = |number| format!(": zenith.{key}: {number} is out of range; accepted: {min}");
        check_zenith(&[
            (&format!("{key} = {min}"), ""),
            (&format!("{key} = {max}"), ""),
            (&format!("{key} = {}", max + 1), &refusal(max + 1)),
        ]);
        if min > 0 {
            check_zenith(&[(&format!("{key} = {}", min - 1), &refusal(min - 1))]);
        }
    }
    check_zenith(&[
        ("message_bytes = 1024", ""),
        ("message_bytes = 1023", ": zenith.message_bytes: 1023 is out of range"),
        ("message_bytes = '16MiB'", ""),
        ("message_bytes = '17MiB'", ": zenith.message_bytes: 17825792 is too large; the maximum"),
    ]);
}

#[test]
fn config_accepted_zenith_names_and_values() {
    let token = |rest: &str| format!("tokens = [{{ token = 't', user = 'u'{rest} }}]");
    let feed = |rest: &str| format!("feeds = [{{ {rest} }}]");
    let topic = |rest: &str| format!("topics = [{{ {rest} }}]");
    check_zenith(&[
        ("", ""),
        (&token(""), ""),
        (&token(", expires = '2030-01-31T12:00:00+10:00'"), ""),
        (&token(", expires = '2030-01-31'"), ": zenith.tokens[0].expires: `2030-01-31` is not"),
        ("tokens = [{ token = '', user = 'u' }]", ": zenith.tokens[0].token: the value (not"),
        ("tokens = [{ token = 'a b', user = 'u' }]", ": zenith.tokens[0].token: the value"),
        ("tokens = [{ token = 't', user = '' }]", ": zenith.tokens[0].user: `` is not"),
        (
            "tokens = [{ token = 't', user = 'u' }]\nservices = [{ token = 't' }]",
            ": zenith.services[0].token: the value (not shown) is not accepted",
        ),
        (&feed("name = 'a', class = 'News'"), ""),
        (&feed("name = '', class = 'News'"), ": zenith.feeds[0].name: `` is not"),
        (&feed("name = 'a', class = 'Olds'"), ": zenith.feeds[0].class: `Olds` is not"),
        (
            &feed("name = 'a', class = 'News', status = 'On'"),
            ": zenith.feeds[0].status: `On` is not",
        ),
        (
            &feed("name = 'a', class = 'News' }, { name = 'a', class = 'News'"),
            ": zenith.feeds[1].name: `a` is not",
        ),
        (&topic("controller = 'M', kind = 'A', data = '{}', reply = 'null'"), ""),
        (&topic("controller = 'Auth', kind = 'A'"), ": zenith.topics[0].controller: `Auth` is"),
        (&topic("controller = 'M', kind = ''"), ": zenith.topics[0].kind: `` is not"),
        (
            &topic("controller = 'M', kind = 'A', data = 'null'"),
            ": zenith.topics[0].data: `null` is not",
        ),
        (
            &topic("controller = 'M', kind = 'A', reply = '{'"),
            ": zenith.topics[0].reply: `{` is not",
        ),
        (
            &topic("controller = 'M', kind = 'A' }, { controller = 'M', kind = 'A'"),
            ": zenith.topics[1].kind: `A` is not",
        ),
        (
            &topic("controller = 'M', kind = 'A', retain = 'last'"),
            ": zenith.topics[0].retain: `last` is not accepted; accepted: replace, merge, log",
        ),
    ]);
}

#[test]
fn config_zenith_has_a_route_when_configured() {
    let routes = |text: &str| {
        let config = parse(text).unwrap_or_else(|error| panic!("{error}"));
        let takes = |route: &&Route, path: &str| {
            route.when.is_empty() || route.when.iter().any(|it| it.path.matches(path))
        };
        let leads = |path: &str| config.routes.iter().find(|route| takes(route, path));
        let endpoint = |path: &str| leads(path).map(|route| format!("{:?}", route.endpoint));
        (endpoint("/Zenith"), endpoint("/z"), config.zenith.is_some())
    };
    let (zenith, apps) = (Some("Zenith".to_owned()), Some("Apps".to_owned()));
    assert_eq!(routes(APP), (apps.clone(), apps.clone(), false));
    assert_eq!(routes("[zenith]"), (zenith.clone(), apps.clone(), true));
    let own = "[[routes]]\nwhen = [{ path = '/z' }]\nendpoint = 'zenith'\n";
    assert_eq!(routes(own), (None, zenith.clone(), true));
    let echo = "[zenith]\n[[routes]]\nwhen = [{ path = '/z' }]\nendpoint = 'echo'\n";
    assert_eq!(routes(echo), (zenith, Some("Echo".to_owned()), true));
}

#[test]
fn config_webhook_ca_is_read_with_the_configuration() {
    let folder = std::env::temp_dir().join(format!("polycast-ca-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), authority.signing_key.serialize_pem()).unwrap();
    let load = |file: &str| {
        let hook = format!("[[apps.webhooks]]\nurl = 'https://a.example/'\nca_file = '{file}'");
        let path = folder.join("polycast.toml");
        std::fs::write(&path, format!("{APP}{hook}\n")).unwrap();
        Config::load(&path).map(|config| config.apps[0].webhooks[0].ca_file.clone())
    };
    let found = load("ca.pem").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, folder.join("ca.pem").to_str().unwrap(), "beside the configuration");
    assert_eq!(load("").unwrap(), "");
    for file in ["key.pem", "none.pem"] {
        let error = load(file).expect_err(file).to_string();
        assert!(error.contains("toml:7:1: apps[0].webhooks[0].ca_file: "), "{error}");
        assert!(error.contains(file), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Checks texts in the section of a proxy, which begins on line 3: each with the beginning of its
/// error.
fn check_proxy(cases: &[(&str, &str)]) {
    let route = "[[routes]]\nendpoint = 'proxy'\n";
    for (text, refusal) in cases {
        verify(&format!("{route}{text}\n{APP}"), refusal);
    }
}

#[test]
fn config_upstreams_are_urls() {
    let upstream = |url: &str| {
        let text = format!("[[routes]]\nendpoint = 'proxy'\nproxy.upstreams = '{url}'");
        let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let it = &config.routes[0].proxy.as_ref().unwrap().upstreams[0];
        let target = it.target.expose().to_owned();
        (it.secure, it.host.clone(), it.port, target, it.authority(), it.address().is_some())
    };
    for (url, secure, host, port, target, authority, literal) in [
        ("ws://a.example", false, "a.example", 80, "", "a.example", false),
        ("WSS://A.Example", true, "a.example", 443, "", "a.example", false),
        ("wss://a.example:443/", true, "a.example", 443, "/", "a.example", false),
        ("wss://a.example:80/x?y=z", true, "a.example", 80, "/x?y=z", "a.example:80", false),
        ("ws://a?b", false, "a", 80, "/?b", "a", false),
        ("ws://10.0.0.1:65535", false, "10.0.0.1", 65_535, "", "10.0.0.1:65535", true),
        ("wss://[0::1]/[", true, "::1", 443, "/[", "[::1]", true),
        ("ws://[::1]:1", false, "::1", 1, "", "[::1]:1", true),
        ("ws://my_backend:1/a@b", false, "my_backend", 1, "/a@b", "my_backend:1", false),
    ] {
        let want =
            (secure, host.to_owned(), port, target.to_owned(), authority.to_owned(), literal);
        assert_eq!(upstream(url), want, "{url}");
    }
    for (url, want) in [
        ("", "``"),
        ("a.example", "`a.example`"),
        ("ws://", "`ws://`"),
        ("ws:///x", "`ws://...`"),
        ("http://a", "`http://a`"),
        ("ws://a:0", "`ws://a:0`"),
        ("ws://a:65536", "`ws://a:65536`"),
        ("ws://a:", "`ws://a:`"),
        ("ws://a:+1", "`ws://a:+1`"),
        ("ws://::1", "`ws://::1`"),
        ("ws://[::1", "`ws://[::1`"),
        ("ws://[a]", "`ws://[a]`"),
        ("ws://[::1]x", "`ws://[::1]x`"),
        ("ws://a b", "`ws://a b`"),
        ("ws://a/secret#b", "`ws://a...`"),
        ("ws://a/secret b", "`ws://a...`"),
        ("ws://user:secret@a/", "a text with `@` (not shown)"),
    ] {
        let refusal = format!(
            "3:19: routes[0].proxy.upstreams: expected a URL such as \
             \"wss://example.com:8443/path\": ws or wss, a host name or an address (IPv6 in \
             brackets), without `user@` and `#fragment`, found {want}"
        );
        check_proxy(&[(&format!("proxy.upstreams = '{url}'"), &refusal)]);
    }
    let many = |count: usize| format!("proxy.upstreams = [{}]", "'ws://a',".repeat(count));
    check_proxy(&[
        ("proxy.upstreams = ['ws://a', 'wss://b']", ""),
        (&many(256), ""),
        (&many(257), "3:7: routes[0].proxy.upstreams: 257 is out of range; accepted: 1 to 256"),
        ("proxy.upstreams = ['ws://a', 'b']", "3:30: routes[0].proxy.upstreams[1]: expected a URL"),
        ("proxy.upstreams = []", "3:7: routes[0].proxy.upstreams: at least one entry"),
        ("proxy = {}", "3:1: routes[0].proxy.upstreams: at least one entry is required"),
        ("proxy.upstreams = 1", "3:19: routes[0].proxy.upstreams: expected a URL, or a list of"),
        ("", "1:1: routes[0].proxy: expected `upstreams`, because the endpoint is"),
    ]);
    let elsewhere = "[[routes]]\nendpoint = 'echo'\nproxy.upstreams = 'ws://a'";
    check(&[(elsewhere, "3:1: routes[0].proxy: only the endpoint `proxy` accepts this section")]);
}

/// As `check_proxy`, with texts after `[routes.proxy]` and one upstream, from line 5.
fn check_upstream(cases: &[(&str, &str)]) {
    for (text, refusal) in cases {
        check_proxy(&[(&format!("[routes.proxy]\nupstreams = 'wss://a'\n{text}"), refusal)]);
    }
}

#[test]
fn config_ranges_of_proxies() {
    for (key, min, max) in [
        ("connect_ms", 1, 3_600_000),
        ("handshake_ms", 1, 3_600_000),
        ("fail_after", 1, 10_000),
        ("retry_ms", 1, 3_600_000),
        ("resolve_s", 1, 86_400),
        ("buffer_bytes", 4096, 1_u64 << 30),
    ] {
        check_upstream(&[(&format!("{key} = {min}"), ""), (&format!("{key} = {max}"), "")]);
        for bad in [min - 1, max + 1] {
            let refusal =
                format!("5:1: routes[0].proxy.{key}: {bad} is out of range; accepted: {min} to");
            check_upstream(&[(&format!("{key} = {bad}"), &refusal)]);
        }
    }
    check_upstream(&[
        ("balance = 'round-robin'", ""),
        ("balance = 'least-connections'", ""),
        ("balance = 'first'", ""),
        (
            "balance = 'random'",
            "5:11: routes[0].proxy.balance: `random` is not accepted; accepted: round-robin, \
             least-connections, first",
        ),
        ("insecure = true", "5:1: routes[0].proxy.insecure: unknown key"),
        ("tls.insecure = true", "5:5: routes[0].proxy.tls.insecure: unknown key"),
    ]);
}

#[test]
fn config_header_fields_of_proxies() {
    let many = |count: usize| format!("pass_headers = [{}]", "'A',".repeat(count));
    let sets = |count: usize| {
        let fields: String = (0..count).map(|number| format!("A{number} = '',")).collect();
        format!("set_headers = {{ {fields} }}")
    };
    check_upstream(&[
        ("pass_headers = []", ""),
        ("pass_headers = ['Accept-Language', 'X-Forwarded-For']", ""),
        (&many(256), ""),
        (&many(257), "5:1: routes[0].proxy.pass_headers: 257 is out of range; accepted: 0 to 256"),
        ("pass_headers = ['A', 'a b']", "5:22: routes[0].proxy.pass_headers[1]: `a b` is not"),
        ("pass_headers = ['']", "5:17: routes[0].proxy.pass_headers[0]: `` is not"),
        ("pass_headers = ['host']", "5:17: routes[0].proxy.pass_headers[0]: `host` is not"),
        ("pass_headers = ['Sec-WebSocket-Key']", "5:17: routes[0].proxy.pass_headers[0]: `Sec-"),
        (
            "pass_headers = ['Cookie']\nset_headers = { cookie = 'a' }",
            "5:17: routes[0].proxy.pass_headers[0]: `Cookie` is not accepted; accepted: the name",
        ),
        ("set_headers = { Host = 'a', X-Token = 'b c' }", ""),
        (&sets(256), ""),
        (&sets(257), "5:1: routes[0].proxy.set_headers: 257 is out of range; accepted: 0 to 256"),
        ("set_headers = { Upgrade = 'a' }", "5:17: routes[0].proxy.set_headers.Upgrade: `Upgrade`"),
        ("set_headers = { 'a b' = 'a' }", "5:17: routes[0].proxy.set_headers.a b: `a b` is not"),
        ("set_headers = { a = \"\\n\" }", "5:17: routes[0].proxy.set_headers.a: the value (not"),
        ("forwarded = false", ""),
    ]);
}

#[test]
fn config_tls_of_proxies() {
    let pair = "expected either `cert` and `key`, or `pkcs12`";
    let pair = format!("5:5: routes[0].proxy.tls.certificate: {pair}");
    check_upstream(&[
        ("tls.ca_file = 'ca.pem'", ""),
        ("tls.server_name = 'b.example'", ""),
        ("tls.server_name = '10.0.0.1'", ""),
        ("tls.server_name = 'a b'", "5:5: routes[0].proxy.tls.server_name: `a b` is not accepted"),
        ("tls.certificate = { cert = 'a', key = 'b' }", ""),
        ("tls.certificate = { pkcs12 = 'a', password = 'b' }", ""),
        ("tls.certificate = { cert = 'a' }", &pair),
        ("tls.certificate = { cert = 'a', key = 'b', pkcs12 = 'c' }", &pair),
        ("tls.certificate = { password = 'a' }", &pair),
        ("tls.certificate = {}", ""),
        ("tls.certificate = { pkcs12 = 'a', alias = 'b' }", ""),
        (
            "tls.certificate = { cert = 'a', key = 'b', alias = 'c' }",
            "5:44: routes[0].proxy.tls.certificate.alias: expected no value, because `pkcs12`",
        ),
        ("tls = { ca_file = 'a', ca_password = 'b', ca_aliases = ['c'], ca_system = true }", ""),
        (
            "tls = { ca_file = 'a', ca_aliases = ['c'] }",
            "5:24: routes[0].proxy.tls.ca_aliases: expected no entries, because only",
        ),
        (
            "tls.ca_password = 'b'",
            "5:5: routes[0].proxy.tls.ca_password: expected no value, because `ca_file`",
        ),
        (
            "tls.ca_system = true",
            "5:5: routes[0].proxy.tls.ca_system: expected no value, because `ca_file`",
        ),
        ("tls.min_version = '1.3'", ""),
        ("tls.min_version = '1.1'", "5:19: routes[0].proxy.tls.min_version: `1.1` is not"),
    ]);
    check_proxy(&[(
        "proxy.upstreams = 'ws://a'\nproxy.tls.ca_file = 'ca.pem'",
        "4:7: routes[0].proxy.tls: expected at least one `wss://` URL in `upstreams`",
    )]);
}

#[test]
fn config_listener_stores_and_metric_names() {
    let tls = |more: &str| {
        let pair = "certificates = [{ pkcs12 = 'a', password = 'b', alias = 'c' }]";
        format!("listeners = [{{ address = '[::1]:1', tls = {{ {pair}, {more} }} }}]")
    };
    let mutual = "mutual = 'required', client_ca = 'd'";
    let namespace = |length: usize| format!("metrics.namespace = '{}'", "\u{e9}".repeat(length));
    let aliases = "1:147: listeners[0].tls.client_ca_aliases: expected no entries, because";
    check(&[
        (&tls(mutual), ""),
        (&tls(&format!("{mutual}, client_ca_password = 'e', client_ca_aliases = ['f']")), ""),
        (&tls(&format!("{mutual}, client_ca_aliases = ['f']")), aliases),
        (
            &tls("client_ca_password = 'e'"),
            "1:109: listeners[0].tls.client_ca_password: expected no value, because",
        ),
        (
            "listeners = [{ address = '[::1]:1', tls = { certificates = [{ cert = 'a', key = 'b', \
             alias = 'c' }] } }]",
            "1:86: listeners[0].tls.certificates[0].alias: expected no value, because `pkcs12`",
        ),
        ("metrics.open = true\nmetrics.zilla = true", ""),
        (&namespace(1), ""),
        (&namespace(128), ""),
        (&namespace(0), "1:9: metrics.namespace: 0 is out of range; accepted: 1 to 128 characters"),
        (&namespace(129), "1:9: metrics.namespace: 129 is out of range"),
    ]);
}

/// `polycast config example` and `polycast config reference` print the files. This is no unit test,
/// because unit tests have one more dialect.
#[test]
fn config_example_and_reference_are_made_from_the_sections() {
    let example = include_str!("../../polycast.example.toml");
    let reference = include_str!("../../docs/configuration.md");
    assert!(example == polycast::config::example(), "config example > polycast.example.toml");
    assert!(reference == polycast::config::reference(), "config reference > docs/configuration.md");
}

/// Checks links, each given as the lines of `source` and `views` after two applications, routes and
/// Zenith: with the beginning of the error, after the position.
fn check_links(cases: &[(&str, &str)]) {
    const REST: &str = "
zenith = {}
routes = [
    { endpoint = 'reflect', reflect = { group = 'path' }, when = [{ path = '/rooms/*' }] },
    { endpoint = 'reflect', reflect = { group = 'path' }, when = [{ path = '/twice/*' }] },
    { endpoint = 'reflect', reflect = { group = 'path' }, when = [{ path = '/twice/x*' }] },
    { endpoint = 'reflect', when = [{ path = '/one' }] },
    { endpoint = 'channel', when = [{ path = '/raw/*' }] },
    { endpoint = 'apps' },
]
apps = [
    { id = '1', key = 'one', secret = 's' },
    { id = '2', key = 'two', secret = 's', dialect = 'broadcastt' },
]
";
    for (links, refusal) in cases {
        match parse(&format!("{REST}{links}\n")) {
            Ok(_) => assert_eq!(*refusal, "", "{links}"),
            Err(error) => {
                assert!(!refusal.is_empty() && error.contains(refusal), "{links}\n{error}");
            }
        }
    }
}

/// One link from the first application's channels `source` to `view`.
fn link(source: &str, view: &str) -> String {
    format!("[[links]]\nsource = {{ app = '1', channel = '{source}' }}\n[[links.views]]\n{view}")
}

#[test]
fn config_links_have_one_source_and_views() {
    let view = |view: &str| link("q-{a}", view);
    check_links(&[
        (&view("app = '2'\nchannel = 'x-{a}'"), ""),
        (&view("zenith = 'Prices/{a}'"), ""),
        (&view("reflect = '/rooms/{a}'\npublish = true\nevent = 'said'"), ""),
        (&view("path = '/raw/{a}'"), ""),
        (&view("app = '1'\nchannel = 'x-{a}'"), "views[0].channel: the link has a name in this"),
        (&view("path = '/raw/{a}'\n[[links.views]]\npath = '/raw/x/{a}'"), "could also be in"),
        (
            &view("zenith = 'P/{a}'\n[[links.views]]\nzenith = 'Q/{a}'"),
            "views[1].zenith: the link has a name in this application or protocol already",
        ),
        (&view(""), "17:1: links[0].views[0]: exactly one of `channel`, `zenith`"),
        (&view("zenith = 'P/{a}'\npath = '/raw/{a}'"), "links[0].views[0]: exactly one of"),
        (&view("app = '2'\npath = '/raw/{a}'"), "views[0].app: only `channel` belongs"),
        (&view("app = '3'\nchannel = 'x-{a}'"), "views[0].app: no application has the id `3`"),
        (&view("channel = 'x-{a}'"), "views[0].app: no application has the id ``"),
        (&view("app = '2'\nchannel = 'x-{b}'"), "views[0].channel: the placeholders must be"),
        (&view("app = '2'\nchannel = 'x'"), "views[0].channel: the placeholders must be"),
        (&view("app = '2'\nchannel = 'x-*'"), "views[0].channel: `*` has no meaning"),
        (&view("app = '2'\nchannel = 'presence-{a}'"), "name begins with presence-"),
        (&view("app = '2'\nchannel = 'private-encrypted-{a}'"), "begins with private-encrypted-"),
        (&view("app = '2'\nchannel = 'private-{a}'"), ""),
        (&view("app = '2'\nchannel = 'x-{a}'\nevent = ''"), "views[0].event: "),
        (&view("zenith = '{a}/x'"), "views[0].zenith: expected a controller"),
        (&view("zenith = '{a}'"), "views[0].zenith: expected a controller"),
        (&view("reflect = '/one/{a}'"), "views[0].reflect: expected the path of exactly one"),
        (&view("reflect = '/twice/x{a}'"), "views[0].reflect: expected the path of exactly one"),
        (&view("path = '/rooms/{a}'"), "views[0].path: no route with"),
        ("[[links]]\nsource = { app = '1', channel = 'q' }", "links[0].views: "),
        (
            "[[links]]\nsource = { path = '/raw/{a}' }\nviews = [{ zenith = 'P/{a}' }]",
            "links[0].source.path: a plain path is no channel by itself",
        ),
        (
            "[[links]]\nsource = { app = '1', channel = 'q', publish = true }",
            "links[0].source.publish: only a view has this key",
        ),
    ]);
}

#[test]
fn config_links_that_meet_are_refused() {
    let clash = "a channel could also be in `q-{a}` of the links";
    let two = |source: &str, view: &str| {
        format!("{}\n{}", link("q-{a}", "app = '2'\nchannel = 'x-{a}'"), link(source, view))
    };
    check_links(&[
        (&two("r-{a}", "path = '/raw/{a}'"), ""),
        (&two("q-{a}", "path = '/raw/{a}'"), clash),
        (&two("q-special", "path = '/raw/special'"), clash),
        // A loop: the view of the second link is the source of the first one.
        (
            "[[links]]\nsource = { app = '1', channel = 'q-{a}' }\n\
             views = [{ app = '2', channel = 'x-{a}' }]\n\
             [[links]]\nsource = { app = '2', channel = 'x-{a}' }\n\
             views = [{ app = '1', channel = 'q-{a}' }]",
            "links[1].source.channel: a channel could also be in `x-{a}` of the links",
        ),
        (&two("x-{a}", "app = '2'\nchannel = 'x-{a}-y'"), "could also be in `x-{a}` of the links"),
    ]);
}

#[test]
fn config_links_of_the_example_are_accepted() {
    let text = include_str!("../../examples/links.toml");
    let config = Config::parse(text, FileFormat::Toml, "links.toml").expect("the example");
    assert_eq!((config.links.len(), config.links[0].views.len()), (1, 3));
}

#[test]
fn config_listener_on_a_unix_socket_or_behind_a_proxy() {
    let at =
        |address: &str, more: &str| format!("listeners = [{{ address = '{address}', {more} }}]");
    let (ip, six, unix) = ("127.0.0.1:0", "[::1]:0", "unix:/run/p.sock");
    for (address, more, refusal) in [
        (ip, "proxy_protocol = 'accepted', trusted_proxies = ['10.0.0.0/8', '::1']", ""),
        (ip, "forwarded = 'x-forwarded', trusted_proxies = ['127.0.0.1']", ""),
        (ip, "forwarded = 'forwarded', forwarded_hops = 16, trusted_proxies = ['::1']", ""),
        (unix, "proxy_protocol = 'required', trusted_proxies = ['unix']", ""),
        (unix, "mode = '0600'", ""),
        (six, "v6_only = true", ""),
        ("unix:run/p.sock", "name = 'a'", "address: expected an IPv4 or IPv6 address and a port"),
        (ip, "mode = '0600'", "mode: expected no mode, because the address is no Unix socket"),
        (unix, "mode = 'rw'", "mode: expected three octal digits"),
        (ip, "v6_only = true", "v6_only: expected false, because the address is not an IPv6"),
        (unix, "v6_only = true", "v6_only: expected false"),
        (ip, "proxy_protocol = 'on'", "proxy_protocol: `on` is not accepted; accepted: off, acc"),
        (
            ip,
            "forwarded = 'all'",
            "forwarded: `all` is not accepted; accepted: off, x-forwarded, f",
        ),
        (ip, "proxy_protocol = 'accepted'", "trusted_proxies: expected the networks of the prox"),
        (ip, "forwarded = 'forwarded'", "trusted_proxies: expected the networks of the proxies"),
        (ip, "trusted_proxies = ['::1']", "trusted_proxies: expected no entry, or proxy_protocol"),
        (
            ip,
            "forwarded = 'forwarded', trusted_proxies = ['unix']",
            "trusted_proxies: expected networks, because \"unix\" is for a listener on a Unix",
        ),
        (ip, "trusted_proxies = ['proxy']", "trusted_proxies[0]: expected an IP address, a netwo"),
        (
            ip,
            "forwarded_hops = 0, forwarded = 'forwarded', trusted_proxies = ['::1']",
            "forwarded_hops: 0 is out of range; accepted: 1 to 16",
        ),
        (
            ip,
            "forwarded_hops = 17, forwarded = 'forwarded', trusted_proxies = ['::1']",
            "forwarded_hops: 17 is out of range; accepted: 1 to 16",
        ),
    ] {
        match parse(&format!("{}\n{APP}", at(address, more))) {
            Ok(_) => assert_eq!(refusal, "", "{address} {more}"),
            Err(error) => {
                let found = error.split_once("listeners[0].").map(|(_, it)| it).unwrap_or(&error);
                assert!(!refusal.is_empty() && found.starts_with(refusal), "{more}: {error}");
            }
        }
    }
    let twice = format!("listeners = [{{ address = '{unix}' }}, {{ address = '{unix}' }}]\n{APP}");
    assert!(parse(&twice).unwrap_err().contains("`unix:/run/p.sock` is already used"));
}
