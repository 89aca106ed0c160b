//! Chance that repeats exactly: the checked-in files must come out the same, byte for byte, on every machine and with every
//! version of every dependency, so the generator has its own few lines of it (splitmix64) and no floating point.

/// A stream of numbers that the seed decides.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = high.abs_diff(low) + 1;
        low.saturating_add_unsigned(self.next() % span)
    }

    pub(super) fn percent(&mut self, chance: i64) -> bool {
        self.between(1, 100) <= chance
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[index(self.next(), of.len())]
    }

    /// One of them, each as likely as its weight says.
    pub(super) fn weighted<T: Copy>(&mut self, of: &[(i64, T)]) -> T {
        let mut left = self.between(1, of.iter().map(|(weight, _)| weight).sum());
        for (weight, it) in of {
            left -= weight;
            if left <= 0 {
                return *it;
            }
        }
        of[of.len() - 1].1
    }

    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, index(self.next(), last + 1));
        }
    }

    /// Letters and digits, as Stripe's ids end.
    pub(super) fn letters(&mut self, count: usize) -> String {
        const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..count).map(|_| char::from(self.pick(LETTERS))).collect()
    }

    /// A random UUID by its form.
    pub(super) fn uuid(&mut self) -> uuid::Uuid {
        uuid_of(self.next(), self.next())
    }
}

pub(super) fn uuid_of(high: u64, low: u64) -> uuid::Uuid {
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The finaliser of splitmix64: neighbours in, strangers out.
pub(super) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn index(number: u64, len: usize) -> usize {
    usize::try_from(number % u64::try_from(len).unwrap_or(u64::MAX)).unwrap_or(0)
}
