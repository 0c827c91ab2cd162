//! The Internet checksum (RFC 1071) over pieces, with the pseudo headers of IPv4 and IPv6.

use std::net::IpAddr;

/// A running one's complement sum; pieces may have odd lengths.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// The sum of the pseudo header of a transport protocol.
    pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Sum {
        let mut sum = Sum::default();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.total += length as u64 + u64::from(protocol);
        sum
    }

    pub fn add(&mut self, bytes: &[u8]) {
        // The sum does not depend on the byte order but for one swap at the end (RFC 1071, 2B), so
        // whole words of the machine are added and carries are kept in the upper half.
        let mut total = 0u64;
        let mut words = bytes.chunks_exact(16);
        for word in &mut words {
            for at in [0, 4, 8, 12] {
                total += u64::from(u32::from_ne_bytes([word[at], word[at + 1], word[at + 2], word[at + 3]]));
            }
        }
        let mut pairs = words.remainder().chunks_exact(2);
        for pair in &mut pairs {
            total += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
        }
        if let [last] = pairs.remainder() {
            total += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        let mut folded = u16::from_be(fold(total));
        if self.odd {
            folded = folded.swap_bytes();
        }
        self.total += u64::from(folded);
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The folded sum, not complemented: what a link with checksum offload wants in the field.
    pub fn partial(self) -> u16 {
        fold(self.total)
    }

    /// The checksum field's value.
    pub fn finish(self) -> u16 {
        !fold(self.total)
    }

    /// True if the bytes summed, checksum field included, are intact.
    pub fn intact(self) -> bool {
        fold(self.total) == 0xffff
    }
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The checksum of one piece.
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_equal_the_whole() {
        let data: Vec<u8> = (0..997u32).map(|n| (n * 7 + n / 13) as u8).collect();
        for cut in [0, 1, 2, 15, 16, 17, 500, 997] {
            for second in [cut, (cut + 3).min(997), 997] {
                let mut sum = Sum::default();
                sum.add(&data[..cut]);
                sum.add(&data[cut..second]);
                sum.add(&data[second..]);
                assert_eq!(sum.finish(), of(&data));
            }
        }
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(!of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }
}
