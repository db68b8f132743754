//! Guards that require a client certificate.

use super::*;
use crate::certs::Leaf;
use polycast::crypto::{hex, sha256};
use rcgen::{DnType, date_time_ymd};
use rustls::HandshakeKind;

/// The guard `listed` accepts some certificates, `any` all that the authority has signed, and `g`
/// tokens.
fn guarded(name: &str, authority: &Authority, fingerprint: &str) -> Machine {
    let more = ", mutual = 'requested', client_ca = 'FOLDER/ca.pem'";
    let secret = crate::peer::TOKEN_SECRET;
    let rest = format!(
        "[[guards]]\nname = 'listed'\ntype = 'certificate'\n[guards.certificate]\n\
         fingerprints = ['{fingerprint}']\ncommon_names = ['ada', 'device-*']\n\
         alternative_names = ['dns:*.devices.example']\n\
         [[guards]]\nname = 'any'\ntype = 'certificate'\n\
         [[guards]]\nname = 'g'\nissuer = 'i'\nkeys = [{{ secret = '{secret}' }}]\n"
    );
    let route = |path: &str, guarded: &str, endpoint: &str| {
        format!(
            "[[routes]]\nwhen = [{{ path = '{path}' }}]\nguarded = {{ {guarded} }}\n\
             endpoint = '{endpoint}'\n"
        )
    };
    let routes = [
        route("/listed", "listed = []", "echo"),
        route("/any", "any = []", "echo"),
        route("/sensors", "any = ['sensors']", "echo"),
        route("/both-roles", "any = ['sensors', 'indoors']", "echo"),
        route("/falls", "listed = []", "reject"),
        route("/falls", "", "echo"),
        route("/both", "any = [], g = []", "echo"),
        route("/either", "g = []", "echo"),
        route("/either", "listed = []", "echo"),
        route("/live", "any = []", "health"),
    ];
    Machine::new(config(name, authority, more, &(rest + &routes.concat())))
}

/// The status and the text of the response to a request on a new connection.
fn answer(machine: &mut Machine, client: &Arc<ClientConfig>, request: &[u8]) -> (u16, String) {
    let mut peer = Peer::new(machine, client);
    peer.say(machine, request);
    match &peer.received[..] {
        [Received::Answer { status, head, body }, ..] => (*status, format!("{head}{body}")),
        other => panic!("{other:?}"),
    }
}

fn status(machine: &mut Machine, client: &Arc<ClientConfig>, path: &str) -> u16 {
    answer(machine, client, &handshake(path, "")).0
}

fn shows(authority: &Authority, leaf: &Leaf) -> Arc<ClientConfig> {
    Arc::new(authority.client(Some(leaf)))
}

/// The fingerprint in the form of `openssl x509 -fingerprint -sha256`.
fn fingerprint(leaf: &Leaf) -> String {
    let digits = hex::<32, 64>(&sha256(&[leaf.cert.der()])).to_ascii_uppercase();
    let pairs = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned());
    pairs.collect::<Vec<_>>().join(":")
}

#[test]
fn certificate_guard_accepts_listed_certificates() {
    let authority = Authority::new();
    let pinned = authority.leaf(&["somebody"]);
    let mut it = guarded("guard-listed", &authority, &fingerprint(&pinned));
    let lets_in = |it: &mut Machine, leaf: &Leaf| {
        let client = shows(&authority, leaf);
        let statuses = ["/listed", "/falls", "/any"].map(|path| status(it, &client, path));
        match statuses {
            [101, 403, 101] => true,
            [403, 101, 101] => false,
            _ => panic!("{statuses:?}"),
        }
    };
    assert!(lets_in(&mut it, &pinned));
    assert!(!lets_in(&mut it, &authority.leaf(&["somebody"])), "another of the same name");
    for (name, alternative, listed) in [
        ("ada", "a.example", true),
        ("Ada", "a.example", false),
        ("adam", "a.example", false),
        ("device-7", "a.example", true),
        ("eve", "a.devices.example", true),
        ("eve", "A.Devices.Example", true),
        ("eve", "devices.example", false),
        // A name of one kind does not match a name of another kind.
        ("a.devices.example", "a.example", false),
        ("dns:a.devices.example", "a.example", false),
        ("eve", "ada", false),
        ("eve", "device-7", false),
        ("", "a.devices.example", true),
    ] {
        let leaf = authority.leaf_with(&[alternative], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
        });
        assert_eq!(lets_in(&mut it, &leaf), listed, "{name} {alternative}");
    }
    assert_eq!(it.counters.guard_no_certificate.get(), 0);
    it.end();
}

#[test]
fn certificate_guard_refuses_missing_and_other_certificates() {
    let authority = Authority::new();
    let mut it = guarded("guard-statuses", &authority, &"0".repeat(64));
    let bare = Arc::new(authority.client(None));
    let eve = shows(&authority, &authority.leaf(&["eve"]));
    let (code, text) = answer(&mut it, &bare, &handshake("/listed", ""));
    assert_eq!(code, 401);
    assert!(text.contains("WWW-Authenticate: ClientCertificate\r\n"), "{text}");
    assert!(text.ends_with("a client certificate is needed\n"), "{text}");
    let (code, text) = answer(&mut it, &eve, &handshake("/listed", ""));
    assert_eq!(code, 403);
    assert!(text.ends_with("the client certificate is not accepted\n"), "{text}");
    let counters = it.counters.clone();
    let counted = || (counters.guard_no_certificate.get(), counters.guard_bad_certificate.get());
    assert_eq!(counted(), (1, 1));
    // Plain HTTP routes are guarded, too. A client that another route accepts is not refused.
    let page = b"GET /live HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!([answer(&mut it, &bare, page).0, answer(&mut it, &eve, page).0], [401, 200]);
    assert_eq!([status(&mut it, &bare, "/falls"), status(&mut it, &eve, "/falls")], [101, 101]);
    assert_eq!(counted(), (2, 1));
    // Roles are the organisational units of the certificate, and are compared as a whole.
    for (unit, want) in [("sensors", 101), ("Sensors", 404), ("sensors indoors", 404)] {
        let leaf = authority.leaf_with(&["eve"], |params| {
            params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        });
        let client = shows(&authority, &leaf);
        assert_eq!(status(&mut it, &client, "/sensors"), want, "{unit}");
        assert_eq!(status(&mut it, &client, "/both-roles"), 404, "{unit}");
    }
    assert_eq!(status(&mut it, &eve, "/sensors"), 404);
    // Without TLS there is no client certificate, whatever the header fields say.
    let at = it.open();
    it.receive(at, &handshake("/any", "X-Client-Cert: ada\r\nX-SSL-Client-S-DN: CN=ada\r\n"));
    assert!(matches!(it.wire(at).received[..], [Received::Answer { status: 401, .. }]));
    it.end();
}

#[test]
fn certificate_guard_together_with_a_token() {
    let authority = Authority::new();
    let mut it = guarded("guard-both", &authority, &"0".repeat(64));
    let bare = Arc::new(authority.client(None));
    let ada = shows(&authority, &authority.leaf(&["ada"]));
    let token = crate::peer::token(r#"{"iss":"i","sub":"ada"}"#);
    let bearer = |path: &str| handshake(path, &format!("Authorization: Bearer {token}\r\n"));
    for (client, with_token, want, challenge) in [
        (&ada, true, 101, ""),
        (&bare, true, 401, "WWW-Authenticate: ClientCertificate\r\n"),
        (&ada, false, 401, "WWW-Authenticate: Bearer\r\n"),
    ] {
        let request = if with_token { bearer("/both") } else { handshake("/both", "") };
        let (code, text) = answer(&mut it, client, &request);
        assert_eq!(code, want);
        assert!(text.contains(challenge), "{text}");
    }
    // The routes are tried in order. A client with neither a token nor a certificate gets the
    // challenge for a token.
    assert_eq!(answer(&mut it, &bare, &bearer("/either")).0, 101);
    assert_eq!(status(&mut it, &ada, "/either"), 101);
    let (code, text) = answer(&mut it, &bare, &handshake("/either", ""));
    assert!(code == 401 && text.contains("WWW-Authenticate: Bearer\r\n"), "{text}");
    // A certificate does not renew a token.
    let post = b"POST /both HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\
        Content-Type: application/x-challenge-response\r\n\r\n";
    assert_eq!([answer(&mut it, &ada, post).0, answer(&mut it, &bare, post).0], [404, 401]);
    it.end();
}

#[test]
fn certificate_guard_checks_dates_at_each_request() {
    let authority = Authority::new();
    let mut it = guarded("guard-dates", &authority, &"0".repeat(64));
    // The certificate is valid by the clock of TLS, but not before tomorrow by the simulated clock
    // of requests.
    let leaf = authority.leaf_with(&["ada"], |params| {
        params.not_before = date_time_ymd(2025, 10, 10);
    });
    let client = shows(&authority, &leaf);
    assert_eq!(status(&mut it, &client, "/any"), 403);
    it.now.unix_s += 86_400;
    assert_eq!(status(&mut it, &client, "/any"), 101);
    it.end();
}

#[test]
fn certificate_guard_accepts_the_client_of_a_resumed_session() {
    let authority = Authority::new();
    let mut it = guarded("guard-resumed", &authority, &"0".repeat(64));
    let ada = shows(&authority, &authority.leaf(&["ada"]));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut peer = Peer::new(&mut it, &ada);
        peer.say(&mut it, &handshake("/listed", ""));
        assert!(
            matches!(peer.received[..], [Received::Answer { status: 101, .. }]),
            "{:?}",
            peer.received
        );
        assert_eq!(peer.tls.handshake_kind(), Some(kind));
    }
    it.end();
}

#[test]
fn certificate_guard_gives_the_endpoint_its_client() {
    let authority = Authority::new();
    let more = ", mutual = 'requested', client_ca = 'FOLDER/ca.pem'";
    let rest = "[[guards]]\nname = 'any'\ntype = 'certificate'\n\
        [[routes]]\nguarded = { any = [] }\nendpoint = 'zenith'\n\
        [zenith]\ntokens = [{ token = 'T', user = 'u' }]\n\
        topics = [{ controller = 'Market', kind = 'Tick' }]\n";
    let mut it = Machine::new(config("guard-zenith", &authority, more, rest));
    let ask = r#"{"Controller":"Auth","Topic":"QueryIdentify","TransactionID":1}"#;
    // This guard accepts no tokens.
    let bring = |token: &str| {
        let data = format!(r#"{{"Provider":"Bearer","AccessToken":"{token}"}}"#);
        format!(r#"{{"Controller":"Auth","Topic":"AuthToken","TransactionID":2,"Data":{data}}}"#)
    };
    for (name, user) in [("ada", "ada"), ("", "dns:a.example")] {
        let leaf = authority.leaf_with(&["a.example", "b.example"], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.distinguished_name.push(DnType::OrganizationalUnitName, "sensors");
        });
        let mut peer = Peer::new(&mut it, &shows(&authority, &leaf));
        peer.say(&mut it, &handshake("/Zenith", ""));
        peer.say(&mut it, &text(ask));
        peer.say(&mut it, &text(&bring(&crate::peer::token(r#"{"sub":"eve"}"#))));
        let [replies, refused] = peer.texts()[..] else { panic!("{:?}", peer.received) };
        assert!(replies.contains(&format!(r#""UserID":"{user}""#)), "{replies}");
        assert!(replies.contains(r#""Scope":["sensors"]"#), "{replies}");
        assert!(refused.contains(r#""Result":"Rejected""#), "{refused}");
    }
    it.end();
}
