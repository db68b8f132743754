//! Base64 in the standard alphabet (RFC 4648 section 4), padded, strict.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

use super::sha1;

/// The base64 text of `data`.
pub fn encode_base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// Decodes `text` into `out` and gives the number of bytes written. `None` if the text is not
/// canonical base64 (alphabet, padding, unused bits zero) or `out` is too short.
pub fn decode_base64(text: &[u8], out: &mut [u8]) -> Option<usize> {
    STANDARD.decode_slice(text, out).ok()
}

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn websocket_accept(key: &str) -> [u8; 28] {
    // A key has 24 octets. The upgrade refuses a longer one; here it would be cut.
    let mut text = [0; KEY_BYTES + GUID.len()];
    let key = &key.as_bytes()[..key.len().min(KEY_BYTES)];
    let end = key.len() + GUID.len();
    text[..key.len()].copy_from_slice(key);
    text[key.len()..end].copy_from_slice(GUID);
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(sha1(&text[..end]), &mut accept);
    debug_assert_eq!(written, Ok(28), "20 bytes are 28 in base64");
    accept
}

const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_accept_of_the_sample_key() {
        // RFC 6455 section 1.3.
        let accept = websocket_accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_round_trips_and_refuses_what_is_not_canonical() {
        let mut out = [0; 16];
        for (text, want) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zg", None),
            ("Zg=", None),
            ("Zh==", None),
            ("Z g=", None),
            ("Zm9v\n", None),
            ("Zm-_", None),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", None),
        ] {
            let got = decode_base64(text.as_bytes(), &mut out).map(|n| out[..n].to_vec());
            assert_eq!(got.as_deref(), want.map(str::as_bytes), "{text}");
            if let Some(data) = want {
                assert_eq!(encode_base64(data.as_bytes()), text);
            }
        }
    }
}
