//! Trees of any shape and names of any bytes. A case is an entry: a million names are judged every day; of trees, which
//! cost system calls, there are as many as make twenty thousand entries, and a million entries where
//! `AUTORESEARCH_FUZZ_CASES` asks for them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    time::Duration,
};

use kit::digest::Digest;
use worker::run::artifacts::{ArtifactRules, collect, copy_path, name_rule};

use crate::cases::{MILLION, Random, cases, within, wreck};

const NAMES: &[&[u8]] = &[
    b"model.pt",
    b"..",
    b".",
    b"a b",
    "é\u{202e}gnp.exe".as_bytes(),
    b"\n",
    b"\x1b[2J",
    b"\xff\xfe",
    b"\xe2\x80",
    b"-rf",
    b"con:",
];

#[test]
fn names_of_any_bytes() {
    let mut good = 0_u64;
    cases(MILLION, |random, bytes| {
        wreck(random, bytes, NAMES);
        let prefix = if random.one_in(2) { "" } else { "folder/" };
        match within(1 << 10, || name_rule(bytes, prefix)) {
            Ok(name) => {
                assert!(name.as_bytes() == bytes && !name.chars().any(char::is_control));
                assert!(prefix.len() + name.len() <= 512);
                good += 1;
            }
            Err(reason) => assert!(reason.len() < 100),
        }
    });
    assert!(good > 0);
}

fn some_name(random: &mut Random, bytes: &mut Vec<u8>) {
    bytes.clear();
    wreck(random, bytes, NAMES);
    bytes.retain(|byte| *byte != 0 && *byte != b'/');
    bytes.truncate(255);
}

/// One entry, of a kind that takes no root to make.
fn entry(random: &mut Random, at: &Path) -> std::io::Result<()> {
    match random.below(9) {
        0 => symlink("../../secret", at),
        1 => symlink("/etc", at),
        2 => nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).map_err(Into::into),
        3 => fs::hard_link(at.with_file_name("0"), at),
        4 | 5 => fs::create_dir(at),
        6 => fs::File::create_new(at)?.set_len(1 << (random.below(44))),
        // Only a new one: a name that comes twice may be a FIFO, which waits, or a link.
        _ => std::io::Write::write_all(&mut fs::File::create_new(at)?, &b"own bytes"[..random.below(10)]),
    }
}

#[test]
fn trees_of_any_shape() {
    const ENTRIES: u64 = 50;
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (above, target) = (root.path().join("work"), root.path().join("copies"));
    fs::create_dir(&above).unwrap();
    fs::write(root.path().join("secret"), b"of the host").unwrap();
    let source = above.join("artifacts");
    let rules = ArtifactRules {
        uid: rustix::process::getuid().as_raw(),
        bytes_max: 4096,
        files_max: 12,
        time_max: Duration::from_secs(600),
    };
    let (mut taken, mut refused, mut entries) = (0, 0, 0);
    cases(20_000, |random, bytes| {
        // A tree for every fifty cases, each of which is one entry of it.
        entries += 1;
        if entries % ENTRIES != 0 {
            return;
        }
        fs::create_dir(&source).unwrap();
        let mut folders = vec![source.clone()];
        for _ in 0..ENTRIES {
            some_name(random, bytes);
            let folder = &folders[random.below(folders.len())];
            let path = folder.join(OsStr::from_bytes(bytes));
            // A name that is taken, empty, or too long makes no entry; a path that ends in a folder is no new one.
            if path.parent() != Some(folder.as_path()) || entry(random, &path).is_err() {
                continue;
            }
            if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                folders.push(path);
            }
        }
        let out = within(64 << 20, || collect(&source, &target, rules)).unwrap();
        assert!(out.artifacts.len() <= 12 && out.bytes <= 4096);
        assert_eq!(out.bytes, out.artifacts.iter().map(|artifact| artifact.size_bytes).sum::<u64>());
        for artifact in &out.artifacts {
            let digest: Digest = artifact.digest.parse().unwrap();
            let copy = fs::read(copy_path(&target, &digest)).unwrap();
            assert!(Digest::of(&copy) == digest && copy.len() as u64 == artifact.size_bytes);
            // The program's own bytes, or the zeros of a file that it only stretched.
            assert!(b"own bytes".starts_with(&copy) || copy.iter().all(|byte| *byte == 0), "{copy:?}");
            assert!(
                !artifact.name.chars().any(char::is_control) && !artifact.name.split('/').any(|p| p == "..")
            );
        }
        let names = out.left_out.iter().map(|left_out| &left_out.name);
        assert!(names.into_iter().all(|name| !name.chars().any(char::is_control)));
        let copies = fs::read_dir(&target).unwrap().count();
        assert!(copies <= out.artifacts.len(), "nothing but what is listed was copied");
        taken += out.artifacts.len();
        refused += out.left_out.len();
        fs::remove_dir_all(&source).unwrap();
        fs::remove_dir_all(&target).unwrap();
    });
    assert!(taken > 0 && refused > 0);
}
