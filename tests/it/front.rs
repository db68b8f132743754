//! Who the client is behind a proxy: by the PROXY protocol and by header fields, from trusted
//! proxies and from strangers.

use crate::machine::{Machine, SWEEP_MS, config};
use crate::peer::{APP, Received, handshake, text};
use std::net::Ipv4Addr;

/// A trusted proxy, and a stranger.
const PROXY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 40001 80\r\n";
const CLIENT: &str = "192.0.2.7:40001";

/// A server with one listener behind proxies in 10.0.0.0/8.
fn behind(keys: &str) -> Machine {
    behind_with(keys, "")
}

fn behind_with(keys: &str, more: &str) -> Machine {
    let keys = keys.replace(", ", "\n");
    Machine::new(config(&format!(
        "[[listeners]]\naddress = '127.0.0.1:0'\ntrusted_proxies = ['10.0.0.0/8']\n{keys}\n\
         [[routes]]\nwhen = [{{ path = '/echo' }}]\nendpoint = 'echo'\n\
         [[routes]]\nwhen = [{{ path = '/safe', scheme = 'https' }}]\nendpoint = 'echo'\n\
         [[routes]]\nwhen = [{{ path = '/health' }}]\nendpoint = 'health'\n{more}"
    )))
}

/// A header of version 2 for the same client; `bits` are those of the TLV for TLS.
fn binary(command: u8, bits: Option<u8>) -> Vec<u8> {
    let tlv = bits.map_or(Vec::new(), |bits| vec![0x20, 0, 5, bits, 0, 0, 0, 0]);
    let length = [0, 12 + tlv.len() as u8];
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x41, 0, 80];
    let start = [0x20 | command, 0x11];
    [b"\r\n\r\n\0\r\nQUIT\n", &start[..], &length, &addresses, &tlv].concat()
}

fn statuses(machine: &mut Machine, at: usize) -> Vec<u16> {
    let status = |it: &Received| match it {
        Received::Answer { status, .. } => Some(*status),
        _ => None,
    };
    machine.wire(at).received.iter().filter_map(status).collect()
}

#[track_caller]
fn echoes(machine: &mut Machine, at: usize) {
    machine.receive(at, &text("hello"));
    let last = machine.wire(at).received.last().map(|it| format!("{it:?}")).unwrap_or_default();
    assert!(last.contains("hello"), "{last}");
}

fn get(machine: &mut Machine, at: usize, path: &str, fields: &str) {
    machine.receive(at, format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes());
}

fn client(machine: &mut Machine, at: usize) -> String {
    machine.client(at).map_or("closed".to_owned(), |address| address.to_string())
}

#[test]
fn proxy_header_names_the_client_however_it_is_cut() {
    for header in [LINE.to_vec(), binary(1, None)] {
        let whole = [header.clone(), handshake("/echo", "")].concat();
        for mode in ["accepted", "required"] {
            let mut machine = behind(&format!("proxy_protocol = '{mode}'"));
            for cut in 0..header.len() + 2 {
                let at = machine.open_from(PROXY);
                machine.receive(at, &whole[..cut]);
                machine.receive(at, &whole[cut..]);
                assert_eq!(client(&mut machine, at), CLIENT, "{cut}");
                echoes(&mut machine, at);
            }
            let at = machine.open_from(PROXY);
            whole.iter().for_each(|byte| machine.receive(at, &[*byte]));
            echoes(&mut machine, at);
            let headers = header.len() as u64 + 3;
            assert_eq!(machine.counters.proxy_headers.get(), headers);
            machine.end();
        }
    }
}

#[test]
fn proxy_header_is_optional_or_required() {
    let mut machine = behind("proxy_protocol = 'accepted'");
    for cut in 0..4 {
        let at = machine.open_from(PROXY);
        let request = b"PROPFIND / HTTP/1.1\r\nHost: h\r\n\r\n";
        machine.receive(at, &request[..cut]);
        machine.receive(at, &request[cut..]);
        assert_eq!(client(&mut machine, at), "10.0.0.1:40000");
        assert_eq!(statuses(&mut machine, at), [404]);
    }
    let mut machine = behind("proxy_protocol = 'required'");
    let at = machine.open_from(PROXY);
    get(&mut machine, at, "/health", "");
    assert!(machine.wire(at).closed && machine.wire(at).received.is_empty());
    assert_eq!(machine.counters.proxy_headers_missing.get(), 1);
    machine.end();
}

#[test]
fn proxy_header_of_a_stranger_is_refused() {
    for header in [LINE.to_vec(), binary(1, None), b"PROXY \n".to_vec()] {
        let mut machine = behind("proxy_protocol = 'accepted'");
        let at = machine.open_from(STRANGER);
        machine.receive(at, &header);
        assert!(machine.wire(at).closed && machine.wire(at).received.is_empty());
        assert_eq!(machine.counters.proxy_headers_untrusted.get(), 1);
        assert_eq!(machine.counters.proxy_headers.get(), 0);
        let at = machine.open_from(STRANGER);
        get(&mut machine, at, "/echo", "");
        assert_eq!(statuses(&mut machine, at), [426], "without a header it is served");
        machine.end();
    }
    let mut machine = behind("proxy_protocol = 'required'");
    let at = machine.open_from(STRANGER);
    assert!(machine.wire(at).closed, "at once");
    assert_eq!(machine.counters.proxy_headers_untrusted.get(), 1);
    // Without the protocol a header is no request.
    let mut machine = behind("forwarded = 'x-forwarded'");
    let at = machine.open_from(PROXY);
    machine.receive(at, &[LINE, b"\r\n"].concat());
    assert_eq!(statuses(&mut machine, at), [400]);
    assert_eq!(client(&mut machine, at), "10.0.0.1:40000");
    machine.end();
}

#[test]
fn proxy_header_that_is_malformed_or_torn_is_refused() {
    let mut machine = behind("proxy_protocol = 'required'");
    let long = [&binary(1, None)[..14], &[0xff, 0xff]].concat();
    for header in [&b"PROXY TCP4 1.2.3 10.0.0.1 1 2\r\n"[..], &long, &[b'A'; 200]] {
        let at = machine.open_from(PROXY);
        machine.receive(at, header);
        assert!(machine.wire(at).closed, "{}", header.escape_ascii());
    }
    let counters = machine.counters.clone();
    assert_eq!(counters.proxy_headers_malformed.get(), 2);
    assert_eq!(counters.proxy_headers_missing.get(), 1);
    let at = machine.open_from(PROXY);
    machine.receive(at, &LINE[..20]);
    machine.eof(at);
    assert!(machine.wire(at).closed);
    assert_eq!(counters.proxy_headers_torn.get(), 1);
    // A balancer's check that only connects is no torn header.
    let at = machine.open_from(PROXY);
    machine.eof(at);
    assert_eq!(counters.proxy_headers_torn.get(), 1);
    machine.end();
}

#[test]
fn proxy_header_must_arrive_within_the_time_for_a_head() {
    let mut machine = behind_with("proxy_protocol = 'required'", "[timeouts]\nhead_ms = 1000\n");
    let (at, silent) = (machine.open_from(PROXY), machine.open_from(PROXY));
    machine.receive(at, &LINE[..1]);
    machine.wait(1000 - SWEEP_MS);
    machine.receive(at, &LINE[1..20]);
    assert!(!machine.wire(at).closed);
    machine.wait(2 * SWEEP_MS);
    assert!(machine.wire(at).closed && machine.wire(silent).closed);
    assert_eq!(machine.counters.timed_out.get(), 2);
    assert_eq!(machine.counters.proxy_headers_torn.get(), 1);
    // The header does not extend the time for the request after it.
    let at = machine.open_from(PROXY);
    machine.wait(1000 - SWEEP_MS);
    machine.receive(at, LINE);
    machine.wait(2 * SWEEP_MS);
    assert!(machine.wire(at).shut || machine.wire(at).closed);
    machine.end();
}

#[test]
fn proxy_header_of_a_health_check_leaves_the_address() {
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    for header in [binary(0, None), unknown] {
        let mut machine = behind("proxy_protocol = 'required'");
        let at = machine.open_from(PROXY);
        machine.receive(at, &header);
        get(&mut machine, at, "/health", "");
        assert_eq!(client(&mut machine, at), "10.0.0.1:40000");
        assert_eq!(statuses(&mut machine, at), [200]);
        machine.end();
    }
}

#[test]
fn proxy_header_says_whether_the_client_uses_tls() {
    let mut machine = behind("proxy_protocol = 'required'");
    for (bits, status) in [(None, 404), (Some(0), 404), (Some(1), 101), (Some(7), 101)] {
        let at = machine.open_from(PROXY);
        machine.receive(at, &[binary(1, bits), handshake("/safe", "")].concat());
        assert_eq!(statuses(&mut machine, at), [status], "{bits:?}");
    }
    machine.end();
}

#[test]
fn connections_per_address_are_those_of_the_client() {
    let limit = "[limits]\nconnections_per_address = 2\n";
    let mut machine = behind_with("proxy_protocol = 'accepted'", limit);
    let open = |machine: &mut Machine, host: u8| {
        let at = machine.open_from(PROXY);
        let line = format!("PROXY TCP4 192.0.2.{host} 10.0.0.1 1 80\r\n").into_bytes();
        machine.receive(at, &[line, handshake("/echo", "")].concat());
        at
    };
    let first = [1, 1, 2, 2].map(|host| open(&mut machine, host));
    for at in first {
        echoes(&mut machine, at);
    }
    let refused = open(&mut machine, 1);
    assert!(machine.wire(refused).closed);
    assert_eq!(machine.counters.refused_address.get(), 1);
    machine.hang_up(first[0]);
    let again = open(&mut machine, 1);
    echoes(&mut machine, again);
    // The proxy itself is not limited, a stranger is, when it connects.
    for _ in 0..5 {
        let at = machine.open_from(PROXY);
        get(&mut machine, at, "/echo", "");
        assert_eq!(statuses(&mut machine, at), [426]);
    }
    let strangers = [(); 3].map(|()| machine.open_from(STRANGER));
    let closed = strangers.map(|at| machine.wire(at).closed);
    assert_eq!(closed, [false, false, true]);
    machine.end();
}

#[test]
fn connections_per_address_are_those_of_the_forwarded_client() {
    let more = "[[routes]]\nendpoint = 'apps'\n[limits]\nconnections_per_address = 2\n";
    let mut machine = behind_with("forwarded = 'x-forwarded'", more);
    let open = |machine: &mut Machine, from: Ipv4Addr, host: u8| {
        let at = machine.open_from(from);
        let field = format!("X-Forwarded-For: 192.0.2.{host}\r\n");
        machine.receive(at, &handshake("/echo", &field));
        at
    };
    let first = [1, 1, 2, 2].map(|host| open(&mut machine, PROXY, host));
    for at in first {
        echoes(&mut machine, at);
    }
    let refused = open(&mut machine, PROXY, 1);
    assert_eq!(statuses(&mut machine, refused), [429]);
    assert_eq!(machine.counters.refused_address.get(), 1);
    let stream = machine.open_from(PROXY);
    let events = format!("/app/{}/events?channels=news", APP.1);
    get(&mut machine, stream, &events, "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(statuses(&mut machine, stream), [429]);
    assert_eq!(machine.counters.refused_address.get(), 2);
    machine.hang_up(first[0]);
    let again = open(&mut machine, PROXY, 1);
    echoes(&mut machine, again);
    // A stranger is limited by its own address, whatever it claims.
    let strangers = [3, 4, 5].map(|host| open(&mut machine, STRANGER, host));
    assert_eq!(strangers.map(|at| machine.wire(at).closed), [false, false, true]);
    assert_eq!(client(&mut machine, strangers[0]), "203.0.113.9:40000");
    machine.end();
    // Nothing stays counted when all are closed.
    for _ in 0..2 {
        let at = open(&mut machine, PROXY, 1);
        echoes(&mut machine, at);
    }
}

#[test]
fn forwarded_fields_name_the_client_of_each_request() {
    let mut machine = behind("forwarded = 'x-forwarded'");
    let at = machine.open_from(PROXY);
    for (fields, expected) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1:0"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.2\r\n", "192.0.2.2:0"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.3\r\n", "192.0.2.3:0"),
        ("", "10.0.0.1:40000"),
        ("Forwarded: for=6.6.6.6\r\n", "10.0.0.1:40000"),
    ] {
        get(&mut machine, at, "/echo", fields);
        assert_eq!(client(&mut machine, at), expected, "{fields}");
    }
    machine.receive(at, &handshake("/echo", "X-Forwarded-For: 192.0.2.4\r\n"));
    echoes(&mut machine, at);
    assert_eq!(client(&mut machine, at), "192.0.2.4:0", "it stays the client of the WebSocket");
    let mut machine = behind("forwarded = 'forwarded', forwarded_hops = 2");
    let at = machine.open_from(PROXY);
    let field = "Forwarded: for=6.6.6.6, for=\"[2001:db8::1]:9\", for=10.9.9.9\r\n";
    get(&mut machine, at, "/echo", field);
    assert_eq!(client(&mut machine, at), "[2001:db8::1]:9");
    machine.end();
}

#[test]
fn forwarded_fields_of_a_stranger_change_nothing() {
    for (kind, fields) in [
        ("x-forwarded", "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"),
        ("x-forwarded", "X-Forwarded-For: garbage\r\n"),
        ("forwarded", "Forwarded: for=10.0.0.1;proto=https\r\n"),
    ] {
        let mut machine = behind(&format!("forwarded = '{kind}'"));
        let at = machine.open_from(STRANGER);
        machine.receive(at, &handshake("/safe", fields));
        assert_eq!(statuses(&mut machine, at), [404], "only https may have it");
        assert_eq!(machine.counters.forwarded_untrusted.get(), 1);
        let at = machine.open_from(STRANGER);
        machine.receive(at, &handshake("/echo", fields));
        assert_eq!(client(&mut machine, at), "203.0.113.9:40000");
        machine.end();
    }
    // Behind a PROXY header, the client in it is the one who would have to be trusted.
    let mut machine = behind("forwarded = 'x-forwarded', proxy_protocol = 'required'");
    let at = machine.open_from(PROXY);
    let fields = "X-Forwarded-For: 6.6.6.6\r\n";
    machine.receive(at, &[LINE.to_vec(), handshake("/echo", fields)].concat());
    assert_eq!(client(&mut machine, at), CLIENT);
    let at = machine.open_from(PROXY);
    let line = b"PROXY TCP4 10.0.0.2 10.0.0.1 1 80\r\n".to_vec();
    machine.receive(at, &[line, handshake("/echo", fields)].concat());
    assert_eq!(client(&mut machine, at), "6.6.6.6:0", "a second proxy behind the first");
    machine.end();
}

#[test]
fn forwarded_field_of_a_proxy_that_cannot_be_read_is_answered_400() {
    let mut machine = behind("forwarded = 'x-forwarded'");
    for request in [
        handshake("/echo", "X-Forwarded-For: 192.0.2.1, proxy\r\n"),
        handshake("/echo", "X-Forwarded-Proto: gopher\r\n"),
        b"POST /apps/1/events HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\
          X-Forwarded-For: ?\r\n\r\n"
            .to_vec(),
    ] {
        let at = machine.open_from(PROXY);
        machine.receive(at, &request);
        assert_eq!(statuses(&mut machine, at), [400]);
        assert!(machine.wire(at).shut);
    }
    assert_eq!(machine.counters.forwarded_malformed.get(), 3);
    machine.end();
}

#[test]
fn forwarded_scheme_is_the_client_s() {
    let mut machine = behind("forwarded = 'x-forwarded'");
    for (fields, status) in [
        ("X-Forwarded-Proto: https\r\n", 101),
        ("X-Forwarded-Proto: http\r\n", 404),
        ("X-Forwarded-Proto: https, http\r\n", 404),
        ("", 404),
    ] {
        let at = machine.open_from(PROXY);
        machine.receive(at, &handshake("/safe", fields));
        assert_eq!(statuses(&mut machine, at), [status], "{fields}");
    }
    machine.end();
    let tls = "[[apps]]\nid = '2'\nkey = 'k'\nsecret = 's'\nrequire_tls = true\n";
    let keys = "forwarded = 'x-forwarded'";
    let mut machine = Machine::new(config(&format!(
        "{tls}[[listeners]]\naddress = '127.0.0.1:0'\ntrusted_proxies = ['10.0.0.0/8']\n{keys}\n"
    )));
    for (from, scheme, expected) in [
        (PROXY, "https", "connection_established"),
        (PROXY, "http", "4000"),
        (STRANGER, "https", "4000"),
    ] {
        let at = machine.open_from(from);
        let field = format!("X-Forwarded-Proto: {scheme}\r\n");
        machine.receive(at, &handshake("/app/k?protocol=7", &field));
        let received = format!("{:?}", machine.wire(at).received);
        assert!(received.contains(expected), "{from} {scheme}: {received}");
    }
}
