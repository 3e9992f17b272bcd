//! Blocks of addresses, written as `10.0.0.0/8`, and sets of them: whom a router trusts.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// It is no address, with or without a prefix length.
    #[error("`{0}` is no network: write an address or a block such as 10.0.0.0/8 or 2001:db8::/32")]
    Malformed(String),
    /// Bits behind the prefix are set: one of the two was not meant.
    #[error("`{given}` has bits set behind its prefix: write {meant}")]
    HostBits {
        /// The text.
        given: String,
        /// The block that contains it.
        meant: Network,
    },
}

impl Network {
    /// The first and the last address, as numbers of the address' family.
    fn range(self) -> (u128, u128) {
        let (number, width) = number(self.address);
        let free = width - u32::from(self.prefix);
        let mask = u128::MAX.checked_shl(free).unwrap_or(0);
        let all = u128::MAX >> (128 - width);
        (number & mask, number & mask | !mask & all)
    }
}

/// An address as a number, and how many bits its family has.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let malformed = || BadNetwork::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let (_, width) = number(address);
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| malformed())?
            }
            Some(_) => return Err(malformed()),
        };
        let prefix = u8::try_from(prefix).ok().filter(|p| u32::from(*p) <= width);
        let network = canonical(address, prefix.ok_or_else(malformed)?);
        let (first, _) = network.range();
        if first == number(network.address).0 {
            return Ok(network);
        }
        let address = match network.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(first).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(first)),
        };
        Err(BadNetwork::HostBits {
            given: text.to_owned(),
            meant: Self { address, ..network },
        })
    }
}

/// IPv4 written as mapped IPv6 is IPv4.
fn canonical(address: IpAddr, prefix: u8) -> Network {
    match (address.to_canonical(), prefix.checked_sub(96)) {
        (v4 @ IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => Network {
            address: v4,
            prefix,
        },
        _ => Network { address, prefix },
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// A set of addresses, quick to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges,
    v6: Ranges,
}

/// First and last addresses: ascending, apart from one another.
type Ranges = Box<[(u128, u128)]>;

impl Networks {
    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether an address is in it; a mapped IPv4 address is one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let ranges = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let (number, _) = number(address);
        let before = ranges.partition_point(|(first, _)| *first <= number);
        before > 0 && ranges[before - 1].1 >= number
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = networks.into_iter().partition(|n| n.address.is_ipv4());
        Self {
            v4: merged(&v4),
            v6: merged(&v6),
        }
    }
}

fn merged(networks: &[Network]) -> Ranges {
    let mut ranges: Vec<_> = networks.iter().map(|n| n.range()).collect();
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlap = next.0 <= last.1;
        if overlap {
            last.1 = last.1.max(next.1);
        }
        overlap
    });
    ranges.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[&str]) -> Networks {
        texts
            .iter()
            .map(|t| t.parse::<Network>().unwrap())
            .collect()
    }

    #[test]
    fn asks_by_family() {
        let set = set(&[
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "2001:db8::/32",
            "::1",
            "::ffff:172.16.0.0/108",
        ]);
        for (address, inside) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.2.3.4", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::a00:1", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
        let all = super::Networks::from_iter(["::/0".parse::<Network>().unwrap()]);
        assert!(all.contains("::2".parse().unwrap()) && !all.contains("1.1.1.1".parse().unwrap()));
        assert!(!all.is_empty() && Networks::default().is_empty());
    }

    #[test]
    fn wrong_texts_are_refused_with_the_fix() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "a",
            "1.1.1.1/8/8",
        ] {
            assert_eq!(
                text.parse::<Network>(),
                Err(BadNetwork::Malformed(text.to_owned())),
                "{text}"
            );
        }
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert!(error.to_string().ends_with("write 10.0.0.0/8"), "{error}");
        let error = "2001:db8::1/32".parse::<Network>().unwrap_err();
        assert!(
            error.to_string().ends_with("write 2001:db8::/32"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn a_set_holds_what_its_networks_hold(
            networks in proptest::collection::vec((any::<u8>(), 0_u8..=8), 0..6),
            asked in any::<u8>(),
        ) {
            // 10.0.0.0/24 in small blocks: overlapping, touching and nested ones.
            let blocks: Vec<Network> = networks
                .iter()
                .map(|(host, free)| {
                    let host = u32::from(*host) >> free << free;
                    format!("10.0.0.{host}/{}", 32 - free).parse().unwrap()
                })
                .collect();
            let each = networks.iter().any(|(host, free)| {
                u32::from(asked) >> free == u32::from(*host) >> free
            });
            let set: Networks = blocks.iter().copied().collect();
            prop_assert_eq!(set.contains(IpAddr::from([10, 0, 0, asked])), each);
            for block in blocks {
                prop_assert_eq!(block.to_string().parse::<Network>(), Ok(block));
            }
        }
    }
}
