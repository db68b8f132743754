//! A back end of the Zenith dialect that publishes changes of a few securities, and a client that
//! prints them.
//!
//! ```text
//! cargo run --release -- --config examples/zenith/polycast.toml     the server
//! cargo run --example zenith                                         the back end
//! cargo run --example zenith watch                                   a client; several may run
//! ```
//!
//! `ZENITH_ADDRESS` is the server's address, if it is not 127.0.0.1:6001. See `README.md`.

use polycast::crypto::encode_base64;
use polycast::ws::{FrameEvent, FrameLimits, MessageKind, Opcode, Reader, Role, frame};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The server's address, unless `ZENITH_ADDRESS` is set.
const ADDRESS: &str = "127.0.0.1:6001";
const CODES: [(&str, &str); 3] = [("ABC", "Abc Group"), ("DEF", "Def Mining"), ("GHI", "Ghi Bank")];
/// The time between two publishes.
const PAUSE: Duration = Duration::from_millis(250);

fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => tick(),
        Some("watch") => watch(),
        Some(other) => Err(io::Error::other(format!("`{other}`: expected `watch` or nothing"))),
    }
}

fn address() -> String {
    std::env::var("ZENITH_ADDRESS").unwrap_or_else(|_| ADDRESS.to_owned())
}

/// Publishes changes over HTTP, on one connection.
fn tick() -> io::Result<()> {
    let mut server = TcpStream::connect(address())?;
    let mut rng = fastrand::Rng::new();
    let mut cents = [1_050, 20_000, 315];
    let whole = CODES.iter().zip(cents).map(|((code, name), cents)| {
        let data = format!(
            r#"{{"Code":"{code}","Market":"XYZ","Name":"{name}","Last":{},"Volume":0}}"#,
            price(cents)
        );
        format!(r#"{{"Controller":"Market","Topic":"Security!{code}.XYZ","Data":{data}}}"#)
    });
    let feed = r#"{"Topic":"XYZ","Action":"Feed","Data":"Active"}"#.to_owned();
    post(&mut server, &whole.chain([feed]).collect::<Vec<_>>())?;
    println!("publishing; to see the messages: cargo run --example zenith watch");
    let mut volume = 0;
    for id in 1_u64.. {
        let at = rng.usize(..CODES.len());
        let code = CODES[at].0;
        cents[at] = (cents[at] + rng.i64(-5..=5)).max(1);
        volume += rng.i64(1..100);
        let last = price(cents[at]);
        let security = format!(
            r#"{{"Controller":"Market","Topic":"Security!{code}.XYZ","Data":{{"Last":{last},"Volume":{volume}}}}}"#
        );
        let trade = format!(
            r#"{{"Controller":"Market","Topic":"Trades!{code}.XYZ","Data":[{{"O":"A","Trade":{{"ID":{id},"Price":{last}}}}}]}}"#
        );
        post(&mut server, &[security, trade])?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn price(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Posts containers, and returns when the server has published them.
fn post(server: &mut TcpStream, containers: &[String]) -> io::Result<()> {
    let body = format!("[{}]", containers.join(","));
    write!(
        server,
        "POST /Zenith/ingest HTTP/1.1\r\nHost: {ADDRESS}\r\nContent-Length: {}\r\n\
         Authorization: Bearer ticker-secret\r\n\r\n{body}",
        body.len()
    )?;
    let answer = answer(server)?;
    match answer.starts_with("HTTP/1.1 200") {
        // The response body is `{}`.
        true => server.read_exact(&mut [0; 2]),
        false => Err(io::Error::other(answer)),
    }
}

/// Reads the head of a response.
fn answer(server: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        server.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Subscribes to every security and prints the received messages.
fn watch() -> io::Result<()> {
    let mut server = TcpStream::connect(address())?;
    let key = encode_base64(&std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..)));
    write!(
        server,
        "GET /Zenith?version=2.0 HTTP/1.1\r\nHost: {ADDRESS}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: ZenithJson\r\nAuthorization: Bearer demo\r\n\r\n"
    )?;
    let head = answer(&mut server)?;
    if !head.starts_with("HTTP/1.1 101") {
        return Err(io::Error::other(head));
    }
    for (controller, topic) in CODES
        .iter()
        .map(|(code, _)| ("Market", format!("Security!{code}.XYZ")))
        .chain([("Zenith", "Feeds".to_owned())])
    {
        let sub = format!(
            r#"{{"Controller":"{controller}","Topic":"{topic}","Action":"Sub","Confirm":true}}"#
        );
        send(&mut server, Opcode::Text, sub.as_bytes())?;
    }
    let (mut reader, mut bytes, limits) = (Reader::new(), Vec::new(), FrameLimits::default());
    loop {
        let (taken, event) = reader.next(Role::Client, &limits, &mut bytes);
        match event {
            FrameEvent::Need => {
                bytes.drain(..taken);
                let mut piece = [0; 4096];
                let n = server.read(&mut piece)?;
                if n == 0 {
                    return Ok(());
                }
                bytes.extend_from_slice(&piece[..n]);
                continue;
            }
            FrameEvent::Message { kind: MessageKind::Text, payload, .. } => {
                println!("{}", String::from_utf8_lossy(payload));
            }
            FrameEvent::Ping(payload) => {
                let payload = payload.to_vec();
                send(&mut server, Opcode::Pong, &payload)?;
            }
            FrameEvent::Close { code, reason } => {
                println!("closed: {code:?} {reason}");
                return Ok(());
            }
            FrameEvent::Message { .. } | FrameEvent::Pong(_) => {}
            FrameEvent::Violation(violation) => {
                return Err(io::Error::other(violation.to_string()));
            }
        }
        bytes.drain(..taken);
    }
}

fn send(server: &mut TcpStream, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let mut out = Vec::new();
    frame::push(&mut out, opcode, payload, Some(fastrand::u32(..).to_be_bytes()));
    server.write_all(&out)
}
