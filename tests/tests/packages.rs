//! Packages over the real binaries, the real engine and the real index: wheels come into a run that has no network, what cannot
//! be had is told in the resolver's words, and what names a place or an option is refused before anything is done.

use std::{fs, path::PathBuf, time::Duration};

use e2e::{Home, wait_for};
use serde_json::Value;

#[track_caller]
fn expect(told: &(i32, Value), code: i32, outcome: &str) {
    assert_eq!((told.0, told.1["outcome"].as_str()), (code, Some(outcome)), "{:#}", told.1);
}

/// The resolver's words, which the model gets too.
#[track_caller]
fn conflict(home: &Home, packages: &[&str]) -> String {
    let flags: Vec<&str> = packages.iter().flat_map(|package| ["--package", package]).collect();
    let told = home.exec("print('never')", &flags);
    expect(&told, 1, "dependency_conflict");
    assert_eq!((&told.1["stdout"], &told.1["packages"]), (&Value::from(""), &Value::Array(vec![])));
    told.1["resolver"].as_str().unwrap_or_else(|| panic!("no words: {:#}", told.1)).to_owned()
}

const USES_EINOPS: &str = r#"
import autoresearch, einops, numpy, socket, sys
print(einops.__version__, einops.rearrange(numpy.zeros((2, 3)), "a b -> b a").shape, einops.__file__)
print(autoresearch.__file__, sys.path[-1])
try:
    open(einops.__file__, "a")
except OSError as error:
    print("cannot be written:", type(error).__name__)
try:
    socket.create_connection(("192.0.2.1", 443), timeout=2)
    print("a network!")
except OSError:
    print("no network")
"#;

fn files(home: &Home, folder: &str) -> Vec<(PathBuf, std::time::SystemTime)> {
    let folder = home.data_dir().join("worker/packages").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.flatten().map(|e| (e.path(), e.metadata().and_then(|m| m.created()).expect("a time"))).collect()
}

#[test]
fn a_package_is_there_without_a_network_and_comes_from_the_cache_the_second_time() {
    let home = Home::new();
    let told = home.exec(USES_EINOPS, &["--package", "einops==0.8.0"]);
    expect(&told, 0, "succeeded");
    let stdout = told.1["stdout"].as_str().expect("stdout");
    assert!(stdout.starts_with("0.8.0 (3, 2) /packages/einops/__init__.py\n"), "{stdout}");
    assert!(stdout.contains("/opt/autoresearch/lib/autoresearch/__init__.py /packages\n"), "{stdout}");
    assert!(stdout.contains("cannot be written") && stdout.contains("no network"), "{stdout}");
    assert_eq!(told.1["packages"], serde_json::json!([{ "name": "einops", "version": "0.8.0" }]));
    let (layers, requests) = (files(&home, "layers"), files(&home, "requests"));
    assert_eq!((layers.len(), requests.len(), files(&home, "work").len()), (1, 1, 0));

    // An index that does not answer is not missed: nobody asks it.
    let mut away = home;
    away.environment.push(("PIP_INDEX_URL".to_owned(), "http://127.0.0.1:9/simple".to_owned()));
    let again = away.exec(USES_EINOPS, &["--package", "einops==0.8.0"]);
    expect(&again, 0, "succeeded");
    assert_eq!(again.1["packages"], told.1["packages"]);
    assert_eq!((files(&away, "layers"), files(&away, "requests")), (layers, requests), "made anew");

    // And where one must be asked, that is no fault of the packages.
    let lost = away.exec("print(1)", &["--package", "einops==0.7.0"]);
    expect(&lost, 1, "lost");
    assert!(lost.1["message"].as_str().is_some_and(|m| m.contains("package index")), "{:#}", lost.1);
    assert_eq!(files(&away, "work").len(), 0);
}

#[test]
fn what_cannot_be_had_is_told_in_the_resolvers_words() {
    let home = Home::new();
    let words = conflict(&home, &["a-name-that-no-package-has-0815"]);
    assert!(words.contains("No package of the name a-name-that-no-package-has-0815"), "{words}");
    let words = conflict(&home, &["einops==0.0.99"]);
    assert!(words.contains("from versions:") && words.contains("0.8.0"), "{words}");
    // 0.6.2 came as source only.
    let words = conflict(&home, &["docopt==0.6.2"]);
    assert!(words.contains("not as a wheel") && words.contains("0.6.2"), "{words}");
    let words = conflict(&home, &["einops==0.8.0", "einops==0.7.0"]);
    assert!(words.contains("einops==0.8.0") && words.contains("einops==0.7.0"), "{words}");
    // The image's own packages stay.
    let words = conflict(&home, &["numpy==2.0.0"]);
    assert!(words.contains("(constraint) numpy==") && words.contains("not replaced"), "{words}");
    let same = home.exec("import numpy\nprint(numpy.__file__)", &["--package", "numpy"]);
    expect(&same, 0, "succeeded");
    assert!(!same.1["stdout"].as_str().is_some_and(|s| s.contains("/packages/")), "{:#}", same.1);
}

#[test]
fn places_and_options_are_refused_before_anything_is_done() {
    let home = Home::new();
    let program = home.file("program.py", "print(1)");
    let program = program.to_str().expect("a path");
    for wrong in
        ["../x", "-r x", "https://example.org/x-1-py3-none-any.whl", "x @ file:///etc", "--index-url=x"]
    {
        let ran = home.run(&["exec", program, "--image", "lite", "--package", wrong]);
        assert_eq!(ran.code, 2, "{wrong}: {ran:?}");
        assert!(ran.stderr.contains("--package") && ran.stderr.contains("is no requirement"), "{ran:?}");
    }
    assert!(!home.data_dir().join("worker/packages").exists(), "a worker was started for it");
}

#[test]
fn a_worker_that_is_killed_while_it_resolves_leaves_nothing() {
    let mut home = Home::new();
    home.environment.push(("PIP_INDEX_URL".to_owned(), "http://192.0.2.1:81/simple".to_owned()));
    let program = home.file("program.py", "print(1)");
    let program = program.to_str().expect("a path");
    let running = home.spawn(&["exec", program, "--image", "lite", "--package", "einops==0.8.0"]);
    let tool = wait_for("the resolver's container", Duration::from_secs(120), || {
        let found: Vec<String> = e2e::leftovers::of(&home.data_dir());
        found.into_iter().find(|what| what.contains("container")).ok_or_else(|| "none".to_owned())
    });
    let worker = e2e::leftovers::processes(&home.data_dir());
    for (pid, what) in &worker {
        let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL);
        killed.unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    home.finish(running, Duration::from_secs(300));
    home.environment.clear();
    expect(&home.exec("print(1)", &[]), 0, "succeeded");
    let left = e2e::leftovers::of(&home.data_dir());
    assert!(!left.contains(&tool), "{left:?}");
    assert_eq!(files(&home, "work").len(), 0);
}
