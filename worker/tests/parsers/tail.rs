//! Reading the log files while they grow: no more than the limit before the end, all of a short file, and of a long
//! one the part up to the limit and its last 64 KiB, with a count of what is between.
//!
//! A case is a file that grows in steps.

use std::{fs::File, os::unix::fs::FileExt as _};

use worker::{
    run::tail::{LAST_BYTES, Piece, Tail},
    sandbox::StreamPaths,
};

use crate::cases::{EVERY_DAY, cases, within};

/// Follows a piece: it begins where the one before ended.
fn follow(piece: Piece, end: &mut u64, kept: &mut u64, dropped: &mut u64) {
    match piece {
        Piece::Bytes { offset, data } => {
            assert_eq!(offset, *end);
            assert!(!data.is_empty() && data.len() <= proto::CHUNK_BYTES);
            *end += data.len() as u64;
            *kept += data.len() as u64;
        }
        Piece::Dropped { offset, bytes } => {
            assert!(offset == *end && bytes > 0 && *dropped == 0, "one gap at most");
            *end += bytes;
            *dropped += bytes;
        }
    }
}

#[test]
fn logs_that_grow_in_any_steps() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let paths = StreamPaths { stdout: path("stdout"), stderr: path("stderr"), metrics: path("metrics") };
    let file = File::create(&paths.stdout).unwrap();
    File::create(&paths.stderr).unwrap();
    File::create(&paths.metrics).unwrap();
    let mut gaps = 0_u64;
    cases(EVERY_DAY, |random, _| {
        let limit = random.below(3000) as u64;
        let mut tail = Tail::open(&paths, [0; 3], [limit; 3]).unwrap();
        let (mut size, mut end, mut kept, mut dropped) = (0, 0, 0, 0);
        file.set_len(0).unwrap();
        for _ in 0..random.below(5) {
            size += if random.one_in(10) { random.below(150_000) } else { random.below(900) } as u64;
            file.set_len(size).unwrap();
            while let Some(piece) = within(2 * proto::CHUNK_BYTES, || tail.read(0)).unwrap() {
                follow(piece, &mut end, &mut kept, &mut dropped);
            }
            assert!(end == size.min(limit) && kept == end && dropped == 0);
        }
        if size > 0 {
            file.write_all_at(b"!", size - 1).unwrap();
        }
        while let Some(piece) = tail.read_to_end(0).unwrap() {
            follow(piece, &mut end, &mut kept, &mut dropped);
        }
        assert_eq!(kept + dropped, size, "what is kept and what is dropped is what was written");
        assert_eq!(end, size);
        assert!(kept <= limit.min(size) + LAST_BYTES);
        assert!(kept >= size.min(LAST_BYTES), "the last of it is always there");
        gaps += u64::from(dropped > 0);
    });
    assert!(gaps > 0);
}
