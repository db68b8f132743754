//! Tells public IP addresses from private and reserved ones, so that a configured URL cannot reach
//! services that only this machine can reach (server-side request forgery, SSRF).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is on the public internet. An IPv6 address that embeds an IPv4 address is
/// judged by that one.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // "This network" (0/8), carrier-grade NAT (100.64/10), IETF protocols (192.0.0/24),
        // benchmarks (198.18/15), reserved (240/4).
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] | [240..=255, ..] => {
            true
        }
        _ => false,
    };
    let private = address.is_private() || address.is_loopback() || address.is_link_local();
    !(special || private || address.is_multicast() || address.is_documentation())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv6 addresses that embed an IPv4 address: NAT64 (64:ff9b::/96) and 6to4 (2002::/16).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // IETF protocols, Teredo among them (2001::/23), and documentation (2001:db8::/32).
        [0x2001, 0..=0x1ff | 0xdb8, ..] => false,
        // Global unicast (2000::/3).
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_private_ranges_at_both_ends() {
        let refused = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 \
                       127.0.0.1 127.255.255.255 169.254.0.0 169.254.169.254 172.16.0.0 \
                       172.31.255.255 192.0.0.1 192.168.0.0 192.168.255.255 198.18.0.0 \
                       198.19.255.255 224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.255 \
                       :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::a00:1 \
                       64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1 fc00::1 fdff::1 fe80::1 \
                       fec0::1 ff02::1 100::1";
        for text in refused.split_whitespace() {
            assert!(!is_public(text.parse().expect(text)), "{text}");
        }
        let allowed = "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
                       128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 \
                       192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 \
                       ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808:: 2606:4700::1111 2a00::1";
        for text in allowed.split_whitespace() {
            assert!(is_public(text.parse().expect(text)), "{text}");
        }
    }
}
