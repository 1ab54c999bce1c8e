//! A wall clock that a test sets, for one program: a library of ours (`tests/preload/clock.rs`) is loaded into it before
//! libc. A time namespace would not do: it moves the monotonic clocks, which a wrong wall clock leaves alone.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/preload/clock.rs");

static LIBRARY: OnceLock<PathBuf> = OnceLock::new();

/// The clock of the programs that were started with [`Clock::environment`].
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Right, until it is set.
    ///
    /// # Panics
    /// Where the library cannot be compiled.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        fs::write(&file, [0; 16]).expect("the clock's file");
        Self { file }
    }

    /// For a program that shall have this clock.
    ///
    /// # Panics
    /// Where the library cannot be compiled.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let library = LIBRARY.get_or_init(compile).display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), library),
            ("TEST_WALL_CLOCK".to_owned(), self.file.display().to_string()),
        ]
    }

    /// From now on it is off by so many seconds.
    ///
    /// # Panics
    /// Where its file is gone.
    pub fn set_off_by(&self, seconds: i64) {
        let file = fs::File::options().write(true).open(&self.file).expect("the clock's file");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("a write");
    }

    /// How often the programs were told a time that was off.
    ///
    /// # Panics
    /// Where its file is gone.
    #[must_use]
    pub fn told(&self) -> i64 {
        let bytes = fs::read(&self.file).expect("the clock's file");
        bytes.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, i64::from_ne_bytes)
    }
}

/// Beside this test's own binary, whole or not at all: test binaries run at the same time.
fn compile() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().expect("target/PROFILE/deps");
    let beside =
        tempfile::Builder::new().prefix("clock-").tempdir_in(folder).expect("a folder to compile in");
    let (made, library) = (beside.path().join("clock.so"), folder.join("autoresearch-test-clock.so"));
    let mut command = Command::new("rustc");
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-C", "panic=abort", "-o"]);
    let output = command.arg(&made).arg(Path::new(SOURCE)).output().expect("these tests need rustc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&made, &library).expect("the library");
    library
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(command: &mut Command) -> i64 {
        let output = command.output().expect("date");
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds")
    }

    #[test]
    fn a_program_is_told_what_a_test_sets_and_nobody_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::new(folder.path().join("clock"));
        let date =
            |environment: Vec<(String, String)>| seconds(Command::new("date").arg("+%s").envs(environment));
        assert!((date(clock.environment()) - date(Vec::new())).abs() < 60);
        assert_eq!(clock.told(), 0);
        clock.set_off_by(-3600);
        assert!((date(clock.environment()) + 3600 - date(Vec::new())).abs() < 60);
        assert!(clock.told() > 0);
    }
}
