//! Each server's options, and what becomes of them.

use super::*;
use crate::config::{Cluster, HookEvent, ListenAddress, Profile};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

/// Writes a file for one test, under a name that no other test uses.
fn file(name: &str, text: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("polycast-migrate-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, text).expect("a file");
    path
}

fn imported(server: ForeignServer, name: &str, text: &str) -> Imported {
    import(server, &[file(name, text)], &Environment::default())
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The configuration that was made, and the notes.
fn made(server: ForeignServer, name: &str, text: &str) -> (Config, Vec<String>) {
    let Imported { toml, notes } = imported(server, name, text);
    let config = Config::parse_with(&toml, FileFormat::Toml, "made", &|_| None);
    (config.unwrap_or_else(|error| panic!("{error}: {toml}")), notes)
}

fn refused(server: ForeignServer, name: &str, text: &str) -> String {
    let path = file(name, text);
    let error =
        import(server, std::slice::from_ref(&path), &Environment::default()).expect_err(text);
    error.to_string().replace(&path.display().to_string(), name)
}

/// The notes must be about these options, one each, in any order.
fn assert_about(notes: &[String], names: &[&str]) {
    let mut found: Vec<&str> =
        notes.iter().map(|note| note.split_once(": ").expect("a name").0).collect();
    let mut names = names.to_vec();
    found.sort_unstable();
    names.sort_unstable();
    assert_eq!(found, names, "{notes:#?}");
}

fn address(config: &Config) -> String {
    ListenAddress::to_string(&config.listeners[0].address)
}

const SOKETI: &str = r#"{
    "debug": true,
    "host": "127.0.0.1",
    "port": 6009,
    "pathPrefix": "/ws/",
    "shutdownGracePeriod": 2500,
    "userAuthenticationTimeout": 12000,
    "appManager.array.apps": [
        {
            "id": 11, "key": "k1", "secret": "pa$$word${X}", "maxConnections": 500,
            "enableClientMessages": true, "enableUserAuthentication": true,
            "maxClientEventsPerSecond": "25", "maxBackendEventsPerSecond": 90,
            "maxReadRequestsPerSecond": -1, "maxEventPayloadInKb": 800, "colour": "blue",
            "webhooks": [
                {
                    "url": "http://hooks.test/a", "event_types": ["channel_occupied", "strange"],
                    "headers": { "X-Key": "v$" },
                    "filter": { "channel_name_starts_with": "a-", "channel_name_ends_with": "-z" }
                },
                { "lambda_function": "f", "event_types": ["client_event"] },
                { "url": "http://hooks.test/b", "event_types": ["other"] }
            ]
        },
        { "AppId": "22", "AppKey": "k2", "AppSecret": "s2", "MaxConnections": -1, "Enabled": 0 }
    ],
    "channelLimits": { "maxNameLength": 120, "cacheTtl": 60 },
    "eventLimits": { "maxPayloadInKb": 20.5, "maxNameLength": 5000, "maxBatchSize": 7 },
    "presence": { "maxMembersPerChannel": 50, "maxMemberSizeInKb": 3 },
    "webhooks": { "batching": { "enabled": true, "duration": 80 } },
    "cors": { "origin": ["https://a.example"], "credentials": true },
    "ssl": { "certPath": "/c.pem", "keyPath": "/k.pem", "passphrase": "", "caPath": "" },
    "database": { "redis": { "host": "h", "password": null } },
    "adapter": { "driver": "cluster" },
    "metrics": { "enabled": true, "port": 9601 },
    "newOption": { "deep": 1 }
}"#;

#[test]
fn import_soketi_file_converts_every_option_or_names_it() {
    let (config, notes) = made(ForeignServer::Soketi, "soketi.json", SOKETI);
    assert_eq!(address(&config), "127.0.0.1:6009");
    let pair = &config.listeners[0].tls.certificates[0];
    assert_eq!((pair.cert.as_str(), pair.key.as_str()), ("/c.pem", "/k.pem"));
    assert_eq!((config.log.level.as_str(), config.drain_s), ("debug", 3));
    assert_eq!(config.pusher.path_prefix, "/ws");
    let [one, two] = &config.apps[..] else { panic!("{}", config.apps.len()) };
    assert_eq!((one.id.as_str(), one.key.as_str()), ("11", "k1"));
    assert_eq!(one.secret.expose(), "pa$$word${X}", "a dollar stays one");
    assert_eq!((one.profile, two.profile), (Profile::Soketi, Profile::Soketi));
    assert_eq!((one.limits.connections, two.limits.connections), (500, 0));
    assert!(one.client_events && !two.client_events && one.enabled && !two.enabled);
    assert_eq!((one.authorise_within_s, two.authorise_within_s), (12, 0));
    assert_eq!((one.limits.client_events_per_s, two.limits.client_events_per_s), (25, 0));
    assert_eq!((one.limits.event_bytes, two.limits.event_bytes), (800 * 1024, 20_992));
    assert_eq!(config.limits.write_queue_bytes, 1600 * 1024, "room for the largest event");
    assert_eq!((two.limits.event_name_length, two.limits.batch_events), (1024, 7));
    assert_eq!((two.limits.channel_name_length, two.limits.cache_ttl_s), (120, 60));
    assert_eq!((two.limits.presence_members, two.limits.presence_member_bytes), (50, 3072));
    assert_eq!(two.cors_origins[0].as_str(), "https://a.example");
    let [hook] = &one.webhooks[..] else { panic!("{:?}", one.webhooks) };
    assert_eq!(hook.url.expose(), "http://hooks.test/a");
    assert_eq!(hook.event_types, [HookEvent::ChannelOccupied]);
    assert_eq!((hook.headers["X-Key"].expose(), hook.allow_private), ("v$", true));
    assert_eq!((hook.filter_prefix.as_str(), hook.filter_suffix.as_str()), ("a-", "-z"));
    assert_eq!((hook.batch, hook.batch_ms), (true, 80));
    let apps = "appManager.array.apps";
    let of_app = |rest: &str| format!("{apps}.0.{rest}");
    assert_about(
        &notes,
        &[
            &of_app("colour"),
            &of_app("maxBackendEventsPerSecond"),
            &of_app("webhooks"),
            &of_app("webhooks.0.event_types"),
            &of_app("webhooks.1"),
            &of_app("webhooks.2"),
            &of_app("webhooks.2.event_types"),
            "adapter.driver",
            "cors.credentials",
            "database.redis.host",
            "eventLimits.maxNameLength",
            "eventLimits.maxNameLength",
            "metrics.enabled",
            "metrics.port",
            "newOption.deep",
        ],
    );
    assert!(!notes.iter().any(|note| note.contains("pa$$word")), "{notes:#?}");
}

#[test]
fn import_soketi_variables_convert_or_are_named() {
    let text = "APP_NAME=shop # another program's\n\
                SOKETI_DEFAULT_APP_ID=app-7\nSOKETI_DEFAULT_APP_KEY='k 7'\n\
                SOKETI_DEFAULT_APP_SECRET=\"s7\"\nSOKETI_DEFAULT_APP_MAX_CONNS=-1\n\
                SOKETI_PORT=6005\nSOKETI_PORT=6006\nSOKETI_DEBUG=1\n\
                SOKETI_EVENT_MAX_SIZE_IN_KB=10\n\
                SOKETI_DEFAULT_APP_WEBHOOKS='[{\"url\":\"https://h.test\",\"event_types\":\
                [\"member_added\"]}]'\nSOKETI_DB_REDIS_HOST=redis\nSOKETI_SSL_PASS=\n\
                SOKETI_COLOUR=blue\nSOKETI_DEFAULT_APP_USER_AUTHENTICATION=true\n";
    let error = refused(ForeignServer::Soketi, "key.env", text);
    assert!(error.starts_with("configuration of soketi: apps[0].key: `k 7` is not"), "{error}");
    let (config, notes) = made(ForeignServer::Soketi, "soketi.env", &text.replace("k 7", "k7"));
    assert_eq!(address(&config), "0.0.0.0:6006");
    assert_eq!((config.apps[0].id.as_str(), config.apps[0].secret.expose()), ("app-7", "s7"));
    assert_eq!(config.apps[0].limits.event_bytes, 10 * 1024);
    assert_eq!(config.apps[0].webhooks[0].event_types, [HookEvent::MemberAdded]);
    assert_eq!((config.log.level.as_str(), config.apps[0].authorise_within_s), ("debug", 30));
    assert_about(
        &notes,
        &["SOKETI_PORT", "SOKETI_DB_REDIS_HOST", "SOKETI_COLOUR", "SOKETI_DEFAULT_APP_WEBHOOKS"],
    );
}

#[test]
fn import_soketi_variables_take_precedence_over_its_file() {
    let paths = [
        file("both.json", r#"{"port": 1, "appManager": {"array": {"apps": [{"id": "a"}]}}}"#),
        file("both.env", "SOKETI_PORT=2\nSOKETI_DEFAULT_APP_KEY=b\n"),
        PathBuf::from(OF_PROCESS),
    ];
    let environment = [("SOKETI_DEFAULT_APP_SECRET", "c"), ("PORT", "3")].into_iter().collect();
    let made = import(ForeignServer::Soketi, &paths, &environment).expect("sound");
    let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.expose()), ("a", "b", "c"));
    assert_eq!(address(&config), "0.0.0.0:2");
    assert!(made.notes.is_empty(), "{:?}", made.notes);
}

/// The public application of soketi is served as before, and named.
#[test]
fn import_soketi_without_an_application_warns_of_the_public_one() {
    let (config, notes) = made(ForeignServer::Soketi, "none.json", "{}");
    assert_eq!(config.apps[0].secret.expose(), "app-secret");
    assert_about(&notes, &["apps.0.id", "apps.0.key", "apps.0.secret"]);
    assert_eq!((config.apps[0].limits.event_bytes, config.drain_s), (100 * 1024, 10));
}

#[test]
fn import_sockudo_file_converts_its_policies() {
    let json = r#"{
        "port": 6010, "activity_timeout": 45, "shutdown_grace_period": 4, "max_connections": 9000,
        "websocket_max_payload_kb": 20000, "path_prefix": "/", "mode": "production",
        "user_authentication_timeout": 60,
        "app_manager": { "driver": "memory", "array": { "apps": [{
            "id": "a", "key": "k", "secret": "${SECRET:-none}", "enabled": true,
            "policy": {
                "limits": { "max_connections": 10, "max_event_payload_in_kb": "2" },
                "features": { "enable_client_messages": true, "enable_user_authentication": true,
                    "enable_watchlist_events": true },
                "channels": { "allowed_origins": ["https://a.example"], "channel_namespaces": [] },
                "webhooks": [{ "url": "https://h.test", "event_types": ["cache_miss"],
                    "filter": { "channel_prefix": "p", "channel_pattern": "^p" },
                    "retry": { "max_attempts": 3 } }],
                "idempotency": { "enabled": true }
            }
        }] } },
        "unix_socket": { "enabled": true, "path": "/run/s.sock", "permission_mode": 432 },
        "delta_compression": { "enabled": true }, "rate_limiter": { "enabled": false }
    }"#;
    let (config, notes) = made(ForeignServer::Sockudo, "sockudo.json", json);
    assert_eq!(address(&config), "unix:/run/s.sock");
    assert_eq!((config.drain_s, config.limits.connections), (4, 9000));
    assert_eq!(config.limits.message_bytes, 20_000 * 1024, "above the default of the server");
    let app = &config.apps[0];
    assert_eq!((app.secret.expose(), app.activity_timeout_s), ("none", 45));
    assert_eq!((app.limits.connections, app.limits.event_bytes), (10, 2048));
    assert!(app.client_events && app.watchlist);
    assert_eq!(app.authorise_within_s, 60);
    assert_eq!(app.allowed_origins[0].as_str(), "https://a.example");
    assert_eq!((app.webhooks[0].filter_prefix.as_str(), app.webhooks[0].batch), ("p", true));
    let app = "app_manager.array.apps.0.policy";
    assert_about(
        &notes,
        &[
            &format!("{app}.channels.channel_namespaces"),
            &format!("{app}.idempotency.enabled"),
            &format!("{app}.webhooks"),
            &format!("{app}.webhooks.0.filter.channel_pattern"),
            &format!("{app}.webhooks.0.retry"),
            "delta_compression.enabled",
            "rate_limiter.enabled",
            "unix_socket.permission_mode",
        ],
    );
}

#[test]
fn import_sockudo_toml_and_variables() {
    let toml = "host = '::1'\npath_prefix = 'ws'\n\
                [ssl]\nenabled = false\ncert_path = '/c'\nkey_path = '/k'\n\
                [[app_manager.array.apps]]\nid = 'a'\nkey = 'k'\nsecret = 's'\n";
    let paths = [
        file("sockudo.toml", toml),
        file("sockudo.env", "SOCKUDO_DEFAULT_APP_SECRET=t\nREDIS_URL=x\nUNRELATED=1\nPORT=7\n"),
    ];
    let made = import(ForeignServer::Sockudo, &paths, &Environment::default()).expect("sound");
    let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
    assert_eq!((address(&config), config.apps[0].secret.expose()), ("[::1]:7".to_owned(), "t"));
    assert_eq!((config.apps[0].activity_timeout_s, &*config.pusher.path_prefix), (120, "/ws"));
    assert!(!config.listeners[0].tls.is_on());
    assert_about(&made.notes, &["REDIS_URL", "UNRELATED"]);
    // Variables of other programs in the environment of the process are not named.
    let variables = [("SOCKUDO_DEFAULT_APP_SECRET", "t"), ("KAFKA_BROKERS", "b"), ("TERM", "x")];
    let environment = variables.into_iter().collect();
    let made = import_variables(ForeignServer::Sockudo, &environment).expect("sound");
    assert_about(&made.notes, &["KAFKA_BROKERS", "apps.0.id", "apps.0.key"]);
}

#[test]
fn import_reverb_variables() {
    let text = "REVERB_APP_ID=123\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\nREVERB_HOST=ws.test\n\
                REVERB_PORT=443\nREVERB_SCHEME=https\nREVERB_SERVER_PORT=8081\n\
                REVERB_SERVER_PATH=live\nREVERB_APP_MAX_MESSAGE_SIZE=20000\n\
                REVERB_MAX_REQUEST_SIZE=2000000\nREVERB_APP_RATE_LIMITING_ENABLED=true\n\
                REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS=90\nREVERB_SCALING_ENABLED=true\n\
                REVERB_APP_PING_INTERVAL=60\nREVERB_NEW=1\n\
                VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\nREVERB_APP_MAX_CONNECTIONS=70\n";
    let (config, notes) = made(ForeignServer::Reverb, "reverb.env", text);
    assert_eq!(
        (address(&config), config.pusher.path_prefix.as_str()),
        ("0.0.0.0:8081".into(), "/live")
    );
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.secret.expose(), app.activity_timeout_s), ("123", "s", 30));
    assert_eq!((app.limits.message_bytes, app.limits.event_bytes), (20_000, 2_000_000));
    assert_eq!((app.limits.connections, app.limits.client_events_per_s), (70, 2));
    assert_eq!(config.limits.write_queue_bytes, 4_000_000);
    assert!(app.client_events);
    assert_about(
        &notes,
        &[
            "REVERB_HOST",
            "REVERB_PORT",
            "REVERB_SCHEME",
            "REVERB_SCALING_ENABLED",
            "REVERB_APP_PING_INTERVAL",
            "REVERB_NEW",
            "REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS",
            "config/reverb.php",
        ],
    );
    let few = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n";
    for (line, client_events) in [("all", true), ("members", true), ("none", false)] {
        let text = format!("{few}REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM={line}\n");
        let (config, _) = made(ForeignServer::Reverb, "events.env", &text);
        assert_eq!(config.apps[0].client_events, client_events, "{line}");
    }
    let text = few.replace("REVERB_APP_KEY=k", "");
    let error = refused(ForeignServer::Reverb, "two.env", &text);
    assert!(error.contains("REVERB_APP_KEY: the variable is not set"), "{error}");
}

#[test]
fn import_pusher_variables() {
    let text = "PUSHER_APP_ID=1\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=s\nPUSHER_APP_CLUSTER=mt1\n\
                PUSHER_HOST=\nPUSHER_PORT=443\nBROADCAST_DRIVER=pusher\n";
    let (config, notes) = made(ForeignServer::Pusher, "pusher.env", text);
    assert_eq!(
        (config.apps[0].profile, address(&config)),
        (Profile::Pusher, "0.0.0.0:6001".into())
    );
    assert_about(&notes, &["PUSHER_APP_CLUSTER", "PUSHER_PORT", "Pusher's dashboard"]);
}

#[test]
fn import_malformed_files_are_refused_with_their_place() {
    let few = "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n";
    let app =
        |more: &str| format!(r#"{{ "appManager": {{ "array": {{ "apps": [{{ {more} }}] }} }} }}"#);
    use ForeignServer::{Pusher, Reverb, Sockudo, Soketi};
    for (server, name, text, problem) in [
        (Soketi, "a.json", "{\n \"port\": }".to_owned(), "a.json:2:10: expected value"),
        (Soketi, "b.json", "{ \"port\": \"http\" }".to_owned(), "port: expected a number"),
        (Soketi, "c.json", "{ \"port\": 65536 }".to_owned(), "port: 65536 is not a port"),
        (Soketi, "d.json", "{ \"host\": \"ws.test\" }".to_owned(), "host: `ws.test` is not an IP"),
        (Soketi, "e.json", "{ \"debug\": \"maybe\" }".to_owned(), "debug: expected true or false"),
        (Soketi, "f.json", app("\"maxConnections\": []"), "apps.0.maxConnections: expected a numb"),
        (Soketi, "g.json", app("\"webhooks\": {}"), "apps.0.webhooks: expected a list"),
        (Soketi, "h.json", app("\"webhooks\": [1]"), "apps.0.webhooks.0: expected an object"),
        (Soketi, "i.json", "[1]".to_owned(), "expected NAME=value"),
        (Soketi, "j.json", "{".repeat(1000), "key must be a string"),
        (Sockudo, "k.toml", "port = 1\nhost = \n".to_owned(), "k.toml:2:8: "),
        (Sockudo, "l.json", r#"{ "host": "${NO_SUCH}" }"#.to_owned(), "`NO_SUCH` is not set"),
        (Reverb, "m.env", format!("{few}NOT A LINE\n"), "m.env:4:1: expected NAME=value"),
        (Reverb, "n.php", "<?php\nreturn [];".to_owned(), "a PHP file cannot be read"),
        (Reverb, "o.env", format!("{few}REVERB_SERVER_PORT=x\n"), "REVERB_SERVER_PORT: expected a"),
        (Pusher, "p.env", String::new(), "PUSHER_APP_ID: the variable is not set"),
    ] {
        let error = refused(server, name, &text);
        assert!(error.contains(problem), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let secret = refused(Reverb, "q.env", &format!("{few}SECRET \"s3cret\n"));
    assert!(!secret.contains("s3cret"), "{secret}");
    let missing = import(Soketi, &[PathBuf::from("no/such.json")], &Environment::default());
    let error = missing.expect_err("no file").to_string();
    assert!(error.starts_with("no/such.json: cannot be read: No such file"), "{error}");
    let path = file("bytes.env", "");
    fs::write(&path, [b'A', b'=', 0xff]).expect("written");
    let error = import(Reverb, &[path], &Environment::default()).expect_err("bytes");
    assert!(error.to_string().contains("the file is not UTF-8"), "{error}");
}

#[test]
fn import_files_are_bounded() {
    let longest = format!("{{}}{}", " ".repeat(4 * 1024 * 1024 - 2));
    let name = "longest.json";
    assert!(
        import(ForeignServer::Soketi, &[file(name, &longest)], &Environment::default()).is_ok()
    );
    let error = refused(ForeignServer::Soketi, "longer.json", &format!("{longest} "));
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn import_variables_that_are_not_utf8_are_refused() {
    let variable = (OsString::from("SOKETI_PORT"), OsString::from_vec(vec![0xff]));
    let environment = [variable].into_iter().collect();
    let error = import_variables(ForeignServer::Soketi, &environment).expect_err("not UTF-8");
    assert_eq!(error.to_string(), "SOKETI_PORT: the value is not UTF-8");
    let variable = (OsString::from("OTHER"), OsString::from_vec(vec![0xff]));
    let environment = [variable].into_iter().collect();
    assert!(import_variables(ForeignServer::Soketi, &environment).is_ok());
}

#[test]
fn import_server_names() {
    for server in ForeignServer::ALL {
        assert_eq!(server.name().parse(), Ok(server));
    }
    assert_eq!("other".parse::<ForeignServer>(), Err(UnknownServer));
}

#[test]
fn import_nats_becomes_a_cluster() {
    let soketi = "SOKETI_ADAPTER_DRIVER=nats\nSOKETI_ADAPTER_NATS_SERVERS='[\"n1:4222\",\"n2\"]'\n\
                  SOKETI_ADAPTER_NATS_USER=u\nSOKETI_ADAPTER_NATS_PASSWORD='pa$word'\n\
                  SOKETI_ADAPTER_NATS_PREFIX=old\n";
    let sockudo = r#"{"adapter": {"driver": "nats", "nats": {"servers": ["nats://n1:4222", "n2"],
        "username": "u", "password": "pa$word", "token": null, "prefix": "old"}}}"#;
    for (server, name, text, prefix) in [
        (ForeignServer::Soketi, "soketi-nats.env", soketi, "SOKETI_ADAPTER_NATS_PREFIX"),
        (ForeignServer::Sockudo, "sockudo-nats.json", sockudo, "adapter.nats.prefix"),
    ] {
        let made = import(server, &[file(name, text)], &Environment::default()).expect("sound");
        if !cfg!(feature = "cluster-nats") {
            assert!(!made.toml.contains("[cluster]"), "{}", made.toml);
            continue;
        }
        let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
        let cluster = config.cluster.unwrap_or_else(|| panic!("{:#?}", made.notes));
        assert_eq!(cluster.engine, ["nats://n1:4222", "nats://n2:4222"]);
        assert_eq!((cluster.user.as_str(), cluster.password.expose()), ("u", "pa$word"));
        let about = |name: &str| made.notes.iter().any(|note| note.starts_with(name));
        assert!(about(prefix) && made.notes.iter().any(|note| note.contains("JetStream")));
        assert!(!made.notes.iter().any(|note| note.contains("pa$word")), "{:#?}", made.notes);
    }
}

#[test]
fn import_nats_is_left_out_where_a_cluster_does_not_carry_the_application() {
    let text = r#"{"adapter": {"driver": "nats"}, "appManager.array.apps": [
        {"id": "1", "key": "k", "secret": "s", "maxConnections": 500}]}"#;
    let paths = [file("soketi-nats.json", text)];
    let made = import(ForeignServer::Soketi, &paths, &Environment::default()).expect("sound");
    let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
    let is_carried = config.cluster.is_some();
    let note = made.notes.iter().find(|note| note.starts_with("[cluster] with engine = "));
    assert_eq!(note.is_some(), !is_carried, "{:#?}", made.notes);
    if let Some(note) = note {
        assert!(note.contains("nats://127.0.0.1:4222"), "{note}");
    }
    assert_eq!(config.apps[0].limits.connections, 500);
    // What this server does not use is named.
    let other = text.replace("nats", "cluster");
    let paths = [file("soketi-other.json", &other)];
    let made = import(ForeignServer::Soketi, &paths, &Environment::default()).expect("sound");
    assert!(made.notes.iter().any(|note| note.starts_with("adapter.driver: ")));
    assert!(!made.toml.contains("[cluster]"));
}

/// What a file of a server becomes: the section and the notes; `None` if this build has no Redis.
fn redis(server: ForeignServer, name: &str, text: &str) -> Option<(Cluster, Vec<String>)> {
    let made = import(server, &[file(name, text)], &Environment::default()).expect("sound");
    if !cfg!(feature = "cluster-redis") {
        assert!(!made.toml.contains("[cluster]"), "{}", made.toml);
        return None;
    }
    let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
    let cluster = config.cluster.unwrap_or_else(|| panic!("{:#?}", made.notes));
    assert!(!made.notes.iter().any(|note| note.contains("pa$word")), "{:#?}", made.notes);
    assert!(made.notes.iter().any(|note| note.contains("noeviction")), "{:#?}", made.notes);
    Some((*cluster, made.notes))
}

#[test]
fn import_redis_of_soketi_becomes_a_cluster() {
    let of = |more: &str| {
        let name = format!("soketi-redis-{}.env", more.len());
        redis(ForeignServer::Soketi, &name, &format!("SOKETI_ADAPTER_DRIVER=redis\n{more}"))
    };
    let servers = r#"'[{"host":"h1","port":7001},{"host":"h2"}]'"#;
    for (more, engine, user, name) in [
        ("", &["redis://127.0.0.1:6379"][..], "", "polycast"),
        (
            "SOKETI_DB_REDIS_HOST=r\nSOKETI_DB_REDIS_PORT=7\nSOKETI_DB_REDIS_PASSWORD='pa$word'\n\
             SOKETI_ADAPTER_REDIS_PREFIX=chat\n",
            &["redis://r:7"],
            "default",
            "chat",
        ),
        (
            &format!(
                "SOKETI_DB_REDIS_SENTINELS={servers}\nSOKETI_DB_REDIS_INSTANCE_NAME=m\n\
                 SOKETI_DB_REDIS_USERNAME=u\nSOKETI_DB_REDIS_PASSWORD='pa$word'\n"
            ),
            &["redis+sentinel://h1:7001/m", "redis+sentinel://h2:26379/m"],
            "u",
            "polycast",
        ),
        (
            &format!(
                "SOKETI_ADAPTER_REDIS_CLUSTER_MODE=true\nSOKETI_DB_REDIS_CLUSTER_NODES={servers}\n"
            ),
            &["redis+cluster://h1:7001", "redis+cluster://h2:6379"],
            "",
            "polycast",
        ),
    ] {
        let Some((cluster, _)) = of(more) else { return };
        assert_eq!(cluster.engine, engine, "{more}");
        let password = if user.is_empty() { "" } else { "pa$word" };
        assert_eq!((cluster.user.as_str(), cluster.password.expose()), (user, password), "{more}");
        assert_eq!(cluster.name, name);
    }
    let more = "SOKETI_DB_REDIS_DB=3\nSOKETI_DB_REDIS_KEY_PREFIX=k\n\
                SOKETI_ADAPTER_REDIS_PREFIX='a b'\nSOKETI_DB_REDIS_SENTINEL_PASSWORD='pa$word'\n";
    let Some((_, notes)) = of(more) else { return };
    for name in ["DB_REDIS_DB", "DB_REDIS_KEY_PREFIX", "ADAPTER_REDIS_PREFIX"] {
        let name = format!("SOKETI_{name}: ");
        assert!(notes.iter().any(|note| note.starts_with(&name)), "{name} {notes:#?}");
    }
}

#[test]
fn import_redis_of_sockudo_becomes_a_cluster() {
    let base = r#""host": "rediss://r", "port": 7, "username": "u", "password": "pa$word""#;
    let node = r#"[{"host": "h1", "port": 7001}, {"host": "rediss://h2:7002"}]"#;
    let tls = r#""sentinelTls": {"enabled": true}, "masterTls": {"enabled": true}"#;
    for (number, (driver, adapter, database, engine)) in [
        ("redis", "", base.to_owned(), &["rediss://r:7"][..]),
        (
            "redis",
            "",
            format!(r#"{base}, "sentinels": [{{"host": "s"}}], {tls}"#),
            &["rediss+sentinel://s:26379/mymaster"],
        ),
        (
            "redis-cluster",
            r#", "cluster": {"nodes": ["n1:7001", "redis://n2"], "prefix": "old:"}"#,
            base.to_owned(),
            &["redis+cluster://n1:7001", "redis+cluster://n2:6379"],
        ),
        (
            "redis",
            r#", "redis": {"clusterMode": true, "prefix": "old:"}"#,
            format!(r#"{base}, "cluster": {{"nodes": {node}, "useTLS": true}}"#),
            &["rediss+cluster://h1:7001", "rediss+cluster://h2:7002"],
        ),
        ("redis-cluster", "", base.to_owned(), &["redis+cluster://127.0.0.1:7000"]),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(
            r#"{{"adapter": {{"driver": "{driver}"{adapter}}}, "database": {{"redis": {{{database}}}}}}}"#
        );
        let name = format!("sockudo-redis-{number}.json");
        let Some((cluster, notes)) = redis(ForeignServer::Sockudo, &name, &text) else { return };
        assert_eq!(cluster.engine, engine, "{notes:#?}");
        assert_eq!((cluster.user.as_str(), cluster.password.expose()), ("u", "pa$word"));
        assert_eq!(cluster.name == "old", text.contains("old"));
    }
    let text = "ADAPTER_DRIVER=redis-cluster\nREDIS_CLUSTER_NODES=n1:1,n2\n\
                DATABASE_REDIS_CLUSTER_PASSWORD='pa$word'\nDATABASE_REDIS_PASSWORD=other\n";
    let found = redis(ForeignServer::Sockudo, "sockudo-redis.env", text);
    let Some((cluster, _)) = found else { return };
    assert_eq!(cluster.engine, ["redis+cluster://n1:1", "redis+cluster://n2:6379"]);
    assert_eq!((cluster.user.as_str(), cluster.password.expose()), ("default", "pa$word"));
}

/// sockudo's adapter uses the URL alone, whichever of its forms it has.
#[test]
fn import_redis_url_of_sockudo_counts_alone() {
    let base = "ADAPTER_DRIVER=redis\nDATABASE_REDIS_HOST=other\nDATABASE_REDIS_PASSWORD=p\n";
    let unused = ["DATABASE_REDIS_HOST: is not used", "DATABASE_REDIS_PASSWORD: is not used"];
    for (number, (url, engine, user, note)) in [
        ("redis://r", "redis://r:6379", "", None),
        ("rediss://u:pa%24word@r:7/0", "rediss://r:7", "u", None),
        ("redis://:pa$word@[::1]:7/3", "redis://[::1]:7", "default", Some("the database 0")),
        ("redis://r/?protocol=resp3", "redis://r:6379", "", Some("what follows `?`")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("sockudo-url-{number}.env");
        let text = format!("{base}REDIS_URL='{url}'\n");
        let Some((cluster, notes)) = redis(ForeignServer::Sockudo, &name, &text) else { return };
        assert_eq!(cluster.engine, [engine], "{notes:#?}");
        let password = if user.is_empty() { "" } else { "pa$word" };
        assert_eq!((cluster.user.as_str(), cluster.password.expose()), (user, password), "{url}");
        let has = |part: &str| notes.iter().any(|it| it.starts_with(part));
        assert!(unused.into_iter().all(has), "{notes:#?}");
        let about: Vec<_> = notes.iter().filter(|it| it.starts_with("REDIS_URL: ")).collect();
        assert_eq!(about.len(), usize::from(note.is_some()), "{notes:#?}");
        assert!(about.iter().all(|it| it.contains(note.unwrap_or_default())), "{notes:#?}");
    }
    // The same in a file, which the variable replaces.
    let urls = |second: &str| {
        format!(
            r#"{{"adapter": {{"driver": "redis", "redis": {{"cluster_mode": true,
            "redis_pub_options": {{"url": "rediss://f:1"}},
            "redis_sub_options": {{"url": "{second}"}}}}}}}}"#
        )
    };
    for (number, second) in ["rediss://f:1", "redis://g"].into_iter().enumerate() {
        let name = format!("sockudo-url-{number}.json");
        let found = redis(ForeignServer::Sockudo, &name, &urls(second));
        let Some((cluster, notes)) = found else { return };
        assert_eq!(cluster.engine, ["rediss+cluster://f:1"]);
        let is_named = notes.iter().any(|it| it.contains("redis_sub_options.url: is not used"));
        assert_eq!(is_named, number == 1, "{notes:#?}");
    }
    let paths =
        [file("url-both.json", &urls("redis://g")), file("url-both.env", "REDIS_URL=redis://r\n")];
    let made = import(ForeignServer::Sockudo, &paths, &Environment::default()).expect("sound");
    let config = Config::parse(&made.toml, FileFormat::Toml, "f").expect("valid");
    assert_eq!(config.cluster.expect("a cluster").engine, ["redis+cluster://r:6379"]);
    // Other adapters do not use it.
    for driver in ["local", "redis-cluster"] {
        let text = format!("ADAPTER_DRIVER={driver}\nREDIS_URL=redis://:s3cret@r\n");
        let paths = [file(&format!("url-{driver}.env"), &text)];
        let made = import(ForeignServer::Sockudo, &paths, &Environment::default()).expect("sound");
        assert!(made.notes.iter().any(|it| it.starts_with("REDIS_URL: ")), "{:#?}", made.notes);
        assert!(!made.toml.contains("s3cret"), "{}", made.toml);
    }
    for url in ["r:6379", "unix:///run/redis.sock", "redis://", "http://u:secret@r"] {
        let text = format!("ADAPTER_DRIVER=redis\nREDIS_URL={url}\n");
        let error = refused(ForeignServer::Sockudo, "url-wrong.env", &text);
        assert!(error.contains("REDIS_URL: expected servers as "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn import_redis_with_servers_of_another_kind_is_an_error() {
    for (number, nodes) in
        [r#"["ws://u:secret@n1"]"#, r#"[{"host": "http://n1"}]"#, r#"[{"name": "n1"}]"#]
            .into_iter()
            .enumerate()
    {
        let database = format!(r#"{{"redis": {{"sentinels": {nodes}}}}}"#);
        let text = format!(r#"{{"adapter": {{"driver": "redis"}}, "database": {database}}}"#);
        let paths = [file(&format!("soketi-wrong-{number}.json"), &text)];
        let error = import(ForeignServer::Soketi, &paths, &Environment::default()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("database.redis.sentinels"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn import_nats_with_servers_of_another_kind_is_an_error() {
    let text = r#"{"adapter": {"driver": "nats", "nats": {"servers": ["ws://u:secret@n1"]}}}"#;
    let paths = [file("soketi-ws.json", text)];
    let error = import(ForeignServer::Soketi, &paths, &Environment::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("adapter.nats.servers") && !error.contains("secret"), "{error}");
}
