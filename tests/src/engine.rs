//! A Docker engine of its own for one test: the machine's is everybody's and must not be killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::wait_for;

const ANSWERS: Duration = Duration::from_secs(60);

/// `dockerd` with a root, a socket and a containerd of its own, without a network. It and all that it runs end with this.
#[derive(Debug)]
pub struct Engine {
    folder: PathBuf,
    process: Child,
}

impl Engine {
    /// Starts one in this folder.
    ///
    /// # Panics
    /// Where `dockerd` is missing or does not answer.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("the engine's folder");
        let engine = Self { folder: folder.to_owned(), process: spawn(folder) };
        engine.until_it_answers();
        engine
    }

    /// `unix:///…`
    #[must_use]
    pub fn host(&self) -> String {
        host(&self.folder)
    }

    /// An image of the machine's engine in this one.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn take_image(&self, reference: &str) {
        let mut save =
            Command::new("docker").args(["save", reference]).stdout(Stdio::piped()).spawn().expect("docker");
        let from = save.stdout.take().expect("a pipe");
        let loaded = self.docker(&["load"]).stdin(from).output().expect("docker");
        assert!(save.wait().expect("docker save").success() && loaded.status.success(), "{loaded:?}");
    }

    /// A command of Docker's own client on this engine.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(arguments);
        command
    }

    /// SIGKILL to the engine and its containerd, as the kernel would do it; what they run goes on.
    pub fn kill(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        kill_all(&self.folder.join("exec/containerd/containerd.toml").display().to_string());
    }

    /// Starts it again after [`Engine::kill`].
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn start_again(&mut self) {
        for stale in ["pid", "exec/containerd/containerd.pid"] {
            fs::remove_file(self.folder.join(stale)).ok();
        }
        self.process = spawn(&self.folder);
        self.until_it_answers();
    }

    fn until_it_answers(&self) {
        wait_for("an engine's answer", ANSWERS, || {
            let asked = self.docker(&["version"]).output().map_err(|e| e.to_string())?;
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            if asked.status.success() {
                Ok(())
            } else {
                Err(format!("{asked:?}; the log ends with {last:#?}"))
            }
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = self.docker(&["ps", "-aq"]).output();
        let all = all.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        for id in all.split_whitespace() {
            self.docker(&["rm", "--force", id]).output().ok();
        }
        self.kill();
        // Shims name the folder of their engine; what they run has it among its mounts.
        kill_inside(&self.folder);
        kill_all(&self.folder.display().to_string());
        let shown = self.folder.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in
            mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.contains(&shown))
        {
            Command::new("umount").args(["-l", point]).output().ok();
        }
    }
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

fn spawn(folder: &Path) -> Child {
    let log =
        fs::File::options().create(true).append(true).open(folder.join("log")).expect("the engine's log");
    let settings = folder.join("daemon.json");
    fs::write(&settings, "{}").expect("the engine's settings");
    let mut command = Command::new("dockerd");
    command.arg("--config-file").arg(settings).arg("--host").arg(host(folder));
    for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        command.arg(flag).arg(folder.join(name));
    }
    command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false"]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("these tests need dockerd, and it does not start")
}

fn kill_inside(folder: &Path) {
    let shown = folder.parent().unwrap_or(folder).display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if command.starts_with(b"/sandbox-init") && mounts.contains(&shown) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

fn kill_all(named: &str) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() as i32 && String::from_utf8_lossy(&command).contains(named) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}
