//! The help text of the real binary, as it is committed. `UPDATE_GOLDEN=1 cargo test -p worker --test cli` writes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::{path::Path, process::Command};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_autoresearch-worker"))
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_is_as_committed() {
    let mut all = String::new();
    let commands = [
        &["--help"][..],
        &["serve", "--help"],
        &["init", "--help"],
        &["connect", "--help"],
        &["controllers", "--help"],
        &["controllers", "list", "--help"],
        &["controllers", "revoke", "--help"],
        &["doctor", "--help"],
        &["image", "--help"],
        &["image", "build", "--help"],
        &["image", "list", "--help"],
        &["image", "add", "--help"],
        &["image", "prune", "--help"],
        &["dataset", "--help"],
        &["dataset", "add", "--help"],
    ];
    for arguments in commands {
        let (code, out, err) = run(arguments);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        all.push_str(&format!("$ autoresearch-worker {}\n{out}\n", arguments.join(" ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    assert_eq!(
        all,
        std::fs::read_to_string(&path).unwrap(),
        "the help has changed: see the head of this file"
    );
}

#[test]
fn bad_usage_is_2_and_names_what_is_wrong() {
    for (arguments, word) in [
        (&["serve", "--listen", "0.0.0.0:1"][..], "0.0.0.0:1"),
        (&["serve", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["serve", "--lisen"], "--lisen"),
        (&["fly"], "fly"),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(word), "{err}");
    }
}
