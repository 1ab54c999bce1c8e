//! Where the cases come from: pieces of what is right, put together and then wrecked. One buffer for all of them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, PoisonError},
};

use crate::COUNTED;

/// The counts of the allocator are the process's, so one test works at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where that takes 20 s and less.
pub const MILLION: u64 = 1_000_000;
/// Where a million takes longer (30 to 60 s in the dev profile on a busy machine).
pub const EVERY_DAY: u64 = 100_000;

/// xorshift64*: small and quick, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { ((self.word() >> 33) % end as u64) as usize }
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs so many cases, or as many as `AUTORESEARCH_FUZZ_CASES` asks for. A case that fails is told with the bytes that
/// it was of.
pub fn cases(usual: u64, mut check: impl FnMut(&mut Random, &mut Vec<u8>)) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = setting("AUTORESEARCH_FUZZ_SEED").unwrap_or(1);
    let count = setting("AUTORESEARCH_FUZZ_CASES").unwrap_or(usual);
    let (mut random, mut bytes, mut case) = (Random::new(seed), Vec::new(), 0);
    let worked = catch_unwind(AssertUnwindSafe(|| {
        while case < count {
            bytes.clear();
            check(&mut random, &mut bytes);
            case += 1;
        }
    }));
    if let Err(panic) = worked {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(4000)]).escape_debug().to_string();
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("case {case} of seed {seed}, {} bytes: {shown}\n", bytes.len()).as_bytes(),
        )
        .ok();
        resume_unwind(panic);
    }
    assert_eq!(case, count);
}

/// Does some work that may allocate so many bytes in all, freed or not.
pub fn within<T>(bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let before = COUNTED.stats().bytes_allocated;
    let made = work();
    let allocated = COUNTED.stats().bytes_allocated.wrapping_sub(before);
    assert!(allocated <= bytes_max, "{allocated} bytes were allocated where {bytes_max} are the bound");
    made
}

/// Some of `pieces` in a row, then up to four wounds; one in `LARGE` cases is many times as long.
pub fn wreck(random: &mut Random, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
    const LARGE: usize = 2000;
    let count = if random.one_in(LARGE) { 300 } else { 1 + random.below(3) };
    for _ in 0..count {
        bytes.extend_from_slice(random.pick(pieces));
    }
    for _ in 0..random.below(5) {
        wound(random, bytes, pieces);
    }
}

fn wound(random: &mut Random, bytes: &mut Vec<u8>, pieces: &[&[u8]]) {
    const STRANGE: &[u8] = b"\0\n\r\x1b\x7f\x80\xc3\xe2\xff\"\\{}[]:,-+.e019 ";
    let at = random.below(bytes.len());
    match random.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = STRANGE[random.below(STRANGE.len())],
        2 => bytes.truncate(at),
        3 => {
            let end = at + random.below(bytes.len() - at).min(12);
            bytes.drain(at..end);
        }
        4 => {
            let piece = random.pick(pieces);
            bytes.splice(at..at, piece.iter().copied());
        }
        5 => {
            let byte = STRANGE[random.below(STRANGE.len())];
            let count = if random.one_in(500) { 5000 } else { 1 + random.below(6) };
            bytes.splice(at..at, std::iter::repeat_n(byte, count));
        }
        _ => {
            let from = random.below(bytes.len());
            let end = from + random.below(bytes.len() - from).min(40);
            bytes.extend_from_within(from..end);
        }
    }
}

/// Gives the bytes to `take` in pieces, cut at up to three places.
pub fn in_pieces<'a>(random: &mut Random, bytes: &'a [u8], mut take: impl FnMut(&'a [u8])) {
    let mut rest = bytes;
    for _ in 0..random.below(4) {
        let (first, after) = rest.split_at(random.below(rest.len() + 1));
        take(first);
        rest = after;
    }
    take(rest);
}
