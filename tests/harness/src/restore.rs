//! Damaged values for Redis's `RESTORE`, and what a server says to them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::resp::RespClient;

/// Values of the type "zipmap" whose lengths lead beyond their end. What Redis 7.0.15-1~deb12u7 makes of the first depends on what
/// lies behind it in memory; the second one ends it.
pub const DAMAGED: [&str; 2] = [
    "091002fe010000006601007601fe010077ff0a003bb246edb4d267f5",
    "091002fe01000000ff0100760167010077ff0a00c9b8e09a8bdafbfe",
];
/// Behind the value: two bytes with a version, eight with a checksum.
const CHECKSUM: usize = 8;
const TAIL: usize = 2 + CHECKSUM;

/// Returns the bytes of hexadecimal digits.
///
/// # Panics
///
/// Where they are none.
#[must_use]
pub fn bytes_of(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("they are hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The checksum of Redis's dumps (CRC-64, Jones).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    const REFLECTED: u64 = 0x95ac_9329_ac4b_c9b5;
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ REFLECTED } else { sum >> 1 })
    })
}

/// Returns values that differ from the damaged ones in a few bytes, with right checksums: the same for the same seed.
#[must_use]
pub fn mutations(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mutation = |index: usize| {
        let mut value = bytes_of(DAMAGED[index % DAMAGED.len()]);
        let body = value.len() - TAIL;
        for _ in 0..random.random_range(1..=3) {
            // The first byte is the type.
            let at = random.random_range(1..body);
            value[at] = match random.random_range(0..3) {
                0 => random.random(),
                1 => value[at] ^ 1 << random.random_range(0..8),
                _ => [0, 1, 0x7f, 0xfd, 0xfe, 0xff][random.random_range(0..6)],
            };
        }
        let summed = value.len() - CHECKSUM;
        let sum = checksum(&value[..summed]).to_le_bytes();
        value[summed..].copy_from_slice(&sum);
        value
    };
    (0..count).map(mutation).collect()
}

/// Has two servers restore each value, and look at what came of it. Returns how many were taken.
///
/// # Errors
///
/// A server does not answer, or they answer differently.
pub fn expect_same_answers(a: SocketAddr, b: SocketAddr, values: &[Vec<u8>], limit: Duration) -> Result<usize> {
    let (mut a, mut b) = (RespClient::connect(a, limit)?, RespClient::connect(b, limit)?);
    let mut taken = 0;
    for value in values {
        let commands: [&[&[u8]]; 3] =
            [&[b"RESTORE", b"damaged", b"0", value, b"REPLACE"], &[b"DUMP", b"damaged"], &[b"DEL", b"damaged"]];
        for command in commands {
            let shown = || {
                let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} of {digits}", String::from_utf8_lossy(command[0]))
            };
            let (left, right) = (a.answer(command).with_context(shown)?, b.answer(command).with_context(shown)?);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            ensure!(left == right, "{}: {:?} and {:?}", shown(), text(&left), text(&right));
            taken += usize::from(left == b"+OK\r\n");
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_redis() {
        assert_eq!(checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        for digits in DAMAGED {
            let value = bytes_of(digits);
            let (summed, sum) = value.split_at(value.len() - CHECKSUM);
            assert_eq!(checksum(summed).to_le_bytes(), sum);
        }
        let all = mutations(1, 50);
        assert_eq!(all, mutations(1, 50));
        assert!(all.iter().all(|value| value.len() == 28 && value[0] == 9));
    }
}
