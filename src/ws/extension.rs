//! `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), and the negotiation of `permessage-deflate`
//! (RFC 7692 section 7.1).

/// How the endpoint of a connection compresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Every offer is declined.
    #[default]
    Off,
    /// Neither side keeps its window from message to message, so that a broadcast is compressed
    /// once for all peers, and an idle connection takes no memory.
    Shared,
    /// Each side keeps its window if the offer allows it. Messages become smaller, and each
    /// connection takes hundreds of kibibytes.
    Dedicated,
}

/// The parameters that were negotiated with one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Our window is `2^our_bits` bytes, 9 to 15.
    pub our_bits: u8,
    /// Whether we keep our window between messages.
    pub we_keep: bool,
    /// Whether the peer keeps its window between messages. The peer's window has at most 15 bits.
    pub peer_keeps: bool,
    /// Whether the offer named `server_max_window_bits`, so that the answer must name it.
    names_bits: bool,
}

/// The value of the field is not a list of extensions: the handshake fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions is malformed")]
pub struct MalformedExtension;

/// The smallest window of the compressor, in bits. Peers can ask for 8 bits, which are not
/// supported.
const BITS_MIN: u8 = 9;
const BITS_MAX: u8 = 15;

impl Agreed {
    /// Nothing is compressed.
    pub(super) const NOTHING: Agreed =
        Agreed { our_bits: 15, we_keep: false, peer_keeps: false, names_bits: false };
}

impl Agreed {
    /// The value of `Sec-WebSocket-Extensions` in a server's response.
    pub fn answer(&self) -> String {
        let mut text = "permessage-deflate".to_owned();
        if !self.we_keep {
            text += "; server_no_context_takeover";
        }
        if !self.peer_keeps {
            text += "; client_no_context_takeover";
        }
        if self.names_bits {
            text += &format!("; server_max_window_bits={}", self.our_bits);
        }
        text
    }
}

/// Chooses the first acceptable offer of `permessage-deflate`, in the order of the peer's
/// preference. `fields` are the values of all such header fields.
///
/// [`MalformedExtension`], even if the malformed extension follows an acceptable offer.
/// [`MalformedExtension`], wherever in the list.
pub fn negotiate<'f>(
    fields: impl Iterator<Item = &'f str>,
    compression: Compression,
) -> Result<Option<Agreed>, MalformedExtension> {
    let mut agreed = None;
    for field in fields {
        let mut rest = Text(field);
        loop {
            rest.skip_space();
            // Empty elements of a list are ignored (RFC 9110 section 5.6.1).
            if !rest.is_at(b',') && !rest.0.is_empty() {
                let offer = offer(&mut rest)?;
                if agreed.is_none() && compression != Compression::Off {
                    agreed = offer.filter(Offer::can_be_met).map(|it| it.agree(compression));
                }
            }
            rest.skip_space();
            if rest.0.is_empty() {
                break;
            }
            rest.take(b',')?;
        }
    }
    Ok(agreed)
}

/// What a client offers: the server may limit the client's window.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// Reads a server's answer to [`OFFER`]; `None` if it declined.
///
/// # Errors
/// [`MalformedExtension`], also for an answer that was not offered or is not acceptable: the client
/// fails the connection (RFC 7692 section 7.1).
pub fn read_answer<'f>(
    fields: impl Iterator<Item = &'f str>,
) -> Result<Option<Agreed>, MalformedExtension> {
    let mut agreed = None;
    for field in fields {
        let mut rest = Text(field);
        rest.skip_space();
        let answer =
            offer(&mut rest)?.filter(|answer| !answer.invalid).ok_or(MalformedExtension)?;
        let our_bits = match answer.client_bits {
            None => BITS_MAX,
            Some(Some(bits @ BITS_MIN..=BITS_MAX)) => bits,
            Some(_) => return Err(MalformedExtension),
        };
        let taken = Agreed {
            our_bits,
            we_keep: !answer.client_no_takeover,
            peer_keeps: !answer.server_no_takeover,
            names_bits: false,
        };
        if !rest.0.is_empty() || agreed.replace(taken).is_some() {
            return Err(MalformedExtension);
        }
    }
    Ok(agreed)
}

/// The parameters of one offer of `permessage-deflate`.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
    /// A parameter is unknown, given twice, or has a value that it cannot have.
    invalid: bool,
}

impl Offer {
    fn can_be_met(&self) -> bool {
        !self.invalid && self.server_bits.is_none_or(|bits| bits >= BITS_MIN)
    }

    fn agree(self, compression: Compression) -> Agreed {
        let keep = compression == Compression::Dedicated;
        Agreed {
            our_bits: self.server_bits.unwrap_or(BITS_MAX),
            we_keep: keep && !self.server_no_takeover,
            peer_keeps: keep && !self.client_no_takeover,
            names_bits: self.server_bits.is_some(),
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        let once = match (name, value) {
            ("server_no_context_takeover", None) => {
                !std::mem::replace(&mut self.server_no_takeover, true)
            }
            ("client_no_context_takeover", None) => {
                !std::mem::replace(&mut self.client_no_takeover, true)
            }
            ("server_max_window_bits", Some(value)) => match bits(value) {
                Some(bits) => self.server_bits.replace(bits).is_none(),
                None => false,
            },
            ("client_max_window_bits", None) => self.client_bits.replace(None).is_none(),
            ("client_max_window_bits", Some(value)) => match bits(value) {
                Some(bits) => self.client_bits.replace(Some(bits)).is_none(),
                None => false,
            },
            _ => false,
        };
        self.invalid |= !once;
    }
}

/// Parses a number of window bits: 8 to 15, without leading zeros (RFC 7692 section 7.1.2.1).
fn bits(value: &str) -> Option<u8> {
    match value {
        "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15" => value.parse().ok(),
        _ => None,
    }
}

/// Reads one extension. Returns its parameters if it is `permessage-deflate`.
fn offer(rest: &mut Text<'_>) -> Result<Option<Offer>, MalformedExtension> {
    let is_deflate = rest.token()? == "permessage-deflate";
    let mut offer = Offer::default();
    loop {
        rest.skip_space();
        if !rest.is_at(b';') {
            return Ok(is_deflate.then_some(offer));
        }
        rest.take(b';')?;
        rest.skip_space();
        let name = rest.token()?;
        rest.skip_space();
        if !rest.is_at(b'=') {
            offer.set(name, None);
            continue;
        }
        rest.take(b'=')?;
        rest.skip_space();
        let mut unquoted = String::new();
        let value = if rest.is_at(b'"') {
            rest.quoted(&mut unquoted)?;
            unquoted.as_str()
        } else {
            rest.token()?
        };
        offer.set(name, Some(value));
    }
}

/// The rest of a field's value.
struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn is_at(&self, byte: u8) -> bool {
        self.0.as_bytes().first() == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> Result<(), MalformedExtension> {
        if !self.is_at(byte) {
            return Err(MalformedExtension);
        }
        self.0 = &self.0[1..];
        Ok(())
    }

    fn token(&mut self) -> Result<&'t str, MalformedExtension> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let end = self.0.bytes().position(|byte| !is_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        match token {
            "" => Err(MalformedExtension),
            token => Ok(token),
        }
    }

    /// A quoted string, whose content must be a token (RFC 6455 section 9.1).
    fn quoted(&mut self, content: &mut String) -> Result<(), MalformedExtension> {
        self.take(b'"')?;
        let mut chars = self.0.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    let mut inner = Text(content);
                    inner.token()?;
                    return if inner.0.is_empty() { Ok(()) } else { Err(MalformedExtension) };
                }
                '\\' => content.extend(chars.next().map(|(_, escaped)| escaped)),
                char => content.push(char),
            }
        }
        Err(MalformedExtension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        fields: &[&str],
        compression: Compression,
    ) -> Result<Option<String>, MalformedExtension> {
        let agreed = negotiate(fields.iter().copied(), compression)?;
        Ok(agreed.map(|agreed| agreed.answer()))
    }

    #[test]
    fn s7_1_each_offer_is_met_declined_or_answered_by_the_next() {
        const NONE: &str = "";
        let shared = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offer, for_shared, for_dedicated) in [
            ("permessage-deflate", shared, "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits", shared, "permessage-deflate"),
            ("permessage-deflate; client_max_window_bits=8", shared, "permessage-deflate"),
            (
                "permessage-deflate; server_no_context_takeover",
                shared,
                "permessage-deflate; server_no_context_takeover",
            ),
            (
                "permessage-deflate; client_no_context_takeover",
                shared,
                "permessage-deflate; client_no_context_takeover",
            ),
            (
                "permessage-deflate; server_max_window_bits=\"9\"",
                &format!("{shared}; server_max_window_bits=9"),
                "permessage-deflate; server_max_window_bits=9",
            ),
            // A window of 8 bits is not supported, so the next offer is considered.
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                shared,
                "permessage-deflate",
            ),
            ("permessage-deflate; server_max_window_bits=8", NONE, NONE),
            ("permessage-deflate; server_max_window_bits=7", NONE, NONE),
            ("permessage-deflate; server_max_window_bits=16", NONE, NONE),
            ("permessage-deflate; server_max_window_bits=015", NONE, NONE),
            ("permessage-deflate; server_max_window_bits", NONE, NONE),
            ("permessage-deflate; client_max_window_bits=7", NONE, NONE),
            ("permessage-deflate; client_max_window_bits=x", NONE, NONE),
            ("permessage-deflate; server_no_context_takeover=1", NONE, NONE),
            ("permessage-deflate; client_no_context_takeover=\"1\"", NONE, NONE),
            ("permessage-deflate; unknown", NONE, NONE),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", NONE, NONE),
            ("x-webkit-deflate-frame", NONE, NONE),
            ("foo; bar=baz , ,permessage-deflate", shared, "permessage-deflate"),
            ("", NONE, NONE),
        ] {
            let expect = |text: &str| Ok((!text.is_empty()).then(|| text.to_owned()));
            assert_eq!(answer(&[offer], Compression::Shared), expect(for_shared), "{offer}");
            assert_eq!(answer(&[offer], Compression::Dedicated), expect(for_dedicated), "{offer}");
            assert_eq!(answer(&[offer], Compression::Off), Ok(None), "{offer}");
        }
    }

    #[test]
    fn extension_client_accepts_an_answer_to_its_offer() {
        let read = |text: &'static str| read_answer([text].into_iter());
        let agreed = |our_bits, we_keep, peer_keeps| {
            Ok(Some(Agreed { our_bits, we_keep, peer_keeps, names_bits: false }))
        };
        assert_eq!(read_answer(std::iter::empty()), Ok(None));
        assert_eq!(read("permessage-deflate"), agreed(15, true, true));
        assert_eq!(
            read("permessage-deflate; client_max_window_bits=9; server_no_context_takeover"),
            agreed(9, true, false)
        );
        assert_eq!(read("permessage-deflate; client_no_context_takeover"), agreed(15, false, true));
        for bad in [
            "",
            "foo",
            "permessage-deflate, permessage-deflate",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; unknown",
        ] {
            assert_eq!(read(bad), Err(MalformedExtension), "{bad}");
        }
    }

    #[test]
    fn extension_offers_may_be_in_several_fields() {
        let fields = ["foo", "permessage-deflate; bar", "permessage-deflate"];
        assert!(answer(&fields, Compression::Shared).is_ok_and(|answer| answer.is_some()));
    }

    #[test]
    fn extension_malformed_list_fails_with_any_offer() {
        for bad in [
            "permessage-deflate;",
            "permessage-deflate; =1",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"b",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"\"",
            "permessage deflate",
            "permessage-deflate; client_max_window_bits=\"10\\",
            "permessage-deflate, foo@",
            "/",
        ] {
            assert_eq!(answer(&[bad], Compression::Shared), Err(MalformedExtension), "{bad}");
            assert_eq!(answer(&[bad], Compression::Off), Err(MalformedExtension), "{bad}");
        }
    }
}
