//! Handshakes, whole and mangled: accepted exactly if a naive reading of RFC 6455 section 4.2.1
//! finds nothing wrong with the bytes.

use super::Script;
use polycast::http::{HeadLimits, Reader, RequestEvent};
use polycast::session::upgrade::{UpgradeRefusal, accept, check};

const FIELDS: [&str; 6] = [
    "Host: h",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: chat, superchat",
];

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let stream = match shape % 3 {
        0 => rest.to_vec(),
        1 => [b"GET / HTTP/1.1\r\n", FIELDS.join("\r\n").as_bytes(), b"\r\n", rest].concat(),
        _ => mangled(&mut Script(rest)),
    };
    let mut bytes = stream.clone();
    let mut reader = Reader::new();
    let (_, event) = reader.next(&HeadLimits::default(), &mut bytes);
    let RequestEvent::Request(request) = event else { return };
    let start = stream.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
    let head = &stream[start..];
    let end = head.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of a head");
    let sound = is_handshake(&head[..end]) && request.body.is_empty();
    match check(&request) {
        Ok(upgrade) => {
            assert!(sound, "{:?}", String::from_utf8_lossy(&stream));
            let first = upgrade.protocols().next();
            let mut answer = Vec::new();
            accept(&mut answer, &upgrade, first, Some("permessage-deflate"));
            let answer = String::from_utf8(answer).expect("text");
            let lines: Vec<&str> = answer.split("\r\n").collect();
            // Whatever the client has sent, none of its lines is in the answer.
            assert_eq!(lines.len(), 7 + usize::from(first.is_some()), "{answer}");
            assert!(lines[0].starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\n"));
            assert_eq!(upgrade.accept_key().len(), 28);
            upgrade.extensions().for_each(drop);
            _ = upgrade.origin();
        }
        Err(refusal) => {
            assert!(!sound, "{refusal}: {:?}", String::from_utf8_lossy(&stream));
            let mut answer = Vec::new();
            refusal.respond(&mut answer);
            let answer = String::from_utf8(answer).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {} ", refusal.status())));
            let newer = answer.contains("\r\nSec-WebSocket-Version: 13\r\n");
            assert_eq!(refusal == UpgradeRefusal::SocketVersion, newer);
        }
    }
}

/// The lines of a handshake after operations on them.
fn mangled(script: &mut Script<'_>) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = vec![b"GET / HTTP/1.1".to_vec()];
    lines.extend(FIELDS.map(|field| field.as_bytes().to_vec()));
    while let Some(op) = script.byte() {
        let count = lines.len();
        let at = usize::from(op) % count;
        let len = script.byte().map_or(0, |len| usize::from(len) % 32);
        let line = &mut lines[at];
        let colon = line.iter().position(|it| *it == b':').map_or(0, |at| at + 1);
        match op >> 5 {
            0 => line.make_ascii_uppercase(),
            1 => line.truncate(colon),
            2 => line.extend_from_slice(script.take(len)),
            3 => {
                line.truncate(colon);
                line.extend_from_slice(script.take(len));
            }
            4 => {
                let more = [&b", "[..], script.take(len)].concat();
                line.extend_from_slice(&more);
            }
            5 => {
                let more = line.clone();
                lines.push(more);
            }
            6 if count > 1 => _ = lines.remove(at),
            // One octet within the line becomes another.
            _ => {
                let place = len.min(line.len().saturating_sub(1));
                if let (Some(octet), Some(new)) = (line.get_mut(place), script.byte()) {
                    *octet = new;
                }
            }
        }
    }
    let mut stream = lines.join(&b"\r\n"[..]);
    stream.extend_from_slice(b"\r\n\r\n");
    stream
}

/// Section 4.2.1 item by item, on the bytes of a head that is sound HTTP.
fn is_handshake(head: &[u8]) -> bool {
    let head = head.iter().map(|byte| char::from(*byte)).collect::<String>();
    let mut lines = head.split("\r\n");
    let request = lines.next().unwrap_or_default();
    let fields: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim_matches([' ', '\t'])))
        .collect();
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(it, _)| it == name).map(|(_, value)| *value).collect()
    };
    let list = |name: &str| -> Vec<String> {
        let elements = all(name).join(",");
        let elements = elements.split(',').map(|it| it.trim_matches([' ', '\t']));
        elements.filter(|it| !it.is_empty()).map(str::to_owned).collect()
    };
    let names = |name, token: &str| list(name).iter().any(|it| it.eq_ignore_ascii_case(token));
    let protocols = list("sec-websocket-protocol");
    request.starts_with("GET ")
        && request.ends_with(" HTTP/1.1")
        && all("host").len() == 1
        && names("upgrade", "websocket")
        && names("connection", "upgrade")
        && all("sec-websocket-version") == ["13"]
        && matches!(all("sec-websocket-key")[..], [key] if is_key(key))
        && protocols.len() <= 32
        && protocols.iter().all(|it| is_token(it))
        && (1..protocols.len()).all(|at| !protocols[..at].contains(&protocols[at]))
}

/// 22 characters and two of padding; of the last character only two bits are meant.
fn is_key(text: &str) -> bool {
    let fits = |it: char| it.is_ascii_alphanumeric() || it == '+' || it == '/';
    let Some(text) = text.strip_suffix("==") else { return false };
    text.len() == 22 && text.chars().all(fits) && text.ends_with(['A', 'Q', 'g', 'w'])
}

fn is_token(text: &str) -> bool {
    text.chars().all(|it| it.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(it))
}
