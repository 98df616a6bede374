//! Pseudo-random numbers: the printed seed repeats a failure.

use std::env;

/// A sequence of numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`. Seeds that differ in one bit give sequences that differ in all.
    pub fn new(seed: u64) -> Self {
        // A step of splitmix64; xorshift must not begin with 0.
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)).max(1))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number from 0 to `end`, without `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The lowest bits are the least random.
        let number = usize::try_from(self.number() >> 33).expect("31 bits");
        number % end
    }

    /// `true` once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The number in the environment variable `name`, or `default`. `make` sets the length and the seed
/// of long tests this way.
#[track_caller]
pub fn number_from_environment(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().unwrap_or_else(|error| panic!("{name}={text:?}: {error}"))
        }
        _ => default,
    }
}
