//! Channel names: which are allowed, and what their beginnings mean.

/// What a channel's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anyone may subscribe.
    Public,
    /// Subscribing needs a signature.
    Private,
    /// As private; what is published is opaque to the server.
    Encrypted,
    /// Presence, cache and user channels.
    Other,
}

/// Longest first; the dash belongs to the prefix, so that `privateer` is public.
const PREFIXES: [(&str, Kind); 8] = [
    ("private-encrypted-cache-", Kind::Other),
    ("private-encrypted-", Kind::Encrypted),
    ("presence-cache-", Kind::Other),
    ("private-cache-", Kind::Other),
    ("presence-", Kind::Other),
    ("private-", Kind::Private),
    ("cache-", Kind::Other),
    ("#server-to-user-", Kind::Other),
];

pub(super) fn kind(name: &str) -> Kind {
    PREFIXES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(Kind::Public, |(_, kind)| *kind)
}

/// Why a name cannot be a channel's, if it cannot: its length in bytes or its characters.
pub(super) fn check(name: &str, most: usize) -> Result<(), String> {
    if name.is_empty() {
        return Err("Channel name is empty".to_owned());
    }
    if name.len() > most {
        return Err(format!("Channel name is longer than {most} characters"));
    }
    let rest = name.strip_prefix("#server-to-user-").unwrap_or(name);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    match rest.bytes().all(allowed) {
        true => Ok(()),
        false => Err("Channel name has characters other than A-Z a-z 0-9 _ - = @ , . ;".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_its_dash_counts() {
        for (name, expected) in [
            ("news", Kind::Public),
            ("privateer", Kind::Public),
            ("presences", Kind::Public),
            ("cached", Kind::Public),
            ("private-a", Kind::Private),
            ("private-encryptedx", Kind::Private),
            ("private-encrypted-a", Kind::Encrypted),
            ("private-cache-a", Kind::Other),
            ("presence-a", Kind::Other),
            ("cache-a", Kind::Other),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_is_checked_on_both_sides_of_its_bounds() {
        assert!(check(&"a".repeat(200), 200).is_ok());
        assert!(check(&"a".repeat(201), 200).is_err());
        assert!(check("", 200).is_err());
        assert!(check("Az09_-=@,.;", 200).is_ok());
        for bad in ["a b", "a/b", "ä", "#a", "a#server-to-user-b", "a\0"] {
            assert!(check(bad, 200).is_err(), "{bad:?}");
        }
        assert!(check("#server-to-user-ada", 200).is_ok());
    }
}
