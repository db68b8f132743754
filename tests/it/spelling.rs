//! Spellings of paths on guarded routes that lead to an upstream: which are refused, which are
//! forwarded, and whether usual servers read the forwarded path as the guard did.

use crate::bench::*;
use crate::machine::{common, config};
use crate::peer::handshake;
use polycast::config::Pattern;
use polycast::shard::Shard;

/// `/admin/*` is guarded and rejected without a token; other paths are open.
const FENCED: &str = "[[routes]]\nwhen = [{ path = '/admin/*' }]\nguarded = { g = [] }\n\
                      endpoint = 'proxy'\nproxy.upstreams = 'ws://127.0.0.1:1001'\n\
                      [[routes]]\nwhen = [{ path = '/admin/*' }]\nendpoint = 'reject'\n\
                      [[routes]]\nendpoint = 'proxy'\nproxy.upstreams = 'ws://127.0.0.1:1001'\n";
/// `/public/*` is open; other paths are guarded.
const GUARDED: &str = "[[routes]]\nwhen = [{ path = '/public/*' }]\nendpoint = 'proxy'\n\
                       proxy.upstreams = 'ws://127.0.0.1:1001'\n\
                       [[routes]]\nguarded = { g = [] }\nendpoint = 'proxy'\n\
                       proxy.upstreams = 'ws://127.0.0.1:1001'\n";
const GUARD: &str = "[[guards]]\nname = 'g'\nissuer = 'https://auth.example.com'\n";

/// The result of a request without a token: the status of a refusal, or the forwarded target.
fn outcome(bench: &mut Bench, target: &str) -> Result<String, String> {
    let client = bench.open();
    bench.receive(client, &handshake(target, ""));
    let upstream = client + 1;
    if bench.wires.len() == upstream {
        let answer = bench.text(client);
        return Err(answer.get(9..12).unwrap_or_else(|| panic!("{target}: {answer}")).to_owned());
    }
    bench.connected(upstream, Ok(()));
    let request = bench.text(upstream);
    let target = request.strip_prefix("GET ").and_then(|it| it.split_once(" HTTP/1.1\r\n"));
    let target = target.unwrap_or_else(|| panic!("{request}")).0.to_owned();
    bench.close(client);
    bench.close(upstream);
    Ok(target)
}

fn bench(routes: &str) -> Bench {
    let mut bench = Bench::new("'ws://127.0.0.1:1001'", "");
    let config = config(&format!("{GUARD}{routes}"));
    bench.shard = Shard::new(0, &common(config, 1, 1, 64), bench.counters.clone());
    bench
}

#[test]
fn spelling_does_not_lead_past_a_guard() {
    let (mut fenced, mut guarded) = (bench(FENCED), bench(GUARDED));
    let own = |bench: &mut Bench, target: &str| match outcome(bench, target) {
        Ok(sent) => format!("-> {sent}"),
        Err(status) => status,
    };
    for (target, by_fence, by_guard) in [
        ("/admin/x", "403", "401"),
        ("/%61dmin/x", "403", "401"),
        ("//admin/x", "403", "401"),
        ("/./admin/x", "403", "401"),
        ("/a/../admin/x", "403", "401"),
        ("/public/%2e%2e/admin/x", "403", "401"),
        ("/public/../admin/x", "403", "401"),
        ("/public/%2E%2E/%61%64%6d%69%6e//x", "403", "401"),
        ("/admin%2Fx", "400", "401"),
        ("/admin;a=b/x", "400", "401"),
        ("/admin%3ba=b/x", "400", "401"),
        ("/admin\\x", "400", "401"),
        ("/admin%5cx", "400", "401"),
        ("/admin%00/x", "400", "401"),
        ("/public/..;/admin/x", "400", "400"),
        ("/public/..%2fadmin/x", "400", "400"),
        ("/public/..\\admin/x", "400", "400"),
        ("/public/%zz", "400", "400"),
        ("/public/%c0%ae%c0%ae/admin/x", "400", "400"),
        // A path that is not ambiguous is forwarded in its normal form, with the query unchanged.
        ("/public/x?a=%61//../b;c", "-> /public/x?a=%61//../b;c", "-> /public/x?a=%61//../b;c"),
        ("/public//%78/./y?", "-> /public/x/y?", "-> /public/x/y?"),
        ("/public/a%40b%3ac%20d", "-> /public/a%40b%3Ac%20d", "-> /public/a%40b%3Ac%20d"),
        ("/public/caf%c3%a9", "-> /public/caf%C3%A9", "-> /public/caf%C3%A9"),
        ("/admin/../public/x/", "-> /public/x/", "-> /public/x/"),
        ("/ADMIN/x", "-> /ADMIN/x", "401"),
        ("/%2561dmin/x", "-> /%2561dmin/x", "401"),
        ("/public/%252e%252e/x", "-> /public/%252e%252e/x", "-> /public/%252e%252e/x"),
    ] {
        assert_eq!(own(&mut fenced, target), by_fence, "{target}");
        assert_eq!(own(&mut guarded, target), by_guard, "{target}");
    }
    assert_eq!(fenced.counters.paths_refused.get(), 11);
    assert_eq!(guarded.counters.paths_refused.get(), 5);
}

#[test]
fn spelling_that_is_ambiguous_goes_on_where_it_is_allowed() {
    let allowed = FENCED.replace(
        "proxy.upstreams = 'ws://127.0.0.1:1001'\n",
        "proxy.upstreams = 'ws://127.0.0.1:1001'\nproxy.allow_ambiguous_paths = true\n",
    );
    let mut bench = bench(&allowed);
    for (target, sent) in [
        ("/a%2fb", "/a%2Fb"),
        ("/ws;session=1/x", "/ws;session=1/x"),
        ("/a\\b", "/a\\b"),
        ("/%zz/../x%", "/x%"),
    ] {
        assert_eq!(outcome(&mut bench, target), Ok(sent.to_owned()), "{target}");
    }
    assert_eq!(
        outcome(&mut bench, "//admin/x"),
        Err("403".to_owned()),
        "//admin/x is not ambiguous, so the guard still refuses it"
    );
    assert_eq!(bench.counters.paths_refused.get(), 0);
}

#[test]
fn spelling_does_not_matter_to_what_is_served_here() {
    let routes = "[[routes]]\nwhen = [{ path = '/echo/*' }]\nendpoint = 'echo'\n\
                  [[routes]]\nendpoint = 'reject'\nstatus = 410\n";
    let mut bench = bench(routes);
    for (target, status) in [
        ("/echo/a", "101"),
        ("//%65cho/a;b%2Fc", "101"),
        ("/x/../echo/a", "101"),
        ("/echo/../a", "410"),
        ("/echo%2Fa", "410"),
    ] {
        assert_eq!(outcome(&mut bench, target), Err(status.to_owned()), "{target}");
    }
}

/// Decodes percent escapes once; invalid escapes stay unchanged.
fn decoded(text: &str) -> String {
    let (mut out, bytes) = (Vec::new(), text.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The path without empty and dot segments.
fn cleaned(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let end = if path.ends_with(['/', '.']) { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// The ways in which servers read a path: each decodes it once, and resolves it before or after.
fn readings(path: &str) -> Vec<String> {
    let without_parameters = |path: &str| {
        let segments = path.split('/').map(|it| it.split(';').next().unwrap_or_default());
        segments.collect::<Vec<_>>().join("/")
    };
    let cut = |path: &str| path.split(['#', '\0']).next().unwrap_or_default().to_owned();
    vec![
        path.to_owned(),
        decoded(path),
        cleaned(&decoded(path)),
        cleaned(&decoded(&without_parameters(path))),
        cleaned(&without_parameters(&decoded(path))),
        cleaned(&decoded(path).replace('\\', "/")),
        cleaned(&decoded(&cut(path))),
        cleaned(&cut(&decoded(path))),
    ]
}

#[test]
fn spelling_that_is_proxied_is_read_by_no_server_as_a_guarded_path() {
    const PIECES: [&str; 24] = [
        "/", "/", "/", "//", "admin", "public", "%61dmin", "pub%6Cic", ".", "..", "%2e", "%2E%2e",
        "%2f", "%5C", "\\", ";", ";a=b", "%00", "#", "%25", "%3b", "%23", "x", "%",
    ];
    let mut random = fastrand::Rng::with_seed(6);
    let (mut fenced, mut guarded) = (bench(FENCED), bench(GUARDED));
    let (admin, public) = (Pattern::new("/admin/*"), Pattern::new("/public/*"));
    let (mut went_on, mut refused, mut walks) = (0, 0, 0);
    for _ in 0..4000 {
        let pieces = random.usize(1..9);
        let mut target = String::from("/");
        (0..pieces).for_each(|_| target.push_str(PIECES[random.usize(..PIECES.len())]));
        // A match of the text alone would have let the path through, and a server would have read a
        // guarded path.
        let is_guarded = |path: &String| admin.matches(path);
        walks += u32::from(!admin.matches(&target) && readings(&target).iter().any(is_guarded));
        match outcome(&mut fenced, &target) {
            Ok(sent) => {
                went_on += 1;
                let read = readings(&sent);
                assert!(!read.iter().any(is_guarded), "{target} -> {sent}: {read:?}");
            }
            Err(_) => refused += 1,
        }
        if let Ok(sent) = outcome(&mut guarded, &target) {
            let read = readings(&sent);
            let is_open = |path: &String| public.matches(path);
            assert!(read.iter().all(is_open), "{target} -> {sent}: {read:?}");
        }
    }
    assert!(went_on > 300 && refused > 300 && walks > 100, "{went_on} {refused} {walks}");
}
