//! What the kernel has mounted and which files lie under its loop devices: where the truth is when something is
//! to be removed, because a worker that was killed wrote nothing down.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// Which folder of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Options of the mount.
    pub options: String,
    /// What is mounted below it is seen in other mount name spaces too.
    pub shared: bool,
    /// "ext4", "tmpfs", …
    pub kind: String,
    /// "/dev/loop3", …
    pub source: String,
    /// Options of the file system: of a tmpfs its size.
    pub of_system: String,
}

/// The mounts that a process sees; `self` is this one.
///
/// # Errors
/// Where the process is gone.
pub(crate) fn mounts_of(process: &str) -> io::Result<Vec<MountLine>> {
    Ok(mounts_in(&fs::read(format!("/proc/{process}/mountinfo"))?))
}

/// The mounts that a mountinfo file names. Any user with a FUSE file system chooses a name, so a line is bytes, and
/// one that cannot be read hides no other.
#[must_use]
pub fn mounts_in(mountinfo: &[u8]) -> Vec<MountLine> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_mount).collect()
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue", proc(5).
fn parse_mount(line: &[u8]) -> Option<MountLine> {
    // The kernel escapes spaces in names, so this one is its own.
    let middle = memchr::memmem::find(line, b" - ")?;
    let mut front = line[..middle].split(|byte| *byte == b' ').skip(3);
    let (root, target, options) = (front.next()?, front.next()?, front.next()?);
    let mut back = line[middle + 3..].split(|byte| *byte == b' ');
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(MountLine {
        root: unescape(root),
        target: unescape(target),
        options: text(options),
        shared: front.any(|field| field.starts_with(b"shared:")),
        kind: text(back.next()?),
        source: text(back.next()?),
        of_system: text(back.next().unwrap_or_default()),
    })
}

/// The kernel writes space, tab, newline and backslash as `\040` and the like.
fn unescape(name: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let code = if *first == b'\\' { after.first_chunk::<3>() } else { None };
        match code.and_then(|digits| octal(*digits)) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

/// Three digits as a byte.
fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.into_iter().try_fold(0_u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// A loop device and the file under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoopDevice {
    /// "/dev/loop3".
    pub device: PathBuf,
    /// The file, also where it was deleted since.
    pub backing: PathBuf,
}

/// Every loop device that is in use.
pub(crate) fn loop_devices() -> Vec<LoopDevice> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // No such file: not a loop device, or not in use.
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        let backing = backing.strip_suffix(b"\n").unwrap_or(&backing);
        let backing = backing.strip_suffix(b" (deleted)").unwrap_or(backing);
        let backing = std::ffi::OsString::from_vec(backing.to_vec()).into();
        found.push(LoopDevice { device: Path::new("/dev").join(name), backing });
    }
    found
}

/// Runs one of the system's own tools to its end; the error has its words.
///
/// # Errors
/// Where it is not installed or fails.
pub(crate) fn run_tool(name: &str, package: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let program =
        find_tool(name).ok_or_else(|| format!("{name} is not installed: install the package {package}"))?;
    let output = Command::new(&program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed ({}): {}", output.status, words.trim()))
}

/// Whether one of the system's own tools is installed.
pub(crate) fn has_tool(name: &str) -> bool {
    find_tool(name).is_some()
}

/// Where one of the system's own tools is.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks the sbin folders.
    std::env::split_paths(&folders)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_read_with_its_escapes() {
        let line = r"36 35 7:3 /work /a\040b/c\134d rw,nosuid,nodev master:1 - ext4 /dev/loop3 rw";
        let mount = parse_mount(line.as_bytes()).unwrap();
        assert_eq!(mount.target, Path::new(r"/a b/c\d"));
        assert_eq!((mount.root.as_path(), mount.source.as_str()), (Path::new("/work"), "/dev/loop3"));
        assert_eq!((mount.shared, mount.of_system.as_str()), (false, "rw"));
        let shared = parse_mount(b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard").unwrap();
        assert!(shared.shared);
        assert_eq!(parse_mount(b"36 35 nonsense"), None);
    }

    #[test]
    fn a_name_that_is_not_utf_8_hides_no_other_mount() {
        let found =
            mounts_in(b"1 2 0:1 / /a\xffb\\0401 rw - fuse x rw\n36 35 7:3 / /work rw - ext4 /dev/loop3 rw\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].source, "/dev/loop3");
        assert_eq!(found[0].target.as_os_str().as_encoded_bytes(), b"/a\xffb 1");
        // Three digits over 255 are no escape.
        assert_eq!(unescape(br"\777\04"), Path::new(r"\777\04"));
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(mounts_of("self").unwrap().iter().any(|m| m.target == Path::new("/")));
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = run_tool("no-such-tool", "e2fsprogs", &[]).unwrap_err();
        assert!(error.contains("e2fsprogs"), "{error}");
    }
}
