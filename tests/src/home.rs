//! A home of its own for one test.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::{
    leftovers,
    plain::{self, PlainUser},
    wait_for,
};

/// Variables of the machine that a test's commands keep: how to reach the engine and the registries.
const KEPT: [&str; 3] = ["PATH", "LANG", "USER"];
const KEPT_PREFIXES: [&str; 7] = ["DOCKER_", "PIP_", "SSL_", "REQUESTS_", "CURL_", "HTTP", "NO_PROXY"];

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The one object that was printed.
    ///
    /// # Panics
    /// Where it is not one object on one line.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.trim_end().lines().count(), 1, "one line is wanted: {self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Fails the test unless it ended with this code.
    ///
    /// # Panics
    /// With everything that it printed.
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// The real binary that `cargo test --workspace` built.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let binary = folder.join(name);
    assert!(binary.exists(), "{} is not built: run `cargo test --workspace`", binary.display());
    binary
}

/// A data folder, a home and an environment that no other test has. Dropping it ends its worker and fails the test where
/// something is left.
#[derive(Debug)]
pub struct Home {
    /// Who its commands are run by, where that is not root. Before the folder: its mount goes first.
    plain: Option<PlainUser>,
    folder: tempfile::TempDir,
    /// More variables for every command.
    pub environment: Vec<(String, String)>,
}

impl Home {
    /// Fresh.
    ///
    /// # Panics
    /// Where the temporary folder cannot be made, or Docker is missing: these tests are nothing without it.
    #[must_use]
    pub fn new() -> Self {
        leftovers::require_docker();
        Self::without_engine()
    }

    /// Fresh, for tests that need no engine.
    ///
    /// # Panics
    /// Where the temporary folder cannot be made.
    #[must_use]
    pub fn without_engine() -> Self {
        let folder = tempfile::Builder::new().prefix("ar-test-").tempdir().expect("a temporary folder");
        Self { folder, environment: Vec::new(), plain: None }
    }

    /// Fresh, of a plain user in the engine's group: every command is run by them. It lies on a shared mount, as systemd
    /// makes all of them.
    ///
    /// # Panics
    /// Where this is not root, or the engine's socket is root's alone.
    #[must_use]
    pub fn of_a_plain_user() -> Self {
        let mut home = Self::new();
        home.plain = Some(PlainUser::move_in(home.path()));
        home
    }

    /// Whose files they are, where it is a plain user's home.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.plain.as_ref().map(|_| plain::UID)
    }

    /// The test's own folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where its commands keep their data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Writes a file into the test's folder.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a test's file");
        path
    }

    /// A command in this home, not started.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = match &self.plain {
            Some(user) => user.command(),
            None => Command::new(binary("autoresearch")),
        };
        command.args(arguments);
        self.dress(&mut command);
        command
    }

    /// Gives any command this home's environment.
    pub fn dress(&self, command: &mut Command) {
        command.env_clear().current_dir(self.path());
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy().to_uppercase();
            if KEPT.contains(&text.as_str()) || KEPT_PREFIXES.iter().any(|p| text.starts_with(p)) {
                command.env(&name, &value);
            }
        }
        // Images and their locks are the user's, not the test's: they are built once.
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        command
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", self.path().join("xdg-data"))
            .env("XDG_CONFIG_HOME", self.path().join("xdg-config"))
            .env("XDG_CACHE_HOME", cache.unwrap_or_else(|| self.path().join("cache")))
            .env("AUTORESEARCH_DATA_DIR", self.data_dir())
            .env("RUST_BACKTRACE", "1");
        if self.plain.is_some() {
            command.env("XDG_CACHE_HOME", self.path().join("cache")).env("XDG_RUNTIME_DIR", self.path());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        Ran::of(self.command(arguments).stdin(Stdio::null()).output().expect("the binary starts"))
    }

    /// Runs a command with bytes on its standard input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Ran {
        let mut child = self.spawn_piped(arguments, Stdio::piped());
        if let Some(mut stdin) = child.stdin.take() {
            // A command that has seen enough closes the pipe.
            stdin.write_all(input).ok();
        }
        Ran::of(child.wait_with_output().expect("the command ends"))
    }

    /// Starts a command whose output is kept for [`Home::finish`].
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spawn<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Child {
        self.spawn_piped(arguments, Stdio::null())
    }

    fn spawn_piped<S: AsRef<OsStr>>(&self, arguments: &[S], stdin: Stdio) -> Child {
        let mut command = self.command(arguments);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary starts")
    }

    /// Waits for a command that was started, at most so long.
    ///
    /// # Panics
    /// Where it does not end in time; it is killed then.
    #[must_use]
    pub fn finish(&self, mut child: Child, longest: Duration) -> Ran {
        wait_for("a command's end", longest, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ran::of(child.wait_with_output().expect("the command ended"))
    }

    /// `exec` of a program on the small image, as JSON.
    ///
    /// # Panics
    /// Where the output is not one object.
    #[must_use]
    pub fn exec(&self, source: &str, flags: &[&str]) -> (i32, serde_json::Value) {
        let program = self.file("program.py", source);
        let mut arguments =
            vec!["exec", program.to_str().expect("UTF-8"), "--image", "lite", "--output", "json"];
        arguments.extend(flags);
        let ran = self.run(&arguments);
        (ran.code, ran.json())
    }

    /// The newest campaign as `show` tells it, those of `exec` included; what is missing where there is none yet.
    ///
    /// # Errors
    /// What is not there yet, for whoever waits for it.
    pub fn newest(&self) -> Result<serde_json::Value, String> {
        if !self.data_dir().join("journal.db").exists() {
            return Err("no journal yet".to_owned());
        }
        let listed = self.run(&["list", "--all", "--output", "json"]);
        let line = listed.stdout.lines().next().ok_or("no campaign yet")?;
        let campaign: serde_json::Value =
            serde_json::from_str(line).map_err(|e| format!("{e}: {listed:?}"))?;
        let id = campaign["id"].as_str().ok_or("no id")?;
        Ok(self.run(&["show", id, "--output", "json"]).json())
    }

    /// Waits until nothing of this home is on the machine any more.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_nothing_left(&self, longest: Duration) {
        wait_for("nothing of ours is left", longest, || {
            let left = leftovers::of(&self.data_dir());
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        });
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            leftovers::remove(&self.data_dir());
            return;
        }
        // A busy machine removes what a cancelled run left in seconds, and an engine may take many.
        self.assert_nothing_left(Duration::from_secs(60));
    }
}
