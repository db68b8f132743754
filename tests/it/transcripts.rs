//! Conformance tests as data: every file below `tests/transcripts` is one conversation with a
//! shard.
//!
//! ```text
//! # a comment
//! ! enabled = false              TOML that continues the application's table of the configuration
//! ! demo                         the demo configuration instead
//! > OPEN /app/app-key            a WebSocket handshake; `> OPEN target | Field: value` has ` | `
//!                                before each further header field
//! > {"event":"pusher:ping"}      a text message; also TEXT, BINARY, PING, PONG with a payload
//! > CLOSE 1000 bye               a close frame
//! > BYTES 81 05                  bytes as they are, in hex
//! > STREAM /echo | Field: value  the head of a request whose body is streamed
//! > CHUNK {"a":1}\n              a chunk of that body; an empty one is the last
//! > LISTEN /app/app-key/events?channels=a | Field: value   a request for server-sent events
//! > SOCKET 1.2                   a socket id of the client's choice, for `$socket`
//! > RAW GET / HTTP/1.1\r\n\r\n   bytes as they are, in text
//! > BEARER token POST /path {...}  a request with a token
//! > BSON {"json":1}              a binary message with the same content; also MSGPACK
//! > INGEST token {...}           a back end's request to /Zenith/ingest
//! > SIGNED POST /path {...}      a signed request; SIGNED-601 is signed 601 seconds ago
//! > KEYED key POST /path {...}   a signed request with an X-Idempotency-Key
//! > EOF                          the client ends its side
//! > FROM 192.0.2.1               the client's address; it comes before its other lines
//! < 101                          an HTTP response; `< 200 {"json":1}` compares its body, too
//! < FIELD Allow: POST            a header line of the last response
//! < WITHOUT Allow                the last response has no such field
//! < {"event":"pusher:pong"}      a text message, compared as JSON if it is JSON
//! < TEXT a literal               also BINARY, PING, PONG; CLOSE code reason
//! < EXACT {"json":1}             a text message, compared byte by byte
//! < BSON {"json":1}              a binary message with the same content; also MSGPACK
//! < START 1000                   the first record of a stream of events, with its `retry`
//! < EVENT id data                a server-sent event with this id
//! < ID id                        an id without an event
//! < ALIVE                        a keep-alive record of a stream
//! < END 1009 reason              the end of a stream, with its reason unless the client ended it
//! < SHUT                         the server has ended its side
//! < GONE                         the connection is closed
//! = 120s                         the clock advances (s or ms)
//! = DRAIN                        the server starts to shut down
//! ```
//!
//! A letter before `>` or `<` names one of several connections. `*` in what the server sends
//! matches any run of characters. `$A.id` is the id of the last event that a stream of events has
//! received, and `$A.stream` the part of it before the colon. `$socket` is the connection's socket
//! id and `$A.socket` that of another, `$AUTH(channel)` and `$AUTH(channel|data)` sign a
//! subscription, `$QUERY(method,path,body)` is a signed query, `$JWT({...})` is a token with these
//! claims, signed with the secret of the peer module, and `$REPEAT(a,3)` is `aaa`.
//!
//! Every transcript runs whole, cut at every byte, byte by byte, and with consecutive lines of a
//! client joined. The server must send the same messages each time and no others, and no state may
//! be left in the shard at the end.

use crate::machine::{Machine, config};
use crate::peer::{self, Received};
use polycast::codec::Format;
use polycast::codec::json::Scratch;
use polycast::codec::value::{DecodeLimits, decode, decode_json, encode};
use polycast::config::Config;
use polycast::ws::Opcode;
use simd_json::OwnedValue;
use simd_json::prelude::*;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// How the bytes of a client are cut before the server receives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// All lines before an expected answer in one piece.
    Glued,
    /// Each line in one piece.
    Lines,
    /// Each line in two pieces.
    At(usize),
    Bytes,
}

/// The maximum number of bytes that all cuts of one transcript deliver. Below it, a line is cut at
/// every byte, above it at as many bytes as the limit allows.
const CUT_BYTES: usize = 700_000;

#[test]
fn transcripts_give_the_same_at_every_cut() {
    let only = std::env::var("TRANSCRIPT").unwrap_or_default();
    let files: Vec<PathBuf> =
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts"))
            .into_iter()
            .filter(|file| file.to_string_lossy().contains(&only))
            .collect();
    let mut failures = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a readable file");
        if let Err(failure) = run_all(&text) {
            failures.push(format!("{}:{failure}", file.display()));
        }
    }
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), files.len(), failures.join("\n"));
    assert!(!files.is_empty(), "there are transcripts");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of transcripts");
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn run_all(text: &str) -> Result<(), String> {
    let (longest, total) = run(text, Cut::Lines)?;
    run(text, Cut::Glued)?;
    run(text, Cut::Bytes)?;
    for at in (1..longest).step_by(longest * total / CUT_BYTES + 1) {
        run(text, Cut::At(at))?;
    }
    Ok(())
}

/// Runs one transcript. Returns the number of bytes of its longest line and of all lines.
fn run(text: &str, cut: Cut) -> Result<(usize, usize), String> {
    let more: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("! "))
        .map(|it| format!("{it}\n"))
        .collect();
    let mut stage = Stage {
        machine: Machine::new(match more.trim() {
            "demo" => Config::demo(),
            more => config(more),
        }),
        cut,
        names: HashMap::new(),
        held: Vec::new(),
        longest: 0,
        total: 0,
    };
    for (number, line) in text.lines().enumerate() {
        stage.line(line).map_err(|it| format!("{}: {cut:?}: {line:.200}\n    {it}", number + 1))?;
    }
    stage.flush();
    stage.nothing_more().map_err(|it| format!("end: {cut:?}: {it}"))?;
    stage.machine.end();
    Ok((stage.longest, stage.total))
}

struct Stage {
    machine: Machine,
    cut: Cut,
    names: HashMap<String, Actor>,
    /// The bytes of clients that are not delivered yet, if lines are joined.
    held: Vec<(usize, Vec<u8>)>,
    longest: usize,
    total: usize,
}

#[derive(Clone, Default)]
struct Actor {
    wire: usize,
    socket: String,
    head: String,
    /// The last id of an event, and its stream.
    id: String,
    stream: String,
}

impl Stage {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (name, sign, rest) = match line.find(['>', '<', '=', '#', '!']) {
            Some(at) if at <= 1 => (&line[..at], &line[at..at + 1], line[at + 1..].trim_start()),
            _ if line.trim().is_empty() => return Ok(()),
            _ => return Err("a line begins with > < = # or !".to_owned()),
        };
        match sign {
            ">" => {
                if self.cut != Cut::Glued && rest != "EOF" {
                    self.nothing_more()?;
                }
                self.says(name, rest)
            }
            "<" => {
                self.flush();
                self.expects(name, rest)
            }
            "=" => {
                self.flush();
                self.nothing_more()?;
                self.passes(rest)
            }
            _ => Ok(()),
        }
    }

    fn passes(&mut self, what: &str) -> Result<(), String> {
        if what == "DRAIN" {
            self.machine.shard.drain();
            return Ok(());
        }
        let (number, unit) = match what.strip_suffix("ms") {
            Some(number) => (number, 1),
            None => (what.trim_end_matches('s'), 1000),
        };
        let number: u64 = number.parse().map_err(|_| "not a time".to_owned())?;
        self.machine.wait(number * unit);
        Ok(())
    }

    // --- the client ---

    fn says(&mut self, name: &str, what: &str) -> Result<(), String> {
        if !self.names.contains_key(name) {
            let from =
                what.strip_prefix("FROM ").map(str::parse).unwrap_or(Ok(Ipv4Addr::LOCALHOST));
            let wire = self.machine.open_from(from.map_err(|_| "not an address".to_owned())?);
            self.names.insert(name.to_owned(), Actor { wire, ..Actor::default() });
        }
        let wire = self.names[name].wire;
        let what = self.expand(name, what)?;
        let (word, rest) = what.split_once(' ').unwrap_or((&what, ""));
        let bytes = match word {
            "FROM" => return Ok(()),
            "SOCKET" => {
                if let Some(actor) = self.names.get_mut(name) {
                    actor.socket = rest.to_owned();
                }
                return Ok(());
            }
            "EOF" => {
                let last = self.held.pop_if(|(at, _)| *at == wire);
                self.flush();
                self.machine.last_messages(wire, &last.map(|(_, bytes)| bytes).unwrap_or_default());
                return Ok(());
            }
            "OPEN" => {
                let mut parts = rest.split(" | ");
                let target = parts.next().unwrap_or("");
                peer::handshake(target, &parts.map(|it| format!("{it}\r\n")).collect::<String>())
            }
            "RAW" => {
                self.machine.wire(wire).reader.head_only = rest.starts_with("HEAD ");
                unescape(rest)
            }
            "BYTES" => unhex(rest)?,
            "STREAM" => {
                let mut parts = rest.split(" | ");
                let target = parts.next().unwrap_or("");
                let fields: String = parts.map(|field| format!("{field}\r\n")).collect();
                let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}");
                format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes()
            }
            "LISTEN" => {
                let mut parts = rest.split(" | ");
                let target = parts.next().unwrap_or("");
                let fields: String = parts.map(|field| format!("{field}\r\n")).collect();
                let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}");
                format!("{head}Accept: text/event-stream\r\n\r\n").into_bytes()
            }
            "CHUNK" => {
                let data = unescape(rest);
                let size = format!("{:X}\r\n", data.len());
                [size.as_bytes(), &data, b"\r\n"].concat()
            }
            "TEXT" => peer::text(rest),
            "BINARY" => peer::framed(Opcode::Binary, rest.as_bytes()),
            "BSON" => peer::framed(Opcode::Binary, &written(Format::Bson, rest)?),
            "MSGPACK" => peer::framed(Opcode::Binary, &written(Format::MsgPack, rest)?),
            "INGEST" => {
                let (token, body) = rest.split_once(' ').unwrap_or((rest, ""));
                peer::ingest(token, body.as_bytes())
            }
            "PING" => peer::framed(Opcode::Ping, rest.as_bytes()),
            "PONG" => peer::framed(Opcode::Pong, rest.as_bytes()),
            "CLOSE" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                let code = code.parse::<u16>().map(|code| code.to_be_bytes().to_vec());
                let payload = [code.unwrap_or_default(), reason.as_bytes().to_vec()].concat();
                peer::framed(Opcode::Close, &payload)
            }
            "BEARER" => bearer(rest),
            "KEYED" => {
                let (key, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                keyed(key, &self.signed("", rest)?)
            }
            word if word.starts_with("SIGNED") => self.signed(&word["SIGNED".len()..], rest)?,
            _ => peer::text(&what),
        };
        self.longest = self.longest.max(bytes.len());
        self.total += bytes.len();
        match self.held.last_mut() {
            Some((at, glued)) if *at == wire => glued.extend(bytes),
            _ => self.held.push((wire, bytes)),
        }
        if self.cut != Cut::Glued {
            self.flush();
        }
        Ok(())
    }

    fn signed(&self, offset: &str, rest: &str) -> Result<Vec<u8>, String> {
        let offset: i64 = if offset.is_empty() { Ok(0) } else { offset.parse() }
            .map_err(|_| "not an offset in seconds".to_owned())?;
        let mut words = rest.splitn(3, ' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let body = words.next().unwrap_or("").as_bytes();
        let unix_s = self.machine.now.unix_s.saturating_add_signed(offset);
        Ok(peer::signed(method, path, body, unix_s))
    }

    fn flush(&mut self) {
        for (wire, bytes) in std::mem::take(&mut self.held) {
            let piece = match self.cut {
                Cut::Glued | Cut::Lines => bytes.len(),
                Cut::Bytes => 1,
                Cut::At(at) if at < bytes.len() => {
                    self.machine.receive(wire, &bytes[..at]);
                    self.machine.receive(wire, &bytes[at..]);
                    continue;
                }
                Cut::At(_) => bytes.len(),
            };
            for piece in bytes.chunks(piece.max(1)) {
                self.machine.receive(wire, piece);
            }
        }
    }

    /// Replaces the `$` expressions of a line.
    fn expand(&self, name: &str, line: &str) -> Result<String, String> {
        let mut line = line.to_owned();
        while let Some((before, inside, after)) = call(&line, "$REPEAT(") {
            let (what, times) = inside.rsplit_once(',').ok_or("REPEAT(what,times)")?;
            let times = times.parse().map_err(|_| "REPEAT(what,times)".to_owned())?;
            line = format!("{before}{}{after}", what.repeat(times));
        }
        for (other, actor) in &self.names {
            if !other.is_empty() {
                line = line.replace(&format!("${other}.socket"), &actor.socket);
                line = line.replace(&format!("${other}.stream"), &actor.stream);
                line = line.replace(&format!("${other}.id"), &actor.id);
            }
        }
        let socket = self.names.get(name).map_or("", |actor| actor.socket.as_str());
        line = line.replace("$socket", socket);
        while let Some((before, inside, after)) = call(&line, "$AUTH(") {
            let (channel, data) = match inside.split_once('|') {
                Some((channel, data)) => (channel, Some(data)),
                None => (inside, None),
            };
            // Quotes of the data after a backslash are part of a JSON string.
            let data = data.map(|data| data.replace("\\\"", "\""));
            let auth = peer::auth(socket, channel, data.as_deref());
            line = format!("{before}{auth}{after}");
        }
        while let Some((before, inside, after)) = call(&line, "$JWT(") {
            line = format!("{before}{}{after}", peer::token(inside));
        }
        while let Some((before, inside, after)) = call(&line, "$QUERY(") {
            let mut parts = inside.splitn(3, ',');
            let mut part = || parts.next().unwrap_or("");
            let (method, path, body) = (part(), part(), part());
            let query = peer::signed_query(method, path, body.as_bytes(), self.machine.now.unix_s);
            line = format!("{before}{query}{after}");
        }
        Ok(line)
    }

    // --- the server ---

    fn expects(&mut self, name: &str, what: &str) -> Result<(), String> {
        let what = self.expand(name, what)?;
        let actor = self.names.get_mut(name).ok_or("no such connection")?;
        let wire = self.machine.wire(actor.wire);
        let (word, rest) = what.split_once(' ').unwrap_or((&what, ""));
        let ok = match word {
            "SHUT" => wire.shut,
            "GONE" => wire.closed,
            "FIELD" => actor.head.lines().any(|line| glob(rest, line)),
            "WITHOUT" => !actor.head.lines().any(|line| has_name(line, rest)),
            _ if wire.received.is_empty() => return Err("the server has said nothing".to_owned()),
            _ => {
                let received = wire.received.remove(0);
                if let Received::Answer { head, .. } = &received {
                    actor.head = head.clone();
                }
                if let Received::Event(id, _) | Received::Id(id) = &received {
                    actor.stream = id.split(':').next().unwrap_or_default().to_owned();
                    actor.id = id.clone();
                }
                if let Received::Text(text) = &received
                    && let Some(socket) = socket_of(text)
                {
                    actor.socket = socket;
                }
                if !says(&what, word, rest, &received) {
                    return Err(format!("the server has said {}", short(&received)));
                }
                true
            }
        };
        if ok { Ok(()) } else { Err(format!("it is not so\n{}", actor.head)) }
    }

    fn nothing_more(&mut self) -> Result<(), String> {
        for (name, actor) in &self.names {
            let wire = self.machine.wire(actor.wire);
            if !wire.received.is_empty() || wire.reader.left() > 0 {
                return Err(format!("{name} has heard besides: {}", short(&wire.received)));
            }
        }
        Ok(())
    }
}

/// The received messages, cut to the length that a failure message needs.
fn short(received: &impl std::fmt::Debug) -> String {
    format!("{received:?}").chars().take(600).collect()
}

/// Whether `received` is the message that a line expects.
fn says(line: &str, word: &str, rest: &str, received: &Received) -> bool {
    let same = |opcode: &str, payload: &[u8]| word == opcode && payload == rest.as_bytes();
    match received {
        Received::Answer { status, body, .. } => {
            word == status.to_string() && (rest.is_empty() || same_json(rest, body.trim_end()))
        }
        Received::Text(text) => {
            let want = if word == "TEXT" { rest } else { line };
            if word == "EXACT" { rest == text } else { same_json(want, text) }
        }
        Received::Binary(payload) if word == "BSON" => reads(Format::Bson, payload, rest),
        Received::Binary(payload) if word == "MSGPACK" => reads(Format::MsgPack, payload, rest),
        Received::Binary(payload) => same("BINARY", payload),
        Received::Ping(payload) => same("PING", payload),
        Received::Pong(payload) => same("PONG", payload),
        Received::Close(code, reason) => {
            let (want, text) = rest.split_once(' ').unwrap_or((rest, "*"));
            let code = code.map(|code| code.to_string()).unwrap_or_default();
            word == "CLOSE" && want == code && glob(text, reason)
        }
        Received::Event(id, data) => {
            let (want, text) = rest.split_once(' ').unwrap_or((rest, ""));
            word == "EVENT" && glob(want, id) && same_json(text, data)
        }
        Received::Id(id) => word == "ID" && glob(rest, id),
        Received::Start(retry) => word == "START" && rest == retry,
        Received::Alive => word == "ALIVE",
        Received::End(trailer) => {
            let replies = trailer.strip_prefix("Polycast-Close: ").unwrap_or(trailer);
            word == "END" && glob(rest, replies)
        }
        Received::Broken(_) => false,
    }
}

/// Encodes a JSON object in another format.
fn written(format: Format, json: &str) -> Result<Vec<u8>, String> {
    let limits = DecodeLimits::default();
    let value = decode_json(&mut json.as_bytes().to_vec(), &limits, &mut Scratch::default());
    let mut out = Vec::new();
    encode(format, &value.map_err(|it| it.to_string())?, &mut out).map_err(|it| it.to_string())?;
    Ok(out)
}

/// Whether a message has the content of the JSON text, in which `*` is any run of characters.
fn reads(format: Format, payload: &[u8], json: &str) -> bool {
    let limits = DecodeLimits::default();
    let value = decode(format, &mut payload.to_vec(), &limits, &mut Scratch::default());
    let mut out = Vec::new();
    let Ok(()) = value.and_then(|value| encode(Format::Json, &value, &mut out)) else {
        return false;
    };
    String::from_utf8(out).is_ok_and(|text| same_json(json, &text))
}

fn same_json(want: &str, got: &str) -> bool {
    let parse = |text: &str| simd_json::to_owned_value(&mut text.as_bytes().to_vec());
    match (parse(want), parse(got)) {
        (Ok(want), Ok(got)) => same_value(&want, &got),
        _ => glob(want, got),
    }
}

fn same_value(want: &OwnedValue, got: &OwnedValue) -> bool {
    if let (Some(want), Some(got)) = (want.as_str(), got.as_str()) {
        return glob(want, got);
    }
    if let (Some(want), Some(got)) = (want.as_object(), got.as_object()) {
        let same = |key| got.get(key).is_some_and(|value| same_value(&want[key], value));
        return want.len() == got.len() && want.keys().all(same);
    }
    if let (Some(want), Some(got)) = (want.as_array(), got.as_array()) {
        return want.len() == got.len() && want.iter().zip(got).all(|(a, b)| same_value(a, b));
    }
    want == got
}

/// Whether a header line is a field of this name.
fn has_name(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

/// Whether `text` matches `pattern`, in which `*` is any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))
        }),
    }
}

fn socket_of(text: &str) -> Option<String> {
    let rest = text.split_once(r#"{\"socket_id\":\""#)?.1;
    Some(rest.split_once('\\')?.0.to_owned())
}

/// The parts of `line` before, inside and after the parentheses of a call.
fn call<'l>(line: &'l str, name: &str) -> Option<(&'l str, &'l str, &'l str)> {
    let (before, rest) = line.split_once(name)?;
    let (inside, after) = rest.split_once(')')?;
    Some((before, inside, after))
}

/// The request with a token for the words `token method path body`.
/// The request with an idempotency key in its head.
fn keyed(key: &str, request: &[u8]) -> Vec<u8> {
    let line = request.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
    let field = format!("X-Idempotency-Key: {key}\r\n");
    [&request[..line], field.as_bytes(), &request[line..]].concat()
}

fn bearer(rest: &str) -> Vec<u8> {
    let mut words = rest.splitn(4, ' ');
    let mut word = || words.next().unwrap_or("");
    let (token, method, path, body) = (word(), word(), word(), word());
    let len = body.len();
    let field = if token == "-" { "" } else { &format!("Authorization: Bearer {token}\r\n") };
    format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{field}Content-Length: {len}\r\n\r\n{body}")
        .into_bytes()
}

fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let byte = |word| u8::from_str_radix(word, 16).map_err(|_| format!("{word} is not hex"));
    text.split_whitespace().map(byte).collect()
}
