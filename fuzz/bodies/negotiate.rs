//! Offers of compression against a naive reading of the same list (RFC 7692 section 7.1).

use polycast::ws::extension::{Compression, negotiate, read_answer};

/// An extension and its parameters.
type Element = (String, Vec<(String, Option<String>)>);

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, text)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let text = match shape >> 4 {
        0..8 => text.to_owned(),
        // Words that a fuzzer is slow to find.
        8..12 => text.chars().map(word).collect(),
        _ => format!("permessage-deflate; {text}"),
    };
    let fields: Vec<&str> = text.split('\n').collect();
    let list = fields.iter().map(|field| parse(field)).collect::<Option<Vec<_>>>();
    let compression = match shape % 3 {
        0 => Compression::Off,
        1 => Compression::Shared,
        _ => Compression::Dedicated,
    };
    let got = negotiate(fields.iter().copied(), compression);
    let Some(list) = list else { return assert!(got.is_err(), "{fields:?} {got:?}") };
    let taken = list.iter().flatten().find(|element| can_be_met(element));
    let agreed = got.unwrap_or_else(|it| panic!("{it}: {fields:?}"));
    match (agreed, taken.filter(|_| compression != Compression::Off)) {
        (None, None) => {}
        (Some(agreed), Some(offer)) => {
            let keep = compression == Compression::Dedicated;
            assert_eq!(agreed.we_keep, keep && !has(offer, "server_no_context_takeover"));
            assert_eq!(agreed.peer_keeps, keep && !has(offer, "client_no_context_takeover"));
            assert!((9..=15).contains(&agreed.our_bits));
            answered(&agreed.answer(), offer);
            let theirs = read_answer([agreed.answer().as_str()].into_iter());
            let Ok(Some(theirs)) = theirs else { panic!("{} is not understood", agreed.answer()) };
            assert_eq!(
                (theirs.we_keep, theirs.peer_keeps, theirs.our_bits),
                (agreed.peer_keeps, agreed.we_keep, 15)
            );
        }
        (agreed, offer) => panic!("{agreed:?} for {offer:?}"),
    }
    answers(&fields, &list);
}

/// What section 7.1 lets a server answer to `offer`.
fn answered(answer: &str, offer: &Element) {
    let list = parse(answer).expect("a well-formed answer");
    let [answer] = &list[..] else { panic!("{list:?}") };
    assert!(is_valid(answer), "{answer:?}");
    // 7.1.1.1: what is asked for is granted. 7.1.2.1: at most the window that was asked for.
    let asked = has(offer, "server_no_context_takeover");
    assert!(!asked || has(answer, "server_no_context_takeover"), "{answer:?} to {offer:?}");
    match (bits(offer, "server_max_window_bits"), bits(answer, "server_max_window_bits")) {
        (Some(max), given) => assert!(given.is_some_and(|it| it <= max), "{answer:?}"),
        (None, given) => assert_eq!(given, None),
    }
    // 7.1.2.2: not in an answer unless it is in the offer; the peer's window is never cut here.
    assert!(!has(answer, "client_max_window_bits"), "{answer:?}");
}

/// Anything as a server's answer: taken only if it is one element that we have offered.
fn answers(fields: &[&str], list: &[Vec<Element>]) {
    let Ok(Some(agreed)) = read_answer(fields.iter().copied()) else { return };
    let [answer] = &list.concat()[..] else { panic!("{fields:?}") };
    assert!(answer.0 == "permessage-deflate" && is_valid(answer), "{answer:?}");
    assert_eq!(agreed.we_keep, !has(answer, "client_no_context_takeover"));
    assert_eq!(agreed.peer_keeps, !has(answer, "server_no_context_takeover"));
    assert_eq!(agreed.our_bits, bits(answer, "client_max_window_bits").unwrap_or(15));
    assert!(agreed.our_bits >= 9);
}

fn word(from: char) -> &'static str {
    match from {
        'a' => "permessage-deflate",
        'b' => "server_no_context_takeover",
        'c' => "client_no_context_takeover",
        'd' => "server_max_window_bits",
        'e' => "client_max_window_bits",
        ';' => "; ",
        '=' => "=",
        '"' => "\"",
        '\\' => "\\",
        '0' => "10",
        '8' => "8",
        '9' => "9",
        '5' => "15",
        '6' => "16",
        '\n' => "\n",
        ' ' => "\t",
        ',' => ", ",
        _ => "x",
    }
}

fn has(element: &Element, name: &str) -> bool {
    element.1.iter().any(|(it, _)| it == name)
}

fn bits(element: &Element, name: &str) -> Option<u8> {
    let (_, value) = element.1.iter().find(|(it, _)| it == name)?;
    value.as_ref()?.parse().ok()
}

fn can_be_met(element: &Element) -> bool {
    let small = bits(element, "server_max_window_bits").is_some_and(|bits| bits < 9);
    element.0 == "permessage-deflate" && is_valid(element) && !small
}

/// Known parameters, each once, with values that they can have.
fn is_valid(element: &Element) -> bool {
    let window = |text: &String| (8..=15).any(|bits| *text == bits.to_string());
    element.1.iter().all(|(name, value)| {
        let once = element.1.iter().filter(|(it, _)| it == name).count() == 1;
        once && match name.as_str() {
            "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
            "server_max_window_bits" => value.as_ref().is_some_and(window),
            "client_max_window_bits" => value.as_ref().is_none_or(window),
            _ => false,
        }
    })
}

/// The list in one field, or none if it is malformed (RFC 6455 section 9.1): split at what stands
/// outside of quotes, then looked at part by part.
fn parse(field: &str) -> Option<Vec<Element>> {
    let mut list = Vec::new();
    for element in split(field, ',')? {
        if trim(element).is_empty() {
            continue;
        }
        let mut parts = split(element, ';')?.into_iter();
        let name = token(parts.next()?)?;
        let parameter = |part: &str| match *split(part, '=')? {
            [name] => Some((token(name)?, None)),
            [name, value] => Some((token(name)?, Some(content(trim(value))?))),
            _ => None,
        };
        list.push((name, parts.map(parameter).collect::<Option<_>>()?));
    }
    Some(list)
}

fn split(text: &str, at: char) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (place, char) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && char == '\\' {
            escaped = true;
        } else if char == '"' {
            quoted = !quoted;
        } else if char == at && !quoted {
            parts.push(&text[start..place]);
            start = place + 1;
        }
    }
    parts.push(&text[start..]);
    (!quoted).then_some(parts)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn token(text: &str) -> Option<String> {
    let fits = |it: char| it.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(it);
    let text = trim(text);
    (!text.is_empty() && text.chars().all(fits)).then(|| text.to_owned())
}

/// A token, or one in quotes.
fn content(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return token(value) };
    let mut text = String::new();
    let mut chars = inner.strip_suffix('"')?.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => return None,
            '\\' => text.push(chars.next()?),
            char => text.push(char),
        }
    }
    // Spaces inside of quotes are not around the token.
    token(&text).filter(|token| token.len() == text.len())
}
