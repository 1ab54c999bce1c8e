//! Bad input gets one clear line that names the field or the file, exit 2, and leaves nothing: no output, no data folder, no
//! campaign.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::{Home, Ran};

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";

/// One line that holds all of `words`, exit 2, nothing else.
#[track_caller]
fn refused(home: &Home, ran: &Ran, words: &[&str]) {
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert_eq!(ran.stderr.trim_end().lines().count(), 1, "one line is wanted: {ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is not named: {ran:?}");
    }
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("RUST_BACKTRACE"), "{ran:?}");
    assert!(!home.data_dir().exists(), "a data folder was made: {ran:?}");
}

fn run_with(home: &Home, flags: &[&str]) -> Ran {
    let mut arguments = vec!["run", QUESTION];
    arguments.extend(flags);
    home.run(&arguments)
}

#[test]
fn models_that_cannot_be_asked() {
    let home = Home::new();
    refused(&home, &run_with(&home, &["--llm", "nobody:model"]), &["--llm", "nobody:model", "anthropic:"]);
    refused(&home, &run_with(&home, &["--llm", "anthropic:"]), &["--llm", "anthropic:MODEL"]);
    refused(&home, &run_with(&home, &["--llm", "anthropic:claude-sonnet-5-5"]), &["ANTHROPIC_API_KEY"]);
    refused(&home, &run_with(&home, &["--llm", "openai:gpt-6.2-sol"]), &["OPENAI_API_KEY"]);
    refused(&home, &run_with(&home, &["--llm", "compatible:m"]), &["--llm-url"]);
    refused(&home, &run_with(&home, &["--llm", "ollama:m", "--llm-url", "not a url"]), &["--llm-url"]);
}

#[test]
fn a_cost_budget_for_a_model_without_a_known_price() {
    let mut home = Home::new();
    home.environment.push(("OPENAI_API_KEY".to_owned(), "sk-of-a-test".to_owned()));
    let flags = ["--llm", "openai:nobody-knows-this-one", "--cost-budget", "5"];
    let ran = run_with(&home, &flags);
    refused(&home, &ran, &["price"]);
    assert!(!ran.stderr.contains("sk-of-a-test"), "a key is never printed");
}

#[test]
fn budgets_and_counts_out_of_range() {
    let home = Home::new();
    let flags =
        ["--max-iterations", "--time-budget", "--gpu-budget", "--cost-budget", "--max-failures", "--seeds"];
    for flag in flags {
        for value in ["0", "-1", "NaN", "8x", ""] {
            let ran = run_with(&home, &[flag, value]);
            refused(&home, &ran, &[flag]);
            let ran = run_with(&home, &[&format!("{flag}={value}")]);
            refused(&home, &ran, &[flag]);
        }
    }
    refused(&home, &run_with(&home, &["--seeds", "2"]), &["--seeds", "3"]);
    refused(&home, &run_with(&home, &["--smallest-effect", "much"]), &["--smallest-effect", "much"]);
    refused(&home, &run_with(&home, &["--smallest-effect=-1pt"]), &["--smallest-effect"]);
}

#[test]
fn names_that_are_not_there() {
    let home = Home::new();
    refused(&home, &run_with(&home, &["--dataset", "not-there"]), &["--dataset", "not-there", "digits"]);
    refused(&home, &run_with(&home, &["--dataset", "../etc/passwd"]), &["--dataset"]);
    refused(&home, &run_with(&home, &["--image", "Not An Image"]), &["--image"]);
    refused(&home, &run_with(&home, &["--backend", "chroot"]), &["--backend"]);
    refused(&home, &run_with(&home, &["--colour", "red"]), &["--colour"]);
    refused(&home, &home.run(&["rnu", QUESTION]), &["rnu"]);
    refused(&home, &home.run(&["run"]), &["QUESTION"]);
}

#[test]
fn configuration_that_is_wrong_names_key_and_file() {
    let mut home = Home::new();
    let cases = [
        ("sedes = 5\n", "sedes"),
        ("time_budget = '8x'\n", "time_budget"),
        ("max_iterations = 0\n", "max_iterations"),
        ("seeds = 'many'\n", "seeds"),
        ("cost_budget = nan\n", "cost_budget"),
    ];
    for (text, key) in cases {
        let file = home.file("autoresearch.toml", text);
        refused(&home, &run_with(&home, &[]), &[key, "autoresearch.toml"]);
        fs::remove_file(file).expect("the file goes");
    }
    let file = home.file("autoresearch.toml", "this is = = no toml\n");
    refused(&home, &run_with(&home, &[]), &["autoresearch.toml"]);
    fs::remove_file(file).expect("the file goes");

    home.environment.push(("AUTORESEARCH_SEDES".to_owned(), "5".to_owned()));
    let ran = run_with(&home, &[]);
    refused(&home, &ran, &["sedes"]);
    assert!(ran.stderr.to_uppercase().contains("AUTORESEARCH_"), "it says where the key stands: {ran:?}");
    home.environment.pop();
    home.environment.push(("AUTORESEARCH_TIME_BUDGET".to_owned(), "8x".to_owned()));
    refused(&home, &run_with(&home, &[]), &["time_budget"]);
}

#[test]
fn programs_and_limits_of_exec() {
    let home = Home::new();
    let program = home.file("program.py", "print(1)\n");
    let program = program.to_str().expect("UTF-8");
    refused(&home, &home.run(&["exec", "missing.py"]), &["missing.py"]);
    let folder = home.path().to_str().expect("UTF-8").to_owned();
    refused(&home, &home.run(&["exec", &folder]), &[&folder]);
    let cases = [
        ("--memory", &["0", "-1", "NaN", "8x", "1QiB", ""][..]),
        ("--disk", &["0", "-1", "8x"]),
        ("--shm", &["0", "-1", "8x"]),
        ("--cpus", &["0", "-1", "NaN", "8x", "inf"]),
        ("--time-limit", &["0", "0s", "-1", "NaN", "8x"]),
        ("--pids", &["0", "-1", "1.5", "many"]),
        ("--seed", &["-1", "x", "1.5"]),
        ("--gpus", &["-1", "x"]),
        ("--params", &["{", "[1]", "3", "{\"lr\": NaN}", ""]),
        ("--image", &["Not An Image", "../x"]),
        ("--backend", &["chroot"]),
    ];
    for (flag, values) in cases {
        for value in values {
            refused(&home, &home.run(&["exec", program, flag, value]), &[flag]);
        }
    }
}

#[test]
fn limits_that_the_worker_refuses_are_told_by_the_flags_name() {
    let home = Home::new();
    let program = home.file("program.py", "print(1)\n");
    let program = program.to_str().expect("UTF-8");
    for (flag, value) in
        [("--memory", "900TiB"), ("--cpus", "4096"), ("--gpus", "9"), ("--image", "not-an-image")]
    {
        let ran = home.run(&["exec", program, flag, value]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{flag}: {ran:?}");
        assert!(ran.stderr.contains(flag), "{flag}: {ran:?}");
    }
}

#[test]
fn questions_that_are_none() {
    let home = Home::new();
    refused(&home, &home.run_with_input(&["run", "-"], &vec![b'a'; 1 << 20]), &["question", "16 KiB"]);
    refused(&home, &home.run_with_input(&["run", "-"], b"What \xff\xfe does"), &["question", "UTF-8"]);
    refused(&home, &home.run_with_input(&["run", "-"], b""), &["question"]);
    refused(&home, &home.run_with_input(&["run", "-"], b" \n\t\n"), &["question"]);
    refused(&home, &home.run(&["run", ""]), &["question"]);
    refused(&home, &home.run(&["run", &"a".repeat(20_000)]), &["question", "16384"]);
}

#[test]
fn a_question_outside_the_catalogue_ends_at_once_with_what_it_covers() {
    let home = Home::new();
    let since = Instant::now();
    let ran = home.run(&["run", "What is the meaning of life?"]);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    let said = ran.stderr.to_lowercase();
    for covered in [
        "batch norm",
        "layer norm",
        "learning rate",
        "optimi",
        "activation",
        "dropout",
        "weight decay",
        "depth",
        "width",
        "residual",
    ] {
        assert!(said.contains(covered), "`{covered}` is not in the list of what it covers: {ran:?}");
    }
    assert!(said.contains("--llm"), "it says how to name a model: {ran:?}");
    assert!(!home.data_dir().exists(), "nothing is started or made");
}

#[test]
fn no_docker_is_named_and_leaves_no_campaign() {
    let mut home = Home::new();
    home.environment.push(("DOCKER_HOST".to_owned(), "unix:///nowhere/docker.sock".to_owned()));
    no_engine(&home, "/nowhere/docker.sock");
}

#[track_caller]
fn no_engine(home: &Home, named: &str) {
    let program = home.file("program.py", "print(1)\n");
    let program = program.to_str().expect("UTF-8");
    // Without the flag sandboxes are made without Docker.
    for arguments in [["run", QUESTION, "--backend", "docker"], ["exec", program, "--backend", "docker"]] {
        let ran = home.run(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(ran.stderr.to_lowercase().contains("docker") && ran.stderr.contains(named), "{ran:?}");
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "one line is wanted: {ran:?}");
    }
    let listed = home.run(&["list", "--all", "--output", "json"]).expect(0);
    assert_eq!(listed.stdout, "", "no campaign is left");
}

#[test]
fn an_engine_that_answers_nonsense_is_named() {
    let mut home = Home::new();
    let socket = home.path().join("deaf.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // It takes connections and hangs up.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    home.environment.push(("DOCKER_HOST".to_owned(), format!("unix://{}", socket.display())));
    no_engine(&home, "deaf.sock");
}

/// A user that owns nothing and is in no group.
const NOBODY: u32 = 65_534;

/// The binary where any user may run it: a build folder is often below one that is private.
fn binary_for_everyone(home: &Home) -> PathBuf {
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("the test's own folder");
    let copy = home.path().join("autoresearch");
    fs::copy(e2e::home::binary("autoresearch"), &copy).expect("a copy of the binary");
    copy
}

#[test]
fn docker_without_permission_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can become another user
    }
    let mut home = Home::new();
    let socket = home.path().join("forbidden.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).expect("a socket that is root's alone");
    home.environment.push(("DOCKER_HOST".to_owned(), format!("unix://{}", socket.display())));
    let binary = binary_for_everyone(&home);
    let mut command = Command::new(binary);
    home.dress(&mut command);
    let output = command
        .args(["run", QUESTION])
        .env("XDG_CACHE_HOME", home.path().join("cache"))
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{said}");
    assert!(said.to_lowercase().contains("permission") && said.contains("forbidden.sock"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

/// A file system of its own, too small for anything.
struct Tiny(PathBuf);

impl Tiny {
    fn mount(at: &Path, bytes: u64) -> Self {
        fs::create_dir(at).expect("a folder");
        let size = format!("size={bytes}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        assert!(done.is_ok_and(|status| status.success()), "root can mount a tmpfs");
        Self(at.to_owned())
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_running() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can make a file system of its own
    }
    let home = Home::new();
    let program = home.file("program.py", "print(1)\n");
    let tiny = Tiny::mount(&home.path().join("tiny"), 256 << 10);
    let folder = tiny.0.join("data");
    let data_dir = folder.to_str().expect("UTF-8");
    for arguments in
        [vec!["run", QUESTION], vec!["exec", program.to_str().expect("UTF-8"), "--image", "lite"]]
    {
        let arguments = [arguments.as_slice(), &["--data-dir", data_dir]].concat();
        let ran = home.run(&arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        let said = ran.stderr.to_lowercase();
        let named = ["space", "full", "disk"].iter().any(|word| said.contains(word));
        assert!(
            named && ran.stderr.contains(data_dir),
            "the folder and what is wrong with it are named: {ran:?}"
        );
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{ran:?}");
    }
    e2e::wait_for("its worker is gone", Duration::from_secs(15), || {
        let left = e2e::leftovers::processes(&folder);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
