//! The main job where Docker is stopped, and as a plain user in the engine's group: both give the report that root with
//! Docker gets.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use e2e::{Home, Ran, home::binary};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// One experiment that confirms nothing is enough: what differs between the ways is where the programs run.
const SMALL: [&str; 6] = ["run", QUESTION, "--max-iterations", "1", "--seeds", "3"];
const ENGINE: &str = "/var/run/docker.sock";
/// Nobody's.
const UID: u32 = 12_346;
const LONGEST: Duration = Duration::from_secs(900);

/// What a report registers, which does not depend on where it ran.
#[track_caller]
fn registered(report: &Value) -> Value {
    let experiments = report["experiments"].as_array().expect("experiments");
    assert!(!experiments.is_empty(), "{report:#}");
    let of = |experiment: &Value| {
        // Not what came out: each campaign draws its own seeds.
        let keep = ["title", "kind", "role", "metric", "reduce", "method"];
        let variants = experiment["variants"].as_array().expect("variants").iter();
        let mut kept: serde_json::Map<String, Value> =
            keep.iter().map(|key| ((*key).to_owned(), experiment[*key].clone())).collect();
        let variants = variants.map(|v| json!([v["id"], v["label"], v["params"]]));
        kept.insert("variants".to_owned(), variants.collect());
        let looks = experiment["looks"].as_array().expect("looks").iter();
        kept.insert("looks".to_owned(), looks.map(|look| json!([look["seeds"], look["error"]])).collect());
        Value::Object(kept)
    };
    experiments.iter().map(of).collect()
}

/// `report.json` beside the page that the last line names.
#[track_caller]
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    let path = Path::new(ran.stdout.trim_end().lines().last().expect("a path")).with_extension("json");
    let report: Value = serde_json::from_slice(&fs::read(path).expect("report.json")).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert!(!runs.is_empty() && runs.iter().all(|run| run["outcome"] == "succeeded"), "{report:#}");
    report
}

#[track_caller]
fn sandbox(report: &Value) -> String {
    let facts = report["environment"].as_array().expect("an environment");
    let fact =
        facts.iter().find(|fact| fact["name"].as_str().is_some_and(|name| name.starts_with("sandbox of")));
    fact.and_then(|fact| fact["value"].as_str()).expect("the report says what held the programs").to_owned()
}

/// A home that belongs to a plain user and lies on a mount that is shared, as systemd makes all of them.
struct PlainHome {
    home: Home,
    program: PathBuf,
}

impl PlainHome {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
        let mut home = Home::new();
        let (folder, none) = (home.path().to_owned(), None::<&str>);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("the home's mode");
        mount(Some(&folder), &folder, none, MsFlags::MS_BIND, none).expect("a bind mount");
        mount(none, &folder, none, MsFlags::MS_SHARED, none).expect("a shared mount");
        let program = folder.join("autoresearch");
        fs::copy(binary("autoresearch"), &program).expect("a copy that others may run");
        chown(&folder, Some(UID), Some(UID)).expect("the home's owner");
        home.environment.push(("XDG_CACHE_HOME".to_owned(), folder.join("cache").display().to_string()));
        home.environment.push(("XDG_RUNTIME_DIR".to_owned(), folder.display().to_string()));
        Self { home, program }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let group = fs::metadata(ENGINE).expect("the engine's socket").gid();
        assert_ne!(group, 0, "{ENGINE} belongs to root's group: no plain user may use it");
        let (uid, group) = (UID.to_string(), group.to_string());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid, "--groups", &group])
            .arg(&self.program)
            .args(arguments);
        self.home.dress(&mut command);
        let out = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        self.home.finish(out.spawn().expect("setpriv"), LONGEST)
    }
}

impl Drop for PlainHome {
    fn drop(&mut self) {
        // The worker may still be on its way out.
        if umount2(self.home.path(), MntFlags::MNT_DETACH).is_err() && !std::thread::panicking() {
            panic!("{} is still mounted", self.home.path().display());
        }
    }
}

#[test]
fn the_main_job_gives_the_same_report_without_docker_and_as_a_plain_user() {
    let mut without = Home::new();
    let absent = without.path().join("absent.sock");
    without.environment.push(("DOCKER_HOST".to_owned(), format!("unix://{}", absent.display())));
    let child = without.spawn(&SMALL);
    let ran = without.finish(child, LONGEST);
    assert!(ran.stderr.contains("without Docker") && ran.stderr.contains("absent.sock"), "{ran:?}");
    let native = report(&ran);
    assert!(sandbox(&native).starts_with("native"), "{}", sandbox(&native));

    let plain = PlainHome::new();
    let docker = report(&plain.run(&SMALL));
    assert!(sandbox(&docker).starts_with("docker"), "{}", sandbox(&docker));
    let owner = fs::metadata(plain.home.data_dir().join("journal.db")).expect("the journal").uid();
    assert_eq!(owner, UID, "it was the plain user who did it");

    assert_eq!(registered(&native), registered(&docker));
    let keys =
        |report: &Value| -> Vec<String> { report.as_object().expect("a report").keys().cloned().collect() };
    assert_eq!(keys(&native), keys(&docker));
}
