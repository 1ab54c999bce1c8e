//! The reader of the last of standard error: what it gives is bounded, harmless on a terminal, and read in a time that
//! grows with the text and not with its square.

use std::time::{Duration, Instant};

use worker::run::traceback::{TRACEBACK_BYTES_MAX, parse};

use crate::cases::{MILLION, cases, within, wreck};

const PIECES: &[&[u8]] = &[
    b"Traceback (most recent call last):\n",
    b"  File \"/work/main.py\", line 1, in <module>\n    x()\n",
    b"ValueError: bad\n",
    b"torch.OutOfMemoryError: CUDA out of memory.\n",
    b"SyntaxError: \xc3\xa9\n",
    b"    ^^^\n",
    b"KeyboardInterrupt\n",
    b"\x1b[2J\x1b]0;title\x07\xe2\x80\xae\n",
    b"\xff\xfe\xfd",
    b"\n",
];

#[test]
fn tracebacks_of_any_bytes() {
    let mut found = 0_u64;
    cases(MILLION, |random, bytes| {
        wreck(random, bytes, PIECES);
        // Three bytes for each that is not UTF-8, six for each that is escaped, a few copies of the 16 KiB that are kept.
        let exception = within((256 << 10) + 32 * bytes.len(), || parse(bytes));
        let Some(exception) = exception else { return };
        found += 1;
        assert!(exception.traceback.len() <= TRACEBACK_BYTES_MAX && exception.message.len() <= 2048);
        assert!(!exception.class.is_empty() && exception.class.len() <= 200);
        let harmless = |text: &str| text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t');
        assert!(harmless(&exception.traceback) && harmless(&exception.message) && harmless(&exception.class));
    });
    assert!(found > 0);
}

#[test]
fn the_worst_tails_take_no_time() {
    let tails = [
        "SyntaxError: x\n".repeat(4300),
        format!("{}{}x", "SyntaxError: x\n".repeat(2000), " ".repeat(34_000)),
        "Traceback (most recent call last):\n".repeat(1900),
        format!("Traceback (most recent call last):\n{}", "a.".repeat(32_000)),
        format!("Traceback (most recent call last):\nE: {}", "\u{1b}".repeat(64_000)),
    ];
    for tail in &tails {
        let begun = Instant::now();
        assert_eq!(parse(tail.as_bytes()), parse(tail.as_bytes()));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:.40}: {:?}", tail, begun.elapsed());
    }
}
