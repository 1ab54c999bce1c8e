//! The help text of the real binary, as it is committed. `UPDATE_GOLDEN=1 cargo test -p controller --test help` writes it.

use std::{path::Path, process::Command};

#[test]
fn help_is_as_committed() {
    let mut all = String::new();
    for command in [
        "",
        "run",
        "exec",
        "list",
        "show",
        "logs",
        "report",
        "worker",
        "worker add",
        "worker invite",
        "worker list",
        "worker show",
        "worker drain",
        "worker revoke",
        "worker remove",
        "doctor",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = Command::new(env!("CARGO_BIN_EXE_autoresearch"))
            .args(&arguments)
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty());
        let text = String::from_utf8(output.stdout).unwrap();
        all.push_str(&format!("$ autoresearch {}\n{text}\n", arguments.join(" ")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(all, committed, "the help has changed: see the head of this file");
}
