//! Where a listener accepts connections: an IP address with a port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::settings::section::texts;

/// The maximum length of the path of a Unix socket, in bytes: `sockaddr_un` also holds a zero.
const PATH_MAX: usize = 107;
const PREFIX: &str = "unix:";
const EXPECTED: &str = "an IPv4 or IPv6 address and a port, such as \"127.0.0.1:6001\" or \
                        \"[::1]:6001\", or \"unix:\" and an absolute path of at most 107 bytes";

texts! {
    ListenAddress: ListenAddress::to_string;
    FileMode: FileMode::to_string;
}

/// Where a listener accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address with a port; port 0 lets the kernel choose one.
    Ip(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The IP address and the port, unless this is a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Ip(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }

    /// The path, if this is a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ListenAddress::Ip(_) => None,
            ListenAddress::Unix(path) => Some(path),
        }
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.ip().map_or(0, |address| address.port())
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        ListenAddress::Ip(address)
    }
}

/// A text that is not a [`ListenAddress`].
#[derive(Debug, thiserror::Error)]
#[error("expected {EXPECTED}")]
pub struct InvalidAddress;

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<ListenAddress, InvalidAddress> {
        let Some(path) = text.strip_prefix(PREFIX) else {
            return text.parse().map(ListenAddress::Ip).map_err(|_| InvalidAddress);
        };
        let is_name = Path::new(path).is_absolute() && !path.ends_with('/') && !path.contains('\0');
        match is_name && path.len() <= PATH_MAX {
            true => Ok(ListenAddress::Unix(PathBuf::from(path))),
            false => Err(InvalidAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Ip(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "{PREFIX}{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ListenAddress, D::Error> {
        parse(deserializer, EXPECTED)
    }
}

/// The permissions of a Unix socket, as `chmod` writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Default for FileMode {
    fn default() -> FileMode {
        FileMode(0o660)
    }
}

impl FromStr for FileMode {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<FileMode, Self::Err> {
        // "9" is no octal digit, so it makes the error of a text of another form.
        let is_short = (3..=4).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        let mode = u32::from_str_radix(if is_short { text } else { "9" }, 8)?;
        if mode > 0o777 { FileMode::from_str("9") } else { Ok(FileMode(mode)) }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FileMode, D::Error> {
        parse(deserializer, "three octal digits, with or without a leading 0, such as \"0660\"")
    }
}

/// Reads a value from its text; an error shows the text and what is accepted.
pub(super) fn parse<'de, T: FromStr, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let found = format!("`{text}`");
        serde::de::Error::invalid_value(serde::de::Unexpected::Other(&found), &expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_address_is_ip_with_port_or_absolute_path() {
        let long = |bytes: usize| format!("unix:/{}", "a".repeat(bytes - 1));
        for text in ["127.0.0.1:0", "[::]:6001", "unix:/run/polycast.sock", &long(107)] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "127.0.0.1", "unix:", "unix:a", "unix:/", "unix:/a/", "unix:/a\0b"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        assert!(long(108).parse::<ListenAddress>().is_err(), "one byte too long");
    }

    #[test]
    fn listen_mode_is_three_octal_digits() {
        for (text, mode) in [("0660", 0o660), ("777", 0o777), ("000", 0)] {
            assert_eq!(text.parse(), Ok(FileMode(mode)), "{text}");
        }
        for text in ["", "66", "1777", "00660", "0668", "rw-", "+66", "0o66"] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert_eq!(FileMode(0o60).to_string(), "0060");
    }
}
