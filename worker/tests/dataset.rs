//! `dataset …` of the real binary: what it prints, how it ends, and that a kill at any moment leaves the store as it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autoresearch-worker"));
    command.args(["dataset"]).args(arguments).arg("--data-dir").arg(data);
    command.env("HOME", data).stdin(Stdio::null());
    command
}

fn run(data: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(data, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn everything(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            }
            all.insert(entry.path());
        }
    }
    all
}

#[test]
fn from_add_to_remove() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let file = root.path().join("table.csv");
    fs::write(&file, "1,2\n").unwrap();
    let (file, hex) = (file.to_str().unwrap(), kit::digest::Digest::of(b"1,2\n").hex());

    let (code, out, err) = run(&data, &["list", "--output", "json"]);
    assert_eq!(code, 0, "{err}");
    assert!(!data.exists(), "looking leaves nothing");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed["data_sets"], serde_json::json!([]));
    assert!(listed["catalogue"].as_array().unwrap().iter().any(|e| e["name"] == "wikitext-103-small"));

    let (code, _, err) = run(&data, &["add", "table", file, "--sha256", &"0".repeat(64)]);
    assert!(code == 1 && err.contains(&hex), "{err}");
    let arguments =
        ["add", "table", file, "--sha256", &hex, "--description", "Two\nnumbers.", "--output", "json"];
    let (code, out, err) = run(&data, &arguments);
    assert_eq!(code, 0, "{err}");
    let added: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&added["added"], &added["path"]), (&"added".into(), &"/data/table/table.csv".into()));
    assert_eq!(
        (&added["digest"], &added["description"]),
        (&format!("sha256:{hex}").into(), &"Two numbers.".into())
    );
    assert!(run(&data, &["list"]).1.contains("Two numbers."));
    assert!(run(&data, &["show", "table"]).1.contains(&hex));
    assert_eq!(run(&data, &["verify", "table"]).0, 0);
    assert!(run(&data, &["add", "table", file]).1.contains("already"));
    let other = root.path().join("other.csv");
    fs::write(&other, "3\n").unwrap();
    let (code, _, err) = run(&data, &["add", "table", other.to_str().unwrap()]);
    assert!(code == 1 && err.contains("--replace"), "{err}");
    assert_eq!(run(&data, &["add", "table", other.to_str().unwrap(), "--replace"]).0, 0);
    assert!(run(&data, &["remove", "table"]).1.contains("removed"));
    let (code, _, err) = run(&data, &["remove", "table"]);
    assert!(code == 1 && err.contains("no data set `table`"), "{err}");
    for (arguments, code, word) in [
        (&["add", "../x", file][..], 2, "../x"),
        (&["add", "x", file, "--sha256", "12"], 2, "64"),
        (&["add", "x"], 1, "mnist"),
        (&["add", "x", "gopher://a/b"], 1, "http"),
        (&["add", "x", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["add", "x", "/dev/zero"], 1, "device"),
        (&["show", "x"], 1, "none"),
    ] {
        let (ended, out, err) = run(&data, arguments);
        assert_eq!((ended, out.as_str()), (code, ""), "{arguments:?}: {err}");
        assert!(err.contains(word), "{arguments:?}: {err}");
    }
}

#[test]
fn the_bound_of_the_configuration_holds() {
    let root = tempfile::tempdir().unwrap();
    let (data, file) = (root.path().join("data"), root.path().join("big"));
    fs::write(&file, vec![0; 2000]).unwrap();
    let mut adding = command(&data, &["add", "big", file.to_str().unwrap()]);
    let output = adding.env("AUTORESEARCH_WORKER_DATASETS__LARGEST", "1KiB").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("datasets.largest"), "{said}");
}

/// Killed with everything of it at moments all over its way; after each the store is as it was, and the next command
/// leaves nothing of it.
#[test]
fn a_kill_at_any_moment_leaves_the_store_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let (data, given) = (root.path().join("data"), root.path().join("given"));
    fs::create_dir(&given).unwrap();
    for index in 0..40 {
        fs::write(given.join(index.to_string()), vec![index; 500_000]).unwrap();
    }
    let small = root.path().join("small");
    fs::write(&small, "kept").unwrap();
    assert_eq!(run(&data, &["add", "kept", small.to_str().unwrap()]).0, 0);
    let store = data.join("datasets");
    let before = everything(&store);

    let began = Instant::now();
    let mut whole = command(&data, &["add", "big", given.to_str().unwrap()]);
    assert!(whole.stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    let length = began.elapsed();
    assert_eq!(run(&data, &["remove", "big"]).0, 0);
    assert_eq!(everything(&store), before);

    let mut killed = 0;
    for part in 1..=12_u32 {
        let mut adding = command(&data, &["add", "big", given.to_str().unwrap()]);
        let mut adding = adding.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(length.mul_f64(f64::from(part) / 13.0));
        adding.kill().unwrap();
        // A tool that it started may write on for a moment into a folder that nobody names.
        if adding.wait().unwrap().success() {
            // It was faster than the measured one.
            assert_eq!(run(&data, &["remove", "big"]).0, 0);
            continue;
        }
        killed += 1;
        let (_, listed, _) = run(&data, &["list", "--output", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let names: Vec<&str> =
            listed["data_sets"].as_array().unwrap().iter().filter_map(|d| d["name"].as_str()).collect();
        // Whole, or not there at all.
        match names.as_slice() {
            ["kept"] => {}
            ["big", "kept"] => {
                assert_eq!(run(&data, &["verify", "big"]).0, 0);
                assert_eq!(run(&data, &["remove", "big"]).0, 0);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(run(&data, &["verify", "kept"]).0, 0);
    }
    assert!(killed > 0, "no addition was killed on its way");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        // The next change removes what was left.
        assert_eq!(run(&data, &["add", "kept", small.to_str().unwrap()]).0, 0);
        let now = everything(&store);
        if now.len() == before.len() && fs::read_dir(store.join("staging")).unwrap().count() == 0 {
            break;
        }
        assert!(Instant::now() < until, "{now:?}");
    }
}
