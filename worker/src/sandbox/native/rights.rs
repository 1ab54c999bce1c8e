//! Whose rights this worker has: root's, or a plain user's with a range of ids of its own. With the range a user namespace
//! has uids enough for PID 1 and the program to be two users. Without one nothing is run here.

use std::{fs, process::Command};

use crate::sandbox::loops;

/// Slots begin at 50000.
const IDS_NEEDED: u32 = 60_000;
const IDS_USED_MOST: u32 = 65_535;
/// An overlay in a user namespace.
const KERNEL_LEAST: (u32, u32) = (5, 11);

/// What this worker may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rights {
    Root,
    Plain(Range),
}

/// Ids of the host that are this user's to give: inside, uid 0 is the user and the others are of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    own: (u32, u32),
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Rights {
    /// # Errors
    /// What is missing for a plain user, and the one command that mends it.
    pub(crate) fn find() -> Result<Self, String> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self::Root);
        }
        let number =
            |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        if version(&release) < KERNEL_LEAST {
            return Err(format!(
                "a worker that is not root needs Linux 5.11 or later, and this is {}: run it as root",
                kit::text::one_line(release.trim(), 40)
            ));
        }
        for (path, closed) in
            [("/proc/sys/kernel/unprivileged_userns_clone", 0), ("/proc/sys/user/max_user_namespaces", 0)]
        {
            if number(path) == Some(closed) {
                let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
                let open = if name.starts_with("user.") { 10_000 } else { 1 };
                return Err(format!(
                    "this host gives a plain user no user namespace: sudo sysctl -w {name}={open}"
                ));
            }
        }
        for tool in ["newuidmap", "newgidmap"] {
            if !loops::has_tool(tool) {
                return Err(format!("{tool} is not installed: sudo apt install uidmap"));
            }
        }
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
        let user = user.unwrap_or_else(|| uid.to_string());
        let range = |path: &str| -> Result<(u32, u32), String> {
            let text = fs::read_to_string(path).unwrap_or_default();
            granted(&text, &[&user, &uid.to_string()]).ok_or_else(|| {
                format!(
                    "{path} grants {user} no {IDS_NEEDED} ids, so PID 1 and the program would be one user: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
                )
            })
        };
        Ok(Self::Plain(Range {
            own: (uid.as_raw(), nix::unistd::getegid().as_raw()),
            uids: range("/etc/subuid")?,
            gids: range("/etc/subgid")?,
        }))
    }

    pub(super) fn is_root(&self) -> bool {
        *self == Self::Root
    }
}

impl Range {
    /// Gives the ids to a process that has made a user namespace.
    ///
    /// # Errors
    /// The tool's words.
    pub(crate) fn give_to(&self, pid: &str) -> Result<(), String> {
        let maps = [("newuidmap", self.own.0, self.uids), ("newgidmap", self.own.1, self.gids)];
        for (tool, own, (first, count)) in maps {
            let program = loops::find_tool(tool)
                .ok_or_else(|| format!("{tool} is not installed: sudo apt install uidmap"))?;
            let output = Command::new(program)
                .args([pid, "0", &own.to_string(), "1", "1", &first.to_string(), &count.to_string()])
                .output()
                .map_err(|e| format!("{tool}: {e}"))?;
            if !output.status.success() {
                let words = kit::text::one_line(&String::from_utf8_lossy(&output.stderr), 300);
                return Err(format!(
                    "{tool} refused: {words} (it is of no use where the worker may gain no new privileges, as under NoNewPrivileges=)"
                ));
            }
        }
        Ok(())
    }
}

/// The first range that is large enough, of "name:first:count" lines.
fn granted(text: &str, names: &[&str]) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut words = line.trim().split(':');
        let name = words.next()?;
        let (first, count) = (words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
        let whole = first > 0 && first.checked_add(count).is_some();
        (names.contains(&name) && whole && count >= IDS_NEEDED).then_some((first, count.min(IDS_USED_MOST)))
    })
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_where_it_is_large_enough_and_the_users_own() {
        let text = "other:100000:65536\nme:200000:10\n1000:300000:65536\nme:9:x\nme:4294967295:65536\n";
        assert_eq!(granted(text, &["me", "1000"]), Some((300_000, 65_535)));
        assert_eq!(granted(text, &["me"]), None);
        assert_eq!(granted("me:0:65536", &["me"]), None, "the host's root is nobody's to give");
    }

    #[test]
    fn kernels_are_compared_as_numbers() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), (6, 1));
        assert!(version("5.9.1") < KERNEL_LEAST && version("5.11") >= KERNEL_LEAST);
    }
}
