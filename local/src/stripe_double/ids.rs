//! Ids shaped like Stripe's. Every double has its own seed, so that the event ids of one run never meet
//! those of an earlier run in a database that was kept; with a fixed seed they repeat exactly.

use std::fmt::Write as _;

#[derive(Debug)]
pub(super) struct Ids {
    seed: u64,
    next: u64,
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Ids {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, next: 0 }
    }

    /// `tr_1P` + 22 characters: unique by the counter inside, unguessable by nobody in particular.
    pub(super) fn make(&mut self, prefix: &str) -> String {
        self.next += 1;
        let mut id = String::with_capacity(prefix.len() + 26);
        let _ = write!(id, "{prefix}_1P");
        push_base62(&mut id, self.next, 6);
        push_base62(&mut id, mix(self.seed ^ self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15)), 10);
        push_base62(&mut id, mix(self.seed.rotate_left(17)), 6);
        id
    }
}

fn push_base62(into: &mut String, mut value: u64, digits: usize) {
    for _ in 0..digits {
        let index = usize::try_from(value % 62).unwrap_or(0);
        into.push(char::from(ALPHABET[index]));
        value /= 62;
    }
}

/// The finaliser of splitmix64.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
