//! Requests against routes: the first route that a naive reading of their conditions takes, and no
//! other. A subprotocol that carries a token is never returned if another one is offered.

use super::Script;
use polycast::config::{Condition, EndpointKind, Pattern, Route, RouteQuery};

const WORDS: [&str; 12] = ["a", "b", "ab", "*", "/", "/a", "/a*", "a=b", "a:80", "h", "a*b", "a.b"];

fn word(script: &mut Script<'_>) -> &'static str {
    WORDS[usize::from(script.byte().unwrap_or(0)) % WORDS.len()]
}

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.byte().unwrap_or(0);
    let mut route = Route::to(EndpointKind::Echo);
    for _ in 0..flags & 3 {
        let mut condition = Condition::default();
        let keys = script.byte().unwrap_or(0);
        for (bit, key) in [
            &mut condition.protocol,
            &mut condition.path,
            &mut condition.query,
            &mut condition.authority,
        ]
        .into_iter()
        .enumerate()
        {
            if keys >> bit & 1 == 1 {
                *key = Pattern::new(word(&mut script));
            }
        }
        if keys & 16 != 0 {
            condition.scheme = Pattern::new(if keys & 32 == 0 { "http" } else { "wss" });
        }
        route.when.push(condition);
    }
    let secure = flags & 4 != 0;
    let authority = word(&mut script);
    let rest = script.take(64);
    let text = String::from_utf8_lossy(rest).into_owned();
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let authority = Some(authority).filter(|_| flags & 8 == 0);
    let asked = RouteQuery { path, query, authority, secure, listener: "" };
    let offered: Vec<&str> = WORDS[..usize::from(flags >> 4) % 4].to_vec();
    let chosen = route.takes(&asked, &offered);
    assert_eq!(chosen.is_some(), takes(&route, &asked, &offered), "{route:?} {asked:?}");
    if let Some(Some(name)) = chosen {
        assert!(offered.contains(&name));
        let lists = |it: &Condition| !it.protocol.is_empty() && glob(it.protocol.as_str(), name);
        assert!(route.when.iter().any(lists), "nobody lists {name}");
    }
}

fn takes(route: &Route, asked: &RouteQuery<'_>, offered: &[&str]) -> bool {
    let pairs: Vec<String> = asked
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    // Percents and pluses are decoded, which is another module's affair.
    let plain = !asked.query.contains(['%', '+']);
    let own = if asked.secure { "443" } else { "80" };
    let hosts = asked.authority.map(|host| match host.strip_suffix(&format!(":{own}")) {
        Some(bare) => vec![host.to_owned(), bare.to_owned()],
        None if host.contains(':') => vec![host.to_owned()],
        None => vec![host.to_owned(), format!("{host}:{own}")],
    });
    let any = |pattern: &str, texts: &[String]| texts.iter().any(|text| glob(pattern, text));
    let holds = |it: &Condition| {
        let query = it.query.as_str();
        (it.path.is_empty() || glob(it.path.as_str(), asked.path))
            && (query.is_empty() || if plain { any(query, &pairs) } else { decoded(asked, query) })
            && (it.authority.is_empty()
                || hosts.as_ref().is_some_and(|hosts| any(it.authority.as_str(), hosts)))
            && (it.scheme.is_empty() || (it.scheme.as_str() == "wss") == asked.secure)
            && (it.protocol.is_empty()
                || offered.iter().any(|name| glob(it.protocol.as_str(), name)))
    };
    route.when.is_empty() || route.when.iter().any(holds)
}

/// What the route itself says of a query that has to be decoded.
fn decoded(asked: &RouteQuery<'_>, query: &str) -> bool {
    let condition = Condition { query: Pattern::new(query), ..Condition::default() };
    let alone = Route { when: vec![condition], ..Route::to(EndpointKind::Echo) };
    alone.takes(asked, &[]).is_some()
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))
        }),
    }
}
