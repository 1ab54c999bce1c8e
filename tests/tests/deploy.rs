//! What `deploy/` promises, with the engine and the compose of this machine: one command from a clone to a report, going
//! on after a kill, nothing left. The programs are those that cargo built for the tests, so no test compiles.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use e2e::{Home, home::binary, wait_for};

/// Image layers, the containers' start and a campaign of six runs, on a machine that others use too.
const CAMPAIGN: Duration = Duration::from_secs(900);
const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A command's output, or a failure that names the command.
fn done(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("this test needs the command `{name}`: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}:\n{}", output.status, words(&output));
    output
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A clone's `deploy/` under a project and image names of its own; its containers, network and images go when this is
/// dropped.
struct Deployment {
    name: String,
    folder: PathBuf,
    home: Home,
}

impl Deployment {
    fn new() -> Self {
        // Its folder lies on a shared mount, as on every machine that systemd started.
        let home = Home::of_a_plain_user();
        let clone = home.path().join("clone");
        fs::create_dir(&clone).expect("a folder for the clone");
        done(Command::new("cp").arg("-r").arg(repository().join("deploy")).arg(&clone));
        done(Command::new("cp").arg(repository().join(".dockerignore")).arg(&clone));
        let folder = clone.join("deploy");
        // Of whoever used the sources' own.
        for made in [".env", "docker-compose.host.yml"] {
            fs::remove_file(folder.join(made)).ok();
        }
        Self { name: format!("artest{}", std::process::id()), folder, home }
    }

    fn dress<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        self.home.dress(command);
        command
            .current_dir(&self.folder)
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("AUTORESEARCH_TAG", &self.name)
            .env("AUTORESEARCH_STATE", self.home.data_dir())
            .env("AUTORESEARCH_UID", self.home.owner().expect("a plain user's").to_string())
            .env("AUTORESEARCH_SEEDS", "3")
            .env("AUTORESEARCH_MAX_ITERATIONS", "1")
    }

    fn up(&self, arguments: &[&str]) -> Output {
        let programs = binary("autoresearch-worker");
        let mut command = Command::new(self.folder.join("up"));
        self.dress(&mut command).args(arguments);
        done(command.env("AUTORESEARCH_BINARIES", programs.parent().expect("a folder")))
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        done(self.dress(&mut Command::new("docker-compose")).args(arguments))
    }

    /// The campaigns that the controller has, newest first.
    fn campaigns(&self) -> Vec<serde_json::Value> {
        let listed = self.compose(&["run", "--rm", "-T", "controller", "list", "--output", "json"]);
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
    }

    /// What became of a campaign, for a failure's text.
    fn story(&self, campaign: &serde_json::Value) -> String {
        let id = campaign["id"].as_str().unwrap_or_default();
        let shown =
            words(&self.compose(&["run", "--rm", "-T", "controller", "show", id, "--output", "json"]));
        format!("{campaign}\n{shown}\n{}", words(&self.compose(&["logs", "--tail", "60"])))
    }

    /// What is in a sandbox's folder, what is mounted there, and what the worker says of it.
    fn inside(&self, sandbox: &Path) -> String {
        let files = words(&done(Command::new("find").arg(sandbox).arg("-ls")));
        let id = sandbox.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let mounts: Vec<&str> = mounts.lines().filter(|line| line.contains(&id)).collect();
        format!("{files}\n{mounts:?}\n{}", words(&self.compose(&["logs", "--tail", "40", "worker"])))
    }

    fn reports(&self) -> Vec<PathBuf> {
        let campaigns = fs::read_dir(self.home.data_dir().join("campaigns")).into_iter().flatten().flatten();
        campaigns.map(|entry| entry.path().join("report.html")).filter(|path| path.exists()).collect()
    }

    /// Containers and networks of the project.
    fn left(&self) -> String {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let containers = done(Command::new("docker").args(["ps", "-aq", "--filter", &label]));
        let networks = done(Command::new("docker").args(["network", "ls", "-q", "--filter", &label]));
        words(&containers) + &words(&networks)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let mut down = Command::new("docker-compose");
        self.dress(&mut down).arg("down").output().ok();
        for program in ["autoresearch-worker", "autoresearch-controller"] {
            Command::new("docker").args(["rmi", &format!("{program}:{}", self.name)]).output().ok();
        }
    }
}

#[test]
fn one_command_runs_a_campaign_and_after_a_kill_it_goes_on() {
    let deployment = Deployment::new();
    let first = words(&deployment.up(&[]));
    let reports = deployment.reports();
    assert_eq!(reports.len(), 1, "{first}");
    assert!(first.contains(&reports[0].display().to_string()), "the report's path is said:\n{first}");
    let owner = fs::metadata(&reports[0]).expect("the report").uid();
    assert_eq!(Some(owner), deployment.home.owner(), "it belongs to the user that was named");
    assert!(fs::read_to_string(&reports[0]).expect("the report").contains(QUESTION));

    entry_refuses_root(&deployment);
    unprivileged(&deployment);

    // Now with plain compose, as `up` has left what it found in `.env`.
    deployment.compose(&["up", "--detach"]);
    let runs = deployment.home.data_dir().join("worker/sandboxes");
    wait_for("a run of the second campaign", CAMPAIGN, || {
        let any = fs::read_dir(&runs).is_ok_and(|mut entries| entries.next().is_some());
        if any { Ok(()) } else { Err(words(&deployment.compose(&["logs", "--tail", "5"]))) }
    });
    deployment.compose(&["kill"]);
    let campaigns_before = folders(&deployment);
    assert_eq!((campaigns_before.len(), deployment.reports().len()), (2, 1), "killed before its report");
    deployment.compose(&["up", "--detach"]);
    wait_for("the second campaign's report", CAMPAIGN, || match deployment.reports().len() {
        2 => Ok(()),
        _ => Err(words(&deployment.compose(&["logs", "--tail", "20"]))),
    });
    assert_eq!(folders(&deployment), campaigns_before, "it went on with the one that was killed");
    let campaigns = deployment.campaigns();
    let states: Vec<&str> = campaigns.iter().filter_map(|campaign| campaign["state"].as_str()).collect();
    assert_eq!(states, ["finished", "finished"], "{}", deployment.story(&campaigns[0]));

    // While the worker is there it leaves nothing of runs; after it nobody could.
    wait_for("the sandboxes to go", Duration::from_secs(120), || {
        let sandboxes: Vec<_> =
            fs::read_dir(&runs).into_iter().flatten().flatten().map(|e| e.path()).collect();
        if sandboxes.is_empty() {
            Ok(())
        } else {
            Err(format!("{sandboxes:?}\n{}", deployment.inside(&sandboxes[0])))
        }
    });
    deployment.compose(&["down"]);
    assert_eq!(deployment.left(), "");
    deployment.home.assert_nothing_left(Duration::from_secs(60));
}

fn folders(deployment: &Deployment) -> Vec<PathBuf> {
    let campaigns = fs::read_dir(deployment.home.data_dir().join("campaigns")).expect("campaigns").flatten();
    let mut folders: Vec<_> = campaigns.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

fn entry_refuses_root(deployment: &Deployment) {
    let image = format!("autoresearch-worker:{}", deployment.name);
    let refused = Command::new("docker")
        .args(["run", "--rm", "--network", "none", "-e", "STATE=/tmp", "-e", "OWNER=0", &image])
        .output()
        .expect("docker");
    assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
    assert!(words(&refused).contains("OWNER"), "{}", words(&refused));
}

/// What the kernel says of the worker that serves, not what the file asks for.
fn unprivileged(deployment: &Deployment) {
    deployment.compose(&["up", "--detach", "worker"]);
    let shown = deployment.home.data_dir().display().to_string();
    let status = wait_for("the worker's process", Duration::from_secs(60), || {
        let processes = e2e::leftovers::processes(deployment.home.data_dir().as_path());
        let worker = processes.iter().find(|(_, command)| command.starts_with("autoresearch-worker"));
        let worker = worker.ok_or_else(|| format!("none names {shown}: {processes:?}"))?;
        fs::read_to_string(format!("/proc/{}/status", worker.0)).map_err(|error| error.to_string())
    });
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(value("Uid:"), deployment.home.owner().expect("an owner").to_string(), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}\n{status}");
    }
    assert_eq!(value("NoNewPrivs:"), "1");
}

#[test]
fn the_gpu_overlay_and_the_defaults_are_files_that_compose_takes() {
    // In a folder of its own: somebody's `.env` has no part in this.
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["docker-compose.yml", "docker-compose.gpu.yml"] {
        fs::copy(repository().join("deploy").join(file), folder.path().join(file)).expect("a copy");
    }
    let mut command = Command::new("docker-compose");
    command.current_dir(&folder);
    command.args(["-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml", "config"]);
    let shown = words(&done(&mut command));
    for said in ["driver: nvidia", "NVIDIA_DRIVER_CAPABILITIES: utility", QUESTION, "/var/lib/autoresearch"] {
        assert!(shown.contains(said), "`{said}`:\n{shown}");
    }
}

#[test]
fn the_units_are_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    let worker = binary("autoresearch-worker").display().to_string();
    let units = repository().join("deploy/systemd");
    let verify = |source: &str, name: &str, more: &[&str]| {
        let text = fs::read_to_string(units.join(source)).expect("a unit");
        for line in ["KillMode=process", "Delegate=yes", "Restart=on-failure"] {
            assert!(text.lines().any(|l| l == line), "{source} has no {line}");
        }
        let text = text.replace("/usr/local/bin/autoresearch-worker", &worker);
        let text = text.replace("%h/.local/bin/autoresearch-worker", &worker);
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a unit");
        let mut command = Command::new("systemd-analyze");
        command.env("XDG_RUNTIME_DIR", folder.path()).args(more).arg("verify").arg(&path);
        let said = words(&done(&mut command));
        // The one key that systemd knows since version 254 only.
        let about = |line: &&str| line.contains(&format!("{name}:")) || line.contains("native.conf:");
        let faults: Vec<&str> =
            said.lines().filter(about).filter(|line| !line.contains("DelegateSubgroup")).collect();
        assert!(faults.is_empty(), "{said}");
    };
    verify("autoresearch-worker.user.service", "autoresearch-worker.service", &["--user"]);
    verify("autoresearch-worker.service", "autoresearch-worker.service", &[]);
    let drop_ins = folder.path().join("autoresearch-worker.service.d");
    fs::create_dir(&drop_ins).expect("a folder");
    fs::copy(units.join("autoresearch-worker-native.conf"), drop_ins.join("native.conf")).expect("a drop-in");
    verify("autoresearch-worker.service", "autoresearch-worker.service", &[]);
    let native = fs::read_to_string(drop_ins.join("native.conf")).expect("a drop-in");
    // Without the first no restart beside sandboxes that run; without the second no loop device.
    for line in ["DelegateSubgroup=worker", "DeviceAllow="] {
        assert!(native.lines().any(|l| l == line), "native.conf has no {line}");
    }
}
