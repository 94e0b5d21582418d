//! A small generator of our own, so that a corpus is the same whatever version of a crate is locked.

/// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixes, equal everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// A stream for each purpose: drawing more names must not change the messages.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        // FNV-1a over the name.
        let hash = stream
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut random = Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `limit` - 1. The tiny bias of the remainder does not matter here.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// 0 (included) to 1 (excluded).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Box and Muller's normal value, as the exponent.
    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        median * (sigma * radius * (std::f64::consts::TAU * self.unit()).cos()).exp()
    }

    /// One of them, each as likely. An empty array does not compile.
    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, all: &[T; N]) -> T {
        const { assert!(N > 0) };
        let index = self.below(N as u64) as usize;
        match all.get(index) {
            Some(value) => *value,
            // `below` is below.
            None => unreachable!("{index} of {N}"),
        }
    }

    /// An index below `count` by Zipf's law: the first are by far the most likely.
    pub(crate) fn zipf(&mut self, count: usize) -> usize {
        let rank = ((count as f64 + 1.0).ln() * self.unit()).exp() as usize;
        rank.saturating_sub(1).min(count.saturating_sub(1))
    }

    /// One of a list, by [`Random::zipf`]: few people write most of the mail.
    pub(crate) fn pick_early<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let index = self.zipf(all.len());
        match all.get(index) {
            Some(value) => value,
            None => unreachable!("nobody writes mail"),
        }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
