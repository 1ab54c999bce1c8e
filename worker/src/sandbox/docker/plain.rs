//! The worker of a plain user, who may use the engine and is not root: what it needs of the host, in one line with the
//! one command that mends it, and which rules it cannot read back as root could.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use nix::unistd::{Gid, Group, User, geteuid};

use crate::sandbox::{
    Enforcement, Rule,
    loops::{self, MountLine},
};

/// Why this worker's helper containers cannot make volumes here; `None` where they can, or where it is root.
pub(super) fn lacks(sandboxes_dir: &Path) -> Option<String> {
    if geteuid().is_root() {
        return None;
    }
    let mounts = match loops::mounts_of("self") {
        Ok(mounts) => mounts,
        Err(error) => return Some(format!("the mounts of this host cannot be read: {error}")),
    };
    // The longest place wins, and of two at one place the later one.
    let under = mounts
        .iter()
        .filter(|mount| sandboxes_dir.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())?;
    wants(sandboxes_dir, under)
}

fn wants(sandboxes_dir: &Path, under: &MountLine) -> Option<String> {
    let (folder, place) = (sandboxes_dir.display(), under.target.display());
    if !under.shared {
        return Some(format!(
            "what a helper container mounts below {folder} would not be seen here, because the mount {place} is private: run `sudo mount --make-rshared {}`",
            quoted(&under.target),
        ));
    }
    // The helper's program lies beside the volume.
    let noexec = under.options.split(',').any(|option| option == "noexec");
    noexec.then(|| {
        format!(
            "nothing may be executed below {folder}, also no helper container's program: run `sudo mount -o remount,exec {}`, or name another folder with --data-dir",
            quoted(&under.target),
        )
    })
}

fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What a user who may not open the engine's socket does about it.
pub(super) fn no_permission(socket: &str) -> String {
    let group = std::fs::metadata(socket).ok().map(|found| Gid::from_raw(found.gid()));
    let group = group.filter(|gid| gid.as_raw() != 0).and_then(|gid| Group::from_gid(gid).ok().flatten());
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| "$USER".to_owned(), |user| user.name);
    let (group, note) = match &group {
        Some(group) => (group.name.as_str(), ""),
        None => ("docker", ", and give the socket to that group"),
    };
    format!("no permission to use {socket}: run `sudo usermod -aG {group} {user}`{note}, then log in again")
}

/// The rules as this worker can answer for them: what it cannot see is weaker, and says so.
pub(super) fn weaken(rules: &mut [Rule]) {
    if geteuid().is_root() {
        return;
    }
    for rule in rules {
        let Some((_, words)) = UNSEEN.iter().find(|(name, _)| *name == rule.name) else { continue };
        rule.detail = format!("{}; {words}", rule.detail);
        if rule.enforcement == Enforcement::Enforced {
            rule.enforcement = Enforcement::Weaker;
            "run the worker as root for this".clone_into(&mut rule.remedy);
        }
    }
}

/// By the rule's name, and what a plain user cannot see of it.
const UNSEEN: [(&str, &str); 3] = [
    (
        "network",
        "a plain user's worker cannot compare name spaces: that there is only a loopback device that nothing has used is read back",
    ),
    ("devices", "a plain user's worker cannot look into the sandbox's /dev: the engine's word is taken"),
    ("artifacts", "what the program made unreadable for others is left out and named"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_command() {
        assert_eq!(quoted(Path::new("/home/a-b")), "/home/a-b");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn a_mount_that_will_not_do_is_named_with_the_command() {
        let mount = |options: &str, shared| MountLine {
            root: "/".into(),
            target: "/home".into(),
            options: options.into(),
            shared,
            kind: "ext4".into(),
            source: "/dev/x".into(),
            of_system: "rw".into(),
        };
        let folder = Path::new("/home/u/data/sandboxes");
        assert_eq!(wants(folder, &mount("rw,nosuid", true)), None);
        let private = wants(folder, &mount("rw", false)).unwrap();
        assert!(private.contains("`sudo mount --make-rshared /home`"), "{private}");
        let noexec = wants(folder, &mount("rw,noexec", true)).unwrap();
        assert!(noexec.contains("`sudo mount -o remount,exec /home`"), "{noexec}");
    }

    #[test]
    fn who_may_not_use_the_socket_learns_the_command() {
        let socket = tempfile::NamedTempFile::new().unwrap();
        let words = no_permission(&socket.path().to_string_lossy());
        assert!(words.contains("sudo usermod -aG ") && !words.contains('\n'), "{words}");
    }
}
