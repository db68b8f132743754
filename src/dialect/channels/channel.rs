//! Channel names: validation, and the channel kind that a name's prefix selects.

use super::data::{ChannelKind, USER, VendorData};

/// The kind of the channel with this name.
pub(in super::super) fn kind(data: &VendorData, name: &str) -> ChannelKind {
    traits(data, name).0
}

/// Whether the channel is a cache channel, which keeps its last event for later subscribers.
pub(super) fn is_cached(data: &VendorData, name: &str) -> bool {
    traits(data, name).1
}

fn traits(data: &VendorData, name: &str) -> (ChannelKind, bool) {
    let found = data.prefixes.iter().find(|(prefix, ..)| name.starts_with(prefix));
    found.map_or((ChannelKind::Public, false), |(_, kind, cached)| (*kind, *cached))
}

/// Checks that `name` is a valid channel name of at most `max` bytes.
///
/// # Errors
/// The problem as text: the name is empty, too long, or has characters that are not allowed.
pub(super) fn check(data: &VendorData, name: &str, max: usize) -> Result<(), String> {
    if name.is_empty() {
        return Err("Channel name is empty".to_owned());
    }
    if name.len() > max {
        return Err(format!("Channel name is longer than {max} characters"));
    }
    let rest = match name.strip_prefix(USER) {
        Some(rest) if kind(data, name) == ChannelKind::User => rest,
        _ => name,
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    match rest.bytes().all(allowed) {
        true => Ok(()),
        false => Err("Channel name has characters other than A-Z a-z 0-9 _ - = @ , . ;".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::pusher::DATA;
    use super::*;

    #[test]
    fn channel_kind_is_decided_by_the_longest_prefix() {
        for (name, expected) in [
            ("news", (ChannelKind::Public, false)),
            ("privateer", (ChannelKind::Public, false)),
            ("presences", (ChannelKind::Public, false)),
            ("cached", (ChannelKind::Public, false)),
            ("private-a", (ChannelKind::Private, false)),
            ("private-encryptedx", (ChannelKind::Private, false)),
            ("private-encrypted-a", (ChannelKind::Encrypted, false)),
            ("private-encrypted-cache-a", (ChannelKind::Encrypted, true)),
            ("private-cache-a", (ChannelKind::Private, true)),
            ("presence-a", (ChannelKind::Presence, false)),
            ("presence-cache-a", (ChannelKind::Presence, true)),
            ("presence-cachea", (ChannelKind::Presence, false)),
            ("cache-a", (ChannelKind::Public, true)),
            ("#server-to-user-a", (ChannelKind::User, false)),
        ] {
            assert_eq!(traits(&DATA, name), expected, "{name}");
        }
    }

    #[test]
    fn channel_name_is_checked_on_both_sides_of_its_bounds() {
        assert!(check(&DATA, &"a".repeat(200), 200).is_ok());
        assert!(check(&DATA, &"a".repeat(201), 200).is_err());
        assert!(check(&DATA, "", 200).is_err());
        assert!(check(&DATA, "Az09_-=@,.;", 200).is_ok());
        for bad in ["a b", "a/b", "ä", "#a", "a#server-to-user-b", "a\0"] {
            assert!(check(&DATA, bad, 200).is_err(), "{bad:?}");
        }
        assert!(check(&DATA, "#server-to-user-ada", 200).is_ok());
    }
}
