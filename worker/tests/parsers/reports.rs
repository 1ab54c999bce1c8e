//! What PID 1 reports, and what the kernel says of mounts whose names others chose. A longer log never says less than a
//! shorter one, wherever the engine cut it.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use worker::sandbox::{
    Reports,
    loops::mounts_in,
    report::{grow, read},
};

use crate::cases::{EVERY_DAY, cases, in_pieces, within, wreck};

const LINES: &[&[u8]] = &[
    b"{\"event\":\"ready\"}\n",
    b"{\"event\":\"started\"}\n",
    b"{\"event\":\"terminating\"}\n",
    b"{\"event\":\"ended\",\"exit\":137,\"elapsed_ms\":12}\n",
    b"{\"event\":\"ended\",\"signal\":9,\"elapsed_ms\":18446744073709551615}\n",
    b"{\"event\":\"killed\"}\n",
    b"{\"event\":\"failed\",\"step\":\"exec\\u001b[2J\",\"errno\":-2147483648}\n",
    b"{\"event\":\"unwanted\"}\n",
    b"noise\n",
    b"{\"event\":{\"event\":\"killed\"}}\n",
];

fn says_no_less(before: &Reports, after: &Reports) -> bool {
    (!before.ready || after.ready)
        && (!before.started || after.started)
        && (!before.terminating || after.terminating)
        && (!before.killed || after.killed)
        && (before.ended.is_none() || before.ended == after.ended)
}

#[test]
fn reports_of_any_bytes_cut_anywhere() {
    let mut ended = 0_u64;
    cases(EVERY_DAY, |random, bytes| {
        wreck(random, bytes, LINES);
        let log = within((16 << 10) + 8 * bytes.len(), || read(bytes));
        assert!(log.failure.len() < 4096 && !log.failure.chars().any(char::is_control));
        ended += u64::from(log.reports.ended.is_some());
        // As the follower reads it: from its beginning to wherever it goes now, again and again.
        let (mut known, mut till) = (Reports::default(), 0);
        in_pieces(random, bytes, |piece| {
            till += piece.len();
            let now = read(&bytes[..till]).reports;
            assert!(says_no_less(&known, &now), "{known:?} {now:?}");
            grow(&mut known, &now);
        });
        assert_eq!(known, log.reports);
        assert!(!grow(&mut known, &Reports::default()), "an empty log takes nothing back");
    });
    assert!(ended > 0);
}

const MOUNTS: &[&[u8]] = &[
    b"36 35 7:3 /work /a\\040b/c\\134d rw,nosuid,nodev master:1 - ext4 /dev/loop3 rw\n",
    b"1 2 0:1 / / ro - overlay overlay rw,lowerdir=/l\n",
    b"41 36 0:38 / /x\\377\\777\\04 rw shared:1 - fuse.a - rw\n",
    b"\\\\\\\\",
    b" - ",
    b" ",
];

#[test]
fn mounts_of_any_bytes() {
    let mut found = 0;
    cases(EVERY_DAY, |random, bytes| {
        wreck(random, bytes, MOUNTS);
        let mounts = within((16 << 10) + 32 * bytes.len(), || mounts_in(bytes));
        assert!(mounts.len() <= bytes.split(|byte| *byte == b'\n').count());
        assert!(mounts.iter().all(|mount| mount.target.as_os_str().len() <= bytes.len()));
        found += mounts.len();
        // A name that the kernel escaped comes back as it was, and its line hides no other.
        if random.one_in(4) {
            let name: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).take(60).collect();
            let mut line = b"36 35 7:3 / /".to_vec();
            for byte in &name {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => line.extend(format!("\\{byte:03o}").bytes()),
                    byte => line.push(*byte),
                }
            }
            line.extend(b" rw - ext4 /dev/loop3 rw\n1 2 0:1 / /last rw - tmpfs none rw\n");
            let mounts = mounts_in(&line);
            assert_eq!(mounts.len(), 2);
            assert_eq!(mounts[0].target.as_os_str(), OsStr::from_bytes(&[b"/", &name[..]].concat()));
        }
    });
    assert!(found > 0);
}
