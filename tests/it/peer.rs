//! The client's end of a connection: builds the bytes that a client sends, and parses the server's
//! bytes into messages.

use polycast::crypto::{self, HmacKey};
use polycast::ws::deflate::Inflater;
use polycast::ws::record::RecordFraming;
use polycast::ws::{FrameEvent, FrameLimits, MessageKind, Opcode, Reader, Role, frame};

/// The id, key and secret of the application that every test uses.
pub(crate) const APP: (&str, &str, &str) = ("1", "app-key", "app-secret");

/// The same of a second application, whose requests begin with `/apps/2/`.
pub(crate) const SECOND: (&str, &str, &str) = ("2", "second-key", "second-secret");

/// The application whose id is in the path of a request.
fn app_of(path: &str) -> (&'static str, &'static str, &'static str) {
    if path.starts_with("/apps/2/") { SECOND } else { APP }
}

/// The request of a WebSocket handshake for `target`; `fields` is further header lines.
pub(crate) fn handshake(target: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// One complete masked frame.
pub(crate) fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, opcode, payload, Some([0x37, 0xfa, 0x21, 0x3d]));
    out
}

/// One text message.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    framed(Opcode::Text, payload.as_bytes())
}

/// A request of the HTTP API, signed at `unix_s`.
pub(crate) fn signed(method: &str, path: &str, body: &[u8], unix_s: u64) -> Vec<u8> {
    let query = signed_query(method, path, body, unix_s);
    let path = path.split('?').next().unwrap_or(path);
    let length = body.len();
    let head = format!(
        "{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The request with which a Zenith back end posts to the server.
pub(crate) fn ingest(token: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /Zenith/ingest HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// The query of a signed request. The query parameters of `path` are signed too.
pub(crate) fn signed_query(method: &str, path: &str, body: &[u8], unix_s: u64) -> String {
    let (_, key, secret) = app_of(path);
    let mut parameters = vec![
        format!("auth_key={key}"),
        format!("auth_timestamp={unix_s}"),
        "auth_version=1.0".to_owned(),
    ];
    if !body.is_empty() {
        parameters.push(format!("body_md5={}", hex::<16, 32>(&crypto::md5(body))));
    }
    let (path, more) = path.split_once('?').unwrap_or((path, ""));
    parameters.extend(more.split('&').filter(|it| !it.is_empty()).map(str::to_owned));
    parameters.sort();
    let query = parameters.join("&");
    let signature = sign(secret, &[method, "\n", path, "\n", &query]);
    query + "&auth_signature=" + &signature
}

/// The `auth` value of a subscription.
pub(crate) fn auth(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    let data = channel_data.map(|data| format!(":{data}")).unwrap_or_default();
    format!("{}:{}", APP.1, sign(APP.2, &[socket_id, ":", channel, &data]))
}

/// The same for an application with this key and secret.
pub(crate) fn auth_of(key: &str, secret: &str, socket_id: &str, channel: &str) -> String {
    format!("{key}:{}", sign(secret, &[socket_id, ":", channel]))
}

/// The secret that signs the tokens of [`token`].
pub(crate) const TOKEN_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A JSON Web Token with these claims.
pub(crate) fn token(claims: &str) -> String {
    let b64 = |bytes: &[u8]| {
        let text = crypto::encode_base64(bytes).replace('+', "-").replace('/', "_");
        text.trim_end_matches('=').to_owned()
    };
    let message = format!("{}.{}", b64(br#"{"alg":"HS256"}"#), b64(claims.as_bytes()));
    let key = HmacKey::new(TOKEN_SECRET.as_bytes());
    let signature = b64(&key.sign(&[message.as_bytes()]));
    format!("{message}.{signature}")
}

fn sign(secret: &str, parts: &[&str]) -> String {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    hex::<32, 64>(&HmacKey::new(secret.as_bytes()).sign(&parts))
}

fn hex<const BYTES: usize, const TEXT: usize>(bytes: &[u8; BYTES]) -> String {
    String::from_utf8_lossy(&crypto::hex::<BYTES, TEXT>(bytes)).into_owned()
}

/// What a client receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Answer {
        status: u16,
        head: String,
        body: String,
    },
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    /// A server-sent event with an id: the id and the data.
    Event(String, String),
    /// An id without an event.
    Id(String),
    /// The beginning of a stream of events, with the time in milliseconds before a reconnection.
    Start(String),
    /// A keep-alive record of a stream, which is not a message.
    Alive,
    /// The end of a stream, with its trailer field.
    End(String),
    /// The server's bytes violate the protocol, according to our frame reader.
    Broken(String),
}

/// Parses the server's bytes: HTTP responses up to a 101 and WebSocket frames after it, or the
/// records of a stream after a chunked response.
#[derive(Default)]
pub(crate) struct ClientReader {
    bytes: Vec<u8>,
    /// The framing of a stream's records.
    stream: Option<RecordFraming>,
    socket: Option<Reader>,
    /// The decompressor, once the server has agreed to compress.
    inflater: Option<Inflater>,
    /// Whether the next response is one to HEAD.
    pub(crate) head_only: bool,
    /// The lines of a server-sent event of which more chunks follow.
    event: Vec<u8>,
}

impl ClientReader {
    /// The number of bytes that are not yet a complete message.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Adds received bytes and returns the complete messages.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Vec<Received> {
        self.bytes.extend_from_slice(bytes);
        let mut received = Vec::new();
        while let Some(next) = self.next() {
            received.push(next);
        }
        received
    }

    fn next(&mut self) -> Option<Received> {
        if let Some(framing) = self.stream {
            return self.chunk(framing);
        }
        let Some(reader) = &mut self.socket else { return self.answer() };
        let mut bytes = std::mem::take(&mut self.bytes);
        let limits = FrameLimits { allow_rsv1: self.inflater.is_some(), ..FrameLimits::default() };
        let (taken, event) = reader.next(Role::Client, &limits, &mut bytes);
        let received = match event {
            FrameEvent::Need => None,
            FrameEvent::Message { kind, compressed: true, payload } => {
                Some(inflated(self.inflater.as_mut(), kind, payload))
            }
            FrameEvent::Message { kind: MessageKind::Text, payload, .. } => {
                Some(Received::Text(String::from_utf8_lossy(payload).into_owned()))
            }
            FrameEvent::Message { payload, .. } => Some(Received::Binary(payload.to_vec())),
            FrameEvent::Ping(payload) => Some(Received::Ping(payload.to_vec())),
            FrameEvent::Pong(payload) => Some(Received::Pong(payload.to_vec())),
            FrameEvent::Close { code, reason } => Some(Received::Close(code, reason.to_owned())),
            FrameEvent::Violation(violation) => Some(Received::Broken(violation.to_string())),
        };
        self.bytes = bytes.split_off(taken);
        received
    }

    fn answer(&mut self) -> Option<Received> {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
        let Some(status) = head.split(' ').nth(1).and_then(|status| status.parse().ok()) else {
            self.bytes.clear();
            return Some(Received::Broken(head));
        };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        let length = if self.head_only { 0 } else { length };
        if self.bytes.len() < end + length {
            return None;
        }
        let was_head_only = self.head_only;
        self.head_only &= status == 100;
        let body = String::from_utf8_lossy(&self.bytes[end..end + length]).into_owned();
        self.bytes.drain(..end + length);
        if head.contains("\r\nTransfer-Encoding: chunked\r\n") && !was_head_only {
            let has_type = |name| head.contains(&format!("\r\nContent-Type: {name}\r\n"));
            self.stream = Some(match () {
                () if has_type("application/octet-stream") => RecordFraming::Lengths,
                () if has_type("text/event-stream") => RecordFraming::Events,
                () => RecordFraming::Lines,
            });
        }
        if status == 101 {
            self.socket = Some(Reader::new());
            let keeps = !head.contains("server_no_context_takeover");
            let compresses = head.contains("Sec-WebSocket-Extensions: permessage-deflate");
            self.inflater = compresses.then(|| Inflater::new(keeps));
        }
        Some(Received::Answer { status, head, body })
    }
}

impl ClientReader {
    /// Parses one chunk, which the server writes for each record.
    fn chunk(&mut self, framing: RecordFraming) -> Option<Received> {
        let line = self.bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = String::from_utf8_lossy(&self.bytes[..line]).into_owned();
        let Ok(size) = usize::from_str_radix(&size, 16) else {
            self.bytes.clear();
            return Some(Received::Broken(size));
        };
        if size == 0 {
            let rest = String::from_utf8_lossy(&self.bytes[line + 2..]).into_owned();
            let trailer = match rest.strip_prefix("\r\n") {
                Some(_) => "",
                None => rest.split_once("\r\n\r\n")?.0,
            };
            self.bytes.drain(..line + 4 + if trailer.is_empty() { 0 } else { trailer.len() + 2 });
            return Some(Received::End(trailer.to_owned()));
        }
        let (start, end) = (line + 2, line + 2 + size);
        let record = self.bytes.get(start..end + 2)?[..size].to_vec();
        self.bytes.drain(..end + 2);
        Some(match framing {
            RecordFraming::Events => {
                self.event.extend_from_slice(&record);
                if !self.event.ends_with(b"\n\n") {
                    return self.next();
                }
                event(&std::mem::take(&mut self.event))
            }
            RecordFraming::Json | RecordFraming::Lines => match record.strip_suffix(b"\n") {
                Some(b"") => Received::Alive,
                Some(line) if !line.contains(&b'\n') => {
                    Received::Text(String::from_utf8_lossy(line).into_owned())
                }
                _ => Received::Broken(format!("{record:?}")),
            },
            RecordFraming::Lengths => match record.split_first_chunk::<4>() {
                Some((&[0xff, 0xff, 0xff, 0xff], b"")) => Received::Alive,
                Some((length, payload))
                    if u32::from_be_bytes(*length) as usize == payload.len() =>
                {
                    Received::Binary(payload.to_vec())
                }
                _ => Received::Broken(format!("{record:?}")),
            },
        })
    }
}

/// Interprets the lines of one server-sent event as WHATWG HTML section 9.2.6 says.
fn event(record: &[u8]) -> Received {
    let broken = || Received::Broken(String::from_utf8_lossy(record).into_owned());
    let Ok(text) = std::str::from_utf8(record) else { return broken() };
    let Some(lines) = text.strip_suffix("\n\n") else { return broken() };
    let (mut data, mut id, mut retry, mut comments) = (None::<String>, None, None, 0);
    for line in lines.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if !line.is_empty() => comments += 1,
            "data" if !value.contains('\r') => {
                let before = data.take().map(|data| data + "\n").unwrap_or_default();
                data = Some(before + value);
            }
            "id" => id = Some(value.to_owned()),
            "retry" => retry = Some(value.to_owned()),
            _ => return broken(),
        }
    }
    match (data, id, retry, comments) {
        (Some(data), None, None, 0) => Received::Text(data),
        (Some(data), Some(id), None, 0) => Received::Event(id, data),
        (None, Some(id), None, 0) => Received::Id(id),
        (None, _, Some(retry), 1) => Received::Start(retry),
        (None, None, None, 1) => Received::Alive,
        _ => broken(),
    }
}

fn inflated(inflater: Option<&mut Inflater>, kind: MessageKind, payload: &[u8]) -> Received {
    let mut message = Vec::new();
    let result = inflater.map(|it| it.inflate(payload, 1 << 24, &mut message));
    match (result, kind) {
        (Some(Ok(())), MessageKind::Binary) => Received::Binary(message),
        (Some(Ok(())), MessageKind::Text) => match String::from_utf8(message) {
            Ok(text) => Received::Text(text),
            Err(error) => Received::Broken(error.to_string()),
        },
        (result, _) => Received::Broken(format!("{result:?}")),
    }
}
