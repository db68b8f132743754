//! JSON by `simd-json`: parsed in place into a tape whose memory is reused.

use simd_json::prelude::*;
use simd_json::tape;
use simd_json::{Buffers, Node, Tape};

/// Parser memory of one core.
pub struct Scratch {
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { buffers: Buffers::new(4096), tape: None }
    }
}

/// The text was not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON")]
pub struct MalformedJson;

/// Parser buffers for more than this many nodes, which a large document has caused, are freed after
/// use.
const KEPT_TAPE_NODES: usize = 16 * 1024;

impl Scratch {
    /// Parses `text` in place (strings are unescaped in it) and passes the value to `read`.
    ///
    /// # Errors
    /// `text` is not one JSON value.
    pub fn parse<R>(
        &mut self,
        text: &mut [u8],
        read: impl FnOnce(JsonText<'_, '_>) -> R,
    ) -> Result<R, MalformedJson> {
        self.parse_tape(text, |tape| read(JsonText(tape.as_value())))
    }

    /// Parses `text` like [`Scratch::parse`] and passes its nodes to `read`, in the order of the
    /// text.
    pub(super) fn parse_nodes<R>(
        &mut self,
        text: &mut [u8],
        read: impl FnOnce(&[Node<'_>]) -> R,
    ) -> Result<R, MalformedJson> {
        self.parse_tape(text, |tape| read(&tape.0))
    }

    fn parse_tape<R>(
        &mut self,
        text: &mut [u8],
        read: impl FnOnce(&Tape<'_>) -> R,
    ) -> Result<R, MalformedJson> {
        let mut tape = self.tape.take().unwrap_or_else(Tape::null).reset();
        let parsed = simd_json::fill_tape(text, &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) if !tape.0.is_empty() => Ok(read(&tape)),
            _ => Err(MalformedJson),
        };
        if tape.0.capacity() <= KEPT_TAPE_NODES {
            self.tape = Some(tape.reset());
        } else {
            self.buffers = Buffers::new(4096);
        }
        result
    }
}

/// A value of a parsed document.
#[derive(Clone, Copy)]
pub struct JsonText<'t, 'i>(tape::Value<'t, 'i>);

impl<'t, 'i> JsonText<'t, 'i> {
    /// The member `key` of an object; the last one if it is repeated.
    pub fn get(&self, key: &str) -> Option<JsonText<'t, 'i>> {
        let object = self.0.as_object()?;
        object.iter().filter(|(name, _)| *name == key).last().map(|(_, value)| JsonText(value))
    }

    /// The members of an object, in the order of the text.
    pub fn members(
        &self,
    ) -> Option<impl Iterator<Item = (&'t str, JsonText<'t, 'i>)> + use<'t, 'i>> {
        let object = self.0.as_object()?;
        Some(object.iter().map(|(name, value)| (name, JsonText(value))))
    }

    /// The value of an integer of 64 bits with a sign.
    pub fn int(&self) -> Option<i64> {
        self.0.as_i64()
    }

    /// Whether this is a number.
    pub fn is_number(&self) -> bool {
        self.0.is_number()
    }

    /// Whether this is an object.
    pub fn is_object(&self) -> bool {
        self.0.is_object()
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&'t str> {
        self.0.into_string()
    }

    /// The elements of an array.
    pub fn elements(&self) -> Option<impl Iterator<Item = JsonText<'t, 'i>> + use<'t, 'i>> {
        self.0.as_array().map(|array| array.iter().map(JsonText))
    }

    /// Appends this value as compact JSON.
    pub fn push_to(&self, out: &mut Vec<u8>) {
        // Writing into a vector cannot fail.
        let _ = self.0.write(out);
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_content(out, text);
    out.push(b'"');
}

/// Appends `text`, escaped as the content of a JSON string, without the quotes.
pub fn push_content(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = first_escaped(rest) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        rest = &rest[at + 1..];
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(rest);
}

/// The position of the first byte that has an escape in a JSON string.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    // Without a way out of the inner loop, the compiler checks a whole block at once.
    let (blocks, _) = bytes.as_chunks::<16>();
    let is_plain =
        |block: &&[u8; 16]| !block.iter().fold(false, |any, byte| any | is_escaped(byte));
    let plain = 16 * blocks.iter().take_while(is_plain).count();
    bytes[plain..].iter().position(is_escaped).map(|at| plain + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_every_character_survives_writing_and_parsing() {
        let text: String =
            (0..0x250).chain([0x2028, 0x1f600, 0x10ffff]).filter_map(char::from_u32).collect();
        let mut json = Vec::new();
        push_string(&mut json, &text);
        let mut scratch = Scratch::default();
        let back = scratch.parse(&mut json, |value| value.text().map(str::to_owned));
        assert_eq!(back, Ok(Some(text)));
    }

    #[test]
    fn json_escapes_are_found_at_every_position() {
        for length in 1..40 {
            for at in 0..length {
                for (byte, escape) in [('"', "\\\""), ('\\', "\\\\"), ('\u{1f}', "\\u001f")] {
                    let (before, after) = ("x".repeat(at), "y".repeat(length - 1 - at));
                    let mut out = Vec::new();
                    push_content(&mut out, &format!("{before}{byte}{after}"));
                    assert_eq!(out, format!("{before}{escape}{after}").into_bytes());
                }
            }
        }
    }

    #[test]
    fn json_member_is_found_and_of_repeated_ones_the_last() {
        let mut scratch = Scratch::default();
        let mut text = br#"{"a":1,"b":[2,"x"],"a":{"c":null}}"#.to_vec();
        let found = scratch.parse(&mut text, |value| {
            let mut out = Vec::new();
            value.get("a").expect("there is an a").push_to(&mut out);
            let second = value.get("b").and_then(|b| b.elements()?.nth(1)?.text());
            assert_eq!(second, Some("x"));
            assert!(value.get("c").is_none());
            out
        });
        assert_eq!(found, Ok(br#"{"c":null}"#.to_vec()));
    }

    #[test]
    fn json_errors_leave_the_scratch_usable() {
        let mut scratch = Scratch::default();
        for bad in ["", " ", "{", "[1,]", "nul", "\"\u{1}\"", "{\"a\" 1}", "1 2", "\u{feff}1"] {
            let mut text = bad.as_bytes().to_vec();
            assert_eq!(scratch.parse(&mut text, |_| ()), Err(MalformedJson), "{bad:?}");
        }
        let mut deep = vec![b'['; 200_000];
        assert_eq!(scratch.parse(&mut deep, |_| ()), Err(MalformedJson));
        assert_eq!(scratch.parse(&mut b"[1]".to_vec(), |value| value.is_object()), Ok(false));
    }
}
