//! Opening a name of the program's beneath a folder: no link, no magic link, no mount and no `..` is followed, and a
//! FIFO or a terminal holds nobody up.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// How names are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The kernel keeps the rules (`openat2`, 5.6 and later).
    ByKernel,
    /// One part of the name after the other: an older kernel, or a seccomp filter around the worker that does not
    /// know the call.
    ByParts,
}

const ALWAYS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

impl Lookup {
    /// Asks the kernel once, with a folder that can be opened.
    pub(super) fn of_this_host(folder: impl AsFd) -> Self {
        match by_kernel(folder, ".", OFlags::DIRECTORY) {
            // Older filters answer EPERM to calls that they do not know.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => Self::ByParts,
            _ => Self::ByKernel,
        }
    }

    /// Opens for reading what lies at a relative name beneath a folder. `kind` may ask for a folder.
    pub(super) fn open(self, folder: impl AsFd, name: &str, kind: OFlags) -> io::Result<OwnedFd> {
        match self {
            Self::ByKernel => Ok(by_kernel(folder, name, kind)?),
            Self::ByParts => by_parts(folder, name, kind),
        }
    }
}

fn by_kernel(folder: impl AsFd, name: &str, kind: OFlags) -> rustix::io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(&folder, name, kind | ALWAYS, Mode::empty(), RESOLVE) {
            // Beneath and no-xdev lookups may be asked to come again when something is renamed or mounted.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

fn by_parts(folder: impl AsFd, name: &str, kind: OFlags) -> io::Result<OwnedFd> {
    let device = rustix::fs::fstat(&folder)?.st_dev;
    let mut parts = name.split('/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        // A name that begins with a slash has an empty first part.
        if part.is_empty() || part == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { kind };
        let above = at.as_ref().map_or_else(|| folder.as_fd(), AsFd::as_fd);
        let next = rustix::fs::openat(above, part, kind | ALWAYS, Mode::empty())?;
        if rustix::fs::fstat(&next)?.st_dev != device {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        at = Some(next);
    }
    at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
    };

    use super::*;

    const BOTH: [Lookup; 2] = [Lookup::ByKernel, Lookup::ByParts];

    #[test]
    fn this_host_has_a_lookup() {
        let folder = tempfile::tempdir().unwrap();
        let folder = File::open(folder.path()).unwrap();
        assert!(BOTH.contains(&Lookup::of_this_host(&folder)));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        fs::write(root.path().join("outside/secret"), b"of the host").unwrap();
        fs::write(inside.join("sub/good"), b"good").unwrap();
        symlink("../outside", inside.join("folder")).unwrap();
        symlink("../outside/secret", inside.join("file")).unwrap();
        symlink("sub", inside.join("harmless")).unwrap();
        let folder = File::open(&inside).unwrap();
        let absolute = root.path().join("outside/secret");
        for lookup in BOTH {
            assert!(lookup.open(&folder, "sub/good", OFlags::empty()).is_ok(), "{lookup:?}");
            let wrong =
                ["folder/secret", "file", "harmless/good", "../outside/secret", "sub/../../outside/secret"];
            for name in wrong.into_iter().chain(absolute.to_str()) {
                assert!(lookup.open(&folder, name, OFlags::empty()).is_err(), "{lookup:?} {name}");
            }
        }
    }

    #[test]
    fn no_mount_is_entered_and_no_magic_link_followed() {
        let root = File::open("/").unwrap();
        let own = File::open("/proc/self").unwrap();
        for lookup in BOTH {
            let mounted = lookup.open(&root, "proc/version", OFlags::empty()).unwrap_err();
            assert_eq!(mounted.kind(), io::ErrorKind::CrossesDevices, "{lookup:?}");
            for name in ["root", "cwd", "exe", "root/etc/passwd"] {
                assert!(lookup.open(&own, name, OFlags::empty()).is_err(), "{lookup:?} {name}");
            }
        }
    }

    #[test]
    fn a_fifo_without_a_writer_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let folder = File::open(folder.path()).unwrap();
        let (done, opened) = std::sync::mpsc::channel();
        // A thread, because without NONBLOCK the open never comes back.
        std::thread::spawn(move || {
            for lookup in BOTH {
                done.send(lookup.open(&folder, "fifo", OFlags::empty()).is_ok()).ok();
            }
        });
        for lookup in BOTH {
            let came = opened.recv_timeout(std::time::Duration::from_secs(20));
            assert_eq!(came, Ok(true), "{lookup:?}");
        }
    }
}
