//! A plain user for one test: a uid that no account has, in the engine's group, with a home on a shared mount.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::home::binary;

/// Nobody's.
pub const UID: u32 = 12_346;
const ENGINE: &str = "/var/run/docker.sock";

/// What makes a home theirs; the mount goes when this is dropped.
#[derive(Debug)]
pub struct PlainUser {
    home: PathBuf,
    program: PathBuf,
}

impl PlainUser {
    pub fn move_in(home: &Path) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
        let none: Option<&str> = None;
        fs::set_permissions(home, fs::Permissions::from_mode(0o755)).expect("the home's mode");
        mount(Some(home), home, none, MsFlags::MS_BIND, none).expect("a bind mount");
        let user = Self { home: home.to_owned(), program: home.join("autoresearch") };
        mount(none, home, none, MsFlags::MS_SHARED, none).expect("a shared mount");
        // The build's folder may be closed to others, and on another file system.
        if fs::hard_link(binary("autoresearch"), &user.program).is_err() {
            fs::copy(binary("autoresearch"), &user.program).expect("a copy that others may run");
        }
        chown(home, Some(UID), Some(UID)).expect("the home's owner");
        user
    }

    /// The real binary as this user, without its arguments.
    pub fn command(&self) -> Command {
        let group = fs::metadata(ENGINE).expect("the engine's socket").gid();
        assert_ne!(group, 0, "{ENGINE} belongs to root's group: no plain user may use it");
        let (uid, group) = (UID.to_string(), group.to_string());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--groups", &group]).arg(&self.program);
        command
    }
}

impl Drop for PlainUser {
    fn drop(&mut self) {
        // The worker may still be on its way out.
        umount2(&self.home, MntFlags::MNT_DETACH).ok();
    }
}
