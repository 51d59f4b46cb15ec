//! How far an address reaches, after the registries of special-purpose addresses of IANA (RFC 6890).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches, nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The machine itself, or whoever is on the same cable.
    Link,
    /// A network that is not the public one, or nothing at all.
    Private,
    /// The public network.
    Public,
}

impl Reach {
    /// The reach of an address. One that carries an IPv4 address inside is judged by that.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => match carried(address) {
                Some(inner) => of_v4(inner).min(of_v6(address)),
                None => of_v6(address),
            },
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // "This network" reaches the machine itself; multicast and broadcast reach the cable.
        [0 | 127 | 224..=239, ..] | [169, 254, ..] | [255, 255, 255, 255] => Reach::Link,
        [10 | 240..=255, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Shared address space of carriers.
        | [100, 64..=127, ..]
        // Protocol assignments, documentation, relays of 6to4, benchmarks.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let is_link = matches!(
        segments,
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0xfe80..=0xfebf | 0xff00..=0xffff, ..]
    );
    // Protocol assignments with Teredo, documentation, 6to4.
    let is_special = matches!(
        segments,
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..]
    );
    // What carries an IPv4 address is public if that is: mapped, or through a NAT64, without which a network of IPv6 alone
    // reaches no host of IPv4. What is left out: unique and site-local addresses, local NAT64, and what nobody was given.
    let may_be_public = matches!(
        segments,
        [0x2000..=0x3fff, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..]
    );
    match (is_link, may_be_public && !is_special) {
        (true, _) => Reach::Link,
        (false, true) => Reach::Public,
        (false, false) => Reach::Private,
    }
}

/// The IPv4 address inside an address: mapped, compatible, NAT64 or 6to4.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_reach_as_far_as_the_registries_say() {
        for (reach, addresses) in [
            (
                Reach::Link,
                "127.0.0.1 127.1.2.3 0.0.0.0 0.1.2.3 169.254.169.254 224.0.0.1 239.255.255.255 255.255.255.255 \
                 :: ::1 fe80::1 febf::1 ff02::1 ::ffff:127.0.0.1 ::ffff:169.254.1.1 ::127.0.0.1 64:ff9b::7f00:1 \
                 64:ff9b::a9fe:a9fe 2002:7f00:1:: 2002:a9fe:a9fe::1",
            ),
            (
                Reach::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 192.0.0.8 192.0.2.1 \
                 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 240.0.0.1 255.255.255.254 fc00::1 \
                 fd00::1 fec0::1 feff::1 ::ffff:10.0.0.1 ::ffff:198.18.0.1 ::10.0.0.1 ::8.8.8.8 64:ff9b::a00:1 \
                 64:ff9b::c0a8:101 64:ff9b:1::1 2002:808:808:: 2002:a00:1::1 2001::1 2001:2::1 2001:db8::1 3fff::1 \
                 100::1 5f00::1",
            ),
            (
                Reach::Public,
                "1.1.1.1 9.255.255.255 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 198.17.0.1 \
                 198.20.0.1 223.255.255.255 2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 ::ffff:1.1.1.1 \
                 64:ff9b::808:808",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }
}
