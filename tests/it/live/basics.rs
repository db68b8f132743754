//! Echo, HTTP and the opening handshake.

use crate::net::*;
use polycast::config::EndpointKind;
use std::net::SocketAddr;

const MIB: usize = 1024 * 1024;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn echo_over_both_address_families() {
    let mut config = config();
    config.listeners = vec![listener("127.0.0.1:0"), listener("[::1]:0")];
    let Some(server) = start(config) else { return };
    for &address in server.addresses() {
        let mut client = Client::open(address, "/echo");
        for len in [0, 1, 125, 126, 65_535, 65_536, MIB] {
            let payload = pattern(len);
            client.send_frame(BINARY, &payload);
            let frame = Frame { fin: true, compressed: false, opcode: BINARY, payload };
            assert!(client.frame() == frame, "{len} bytes at {address}");
            let text = "é".repeat(len / 2);
            client.send_text(&text);
            assert!(client.text() == text, "{len} bytes at {address}");
        }
    }
}

#[test]
fn echo_message_of_16_mib_passes_and_one_byte_more_is_1009() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut client = Client::open(address, "/echo");
    let payload = pattern(16 * MIB);
    client.send_frame(BINARY, &payload);
    assert!(client.frame() == Frame { fin: true, compressed: false, opcode: BINARY, payload });

    let too_long = 16 * MIB as u64 + 1;
    client.send(&masked_header(true, BINARY, too_long));
    assert_eq!(client.close().0, 1009);
    client.end();

    let mut client = Client::open(address, "/echo");
    client.send(&masked(false, BINARY, &pattern(16 * MIB)));
    client.send(&masked_header(true, 0, 1));
    assert_eq!(client.close().0, 1009);
    client.end();
}

#[test]
fn websocket_answers_control_frames_between_fragments() {
    let Some(server) = start(config()) else { return };
    let mut client = Client::open(server.addresses()[0], "/echo");
    for (fin, opcode, payload) in [
        (false, TEXT, "one "),
        (true, PING, "a"),
        (false, 0, ""),
        (true, PONG, "unasked"),
        (false, 0, "two "),
        (true, PING, ""),
        (true, 0, "three"),
    ] {
        client.send(&masked(fin, opcode, payload.as_bytes()));
    }
    for (opcode, payload) in [(PONG, "a"), (PONG, ""), (TEXT, "one two three")] {
        let payload = payload.as_bytes().to_vec();
        assert_eq!(client.frame(), Frame { fin: true, compressed: false, opcode, payload });
    }
}

#[test]
fn s5_5_1_close_codes_are_echoed_and_bad_ones_are_1002() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    for (payload, answer) in [
        (&b""[..], 0),
        (&1000u16.to_be_bytes(), 1000),
        (&1001u16.to_be_bytes(), 1001),
        (b"\x03\xf3a reason", 1011),
        (&3000u16.to_be_bytes(), 3000),
        (&4999u16.to_be_bytes(), 4999),
        (b"\x03", 1002),
        (&1005u16.to_be_bytes(), 1002),
        (&999u16.to_be_bytes(), 1002),
        (&5000u16.to_be_bytes(), 1002),
        (b"\x03\xe8\xff", 1007),
    ] {
        let mut client = Client::open(address, "/echo");
        client.send_frame(CLOSE, payload);
        assert_eq!(client.close().0, answer, "{payload:?}");
        client.end();
    }
    wait_count(&server, "connections", 0);
}

#[test]
fn websocket_serves_an_independent_client() {
    let Some(server) = start(config()) else { return };
    let url = format!("ws://{}/echo", server.addresses()[0]);
    let (mut socket, response) = tungstenite::connect(url).unwrap();
    assert_eq!(response.status(), 101);
    for message in [
        tungstenite::Message::text("hello"),
        tungstenite::Message::binary(pattern(100_000)),
        tungstenite::Message::text(""),
    ] {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.close(None).unwrap();
    let end = loop {
        match socket.read() {
            Ok(message) => assert!(message.is_close(), "{message:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
}

#[test]
fn http_pipelined_requests_are_answered_in_order() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    // The channels have their homes on both cores, so some answers wait for the other core.
    let channels = ["a", "b", "c", "d"];
    let mut subscriber = Client::subscriber(address, channels[0]);
    channels[1..].iter().for_each(|channel| subscriber.subscribe(channel));
    let mut client = Client::connect(address);
    let mut requests = Vec::new();
    for number in 0..64 {
        let path = if number % 7 == 3 { "/apps/1/nothing" } else { EVENTS };
        let body = event_body(channels[number % 4], &number.to_string());
        requests.extend(DEMO.request("POST", path, &body));
    }
    client.send(&requests);
    for number in 0..64 {
        let status = if number % 7 == 3 { 404 } else { 200 };
        assert_eq!(client.response().status, status, "request {number}");
    }
    let mut got: Vec<String> =
        (0..64).filter(|number| number % 7 != 3).map(|_| subscriber.text()).collect();
    for (at, channel) in channels.iter().enumerate() {
        let of_channel = |number: &usize| number % 7 != 3 && number % 4 == at;
        let want: Vec<String> =
            (0..64).filter(of_channel).map(|number| event(channel, &number.to_string())).collect();
        let mark = format!(r#""channel":"{channel}""#);
        let found: Vec<String> = got.extract_if(.., |text| text.contains(&mark)).collect();
        assert_eq!(found, want);
    }
    assert_eq!(got, [""; 0]);
    client.publish("a", "the connection is kept");
}

#[test]
fn http_requests_with_expect_chunks_and_eof() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let mut subscriber = Client::subscriber(address, "c");
    let body = event_body("c", "x");
    let target = format!("{EVENTS}?{}", DEMO.sign("POST", EVENTS, &body, 0));
    let mut client = Client::connect(address);

    let len = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n");
    client.send(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes());
    let response = client.response();
    assert_eq!((response.status, response.head.as_str()), (100, "HTTP/1.1 100 Continue\r\n\r\n"));
    client.send(body.as_bytes());
    assert_eq!(client.response().status, 200);

    let (left, right) = body.split_at(10);
    client.send(
        format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
             a;x=y\r\n{left}\r\n{:x}\r\n{right}\r\n0\r\nTrailer: t\r\n\r\n",
            right.len()
        )
        .as_bytes(),
    );
    assert_eq!(client.response().status, 200);

    client.send(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
    let response = client.response();
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")));
    client.end();
    for _ in 0..3 {
        assert_eq!(subscriber.text(), event("c", "x"));
    }
}

/// Sends a request on a new connection and checks the status of the response.
fn check(address: SocketAddr, request: &str, status: u16) -> Response {
    let mut client = Client::connect(address);
    client.send(request.as_bytes());
    let method = request.split(' ').next().unwrap();
    let response = client.response_to(method);
    assert_eq!(response.status, status, "{request}\n{response:?}");
    response
}

#[test]
fn http_requests_without_a_target_get_the_reason() {
    let mut config = config();
    config.routes.retain(|route| route.endpoint != EndpointKind::Console);
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let plain = |method, path| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    check(address, &plain("GET", "/"), 404);
    check(address, &plain("GET", "/apps/9/events"), 404);
    check(address, &plain("HEAD", "/nothing"), 404);
    let response = check(address, &plain("GET", "/echo"), 426);
    assert_eq!(response.field("Upgrade"), Some("websocket"));
    let signed = format!("{EVENTS}?{}", DEMO.sign("GET", EVENTS, "", 0));
    let response = check(address, &plain("GET", &signed), 405);
    assert_eq!(response.field("Allow"), Some("POST"));
    let signed = format!("{EVENTS}?{}", DEMO.sign("HEAD", EVENTS, "", 0));
    check(address, &plain("HEAD", &signed), 405);

    let good = handshake("/echo", "");
    check(address, &good.replace("Version: 13", "Version: 8"), 426);
    check(address, &good.replace("GET", "POST"), 400);
    check(address, &good.replace("dGhl", "dGh"), 400);
    check(address, &good.replace("Connection: Upgrade\r\n", ""), 400);
    check(address, &good.replace("Host: localhost\r\n", ""), 400);
    check(address, "GET /\r\n\r\n", 400);
    check(address, "GET / HTTP/1.1\nHost: h\n\n", 400);
    check(address, "GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505);
    check(address, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n", 413);
    let long = "x".repeat(20_000);
    check(address, &plain("GET", &format!("/{long}")), 414);
    check(address, &format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431);
}

#[test]
fn websocket_first_frame_may_come_with_the_handshake() {
    let Some(server) = start(config()) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    let mut bytes = handshake("/echo", "").into_bytes();
    bytes.extend(masked(true, TEXT, b"first"));
    bytes.extend(masked(true, TEXT, b"second"));
    client.send(&bytes);
    assert_eq!(client.response().status, 101);
    assert_eq!(client.text(), "first");
    assert_eq!(client.text(), "second");
}

#[test]
fn websocket_handshake_and_frames_may_come_byte_by_byte() {
    let Some(server) = start(config()) else { return };
    let mut client = Client::connect(server.addresses()[0]);
    let mut bytes = handshake(APP_PATH, "").into_bytes();
    bytes.extend(masked(true, TEXT, subscribe("c").as_bytes()));
    bytes.extend(masked(true, PING, b"end"));
    for byte in bytes {
        client.send(&[byte]);
    }
    assert_eq!(client.response().status, 101);
    client.established();
    // The subscription may need the other core, but the ping does not.
    let mut got = [client.frame().payload, client.frame().payload];
    got.sort_by_key(Vec::len);
    assert_eq!(got, [b"end".to_vec(), subscribed("c").into_bytes()]);
}

#[test]
fn http_api_on_any_core_covers_all_cores() {
    let Some(server) = start(config()) else { return };
    let address = server.addresses()[0];
    let _open: Vec<Client> = (0..8).map(|_| Client::open(address, APP_PATH)).collect();
    wait_count(&server, "connections", 8);
    let response = check(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 200);
    let value = |series: &str| -> u64 {
        let found = response.body.lines().find_map(|line| line.strip_prefix(series));
        let found = found.unwrap_or_else(|| panic!("{series}\n{}", response.body));
        found.trim().parse().unwrap()
    };
    assert_eq!(value("polycast_connections "), 9);
    let of_core = |core| value(&format!("polycast_core_connections{{core=\"{core}\"}} "));
    assert_eq!(of_core(0) + of_core(1), 9);
    assert_eq!(value("polycast_app_connections{app=\"1\"} "), 8);
    assert_eq!(value("polycast_upgrades_total "), 8);
    check(address, "GET /ready HTTP/1.1\r\nHost: h\r\n\r\n", 200);
}
