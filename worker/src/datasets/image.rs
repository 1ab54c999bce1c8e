//! One ext4 file system made of a staging folder, with no mount: `mke2fs -d`. It fits, it is sparse, all of it is root's,
//! and everybody may read it.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Command,
};

use kit::{
    digest::{Digest, Hasher},
    size::Bytes,
};

use super::{DataSetError, FileEntry, Progress, walk::readable};

const BLOCK: u64 = 4096;
/// mke2fs's own: 2 is the root, 11 is lost+found.
const FIRST_INODE: u64 = 11;
const INODE_BYTES: u64 = 256;
/// Kept free for whatever else this disk is for.
const KEPT_FREE: u64 = 256 << 20;
/// The same for every image: nothing of the host, and nothing of the moment.
const IDENTITY: &str = "6175746f-7265-7365-6172-636864617461";

/// Whether so many bytes more can be copied and then made into an image.
///
/// # Errors
/// [`DataSetError::NoRoom`].
pub(super) fn check_room(folder: &Path, bytes: u64) -> Result<(), DataSetError> {
    let stat = rustix::fs::statvfs(folder).map_err(|e| DataSetError::io("look at", folder, e.into()))?;
    let free = (stat.f_bavail * stat.f_frsize).saturating_sub(KEPT_FREE);
    let wanted = bytes.saturating_mul(2);
    if wanted > free {
        return Err(DataSetError::NoRoom { wanted: Bytes(wanted), free: Bytes(free) });
    }
    Ok(())
}

/// Large enough for the files, with some more: what is not used is a hole and costs nothing.
fn image_bytes(files: &[FileEntry], folders: u64) -> (u64, u64) {
    let inodes = files.len() as u64 + folders + FIRST_INODE + 5;
    let data: u64 = files
        .iter()
        // A block for each file's own tree of extents, where it needs one.
        .map(|file| file.size_bytes.div_ceil(BLOCK) + 1 + file.size_bytes / (64 << 20))
        .sum();
    // An entry has 8 bytes and its name; a folder's blocks are filled by half at least.
    let names: u64 = files.iter().map(|file| 2 * (file.path.len() as u64 + 16)).sum();
    let blocks = data + names / BLOCK + 2 * folders + (inodes * INODE_BYTES) / BLOCK;
    ((blocks + blocks / 16) * BLOCK + (8 << 20), inodes)
}

/// Makes the image at `target` of the folder `content`. Gives its digest and length.
///
/// # Errors
/// What the tools said; the disk.
pub(super) fn build(
    content: &Path,
    target: &Path,
    files: &[FileEntry],
    progress: Progress<'_>,
) -> Result<(Digest, u64), DataSetError> {
    let folders = open_folders(content)?;
    let total: u64 = files.iter().map(|file| file.size_bytes).sum();
    check_room(content, total / 2)?;
    progress("making the file system", 0, Some(total));
    let (bytes, inodes) = image_bytes(files, folders);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
    file.and_then(|file| file.set_len(bytes)).map_err(|e| DataSetError::io("create", target, e))?;
    let inode_count = inodes.to_string();
    // No journal: it is never written again. Checksums of the file system's own blocks stay on, so that a damaged one is an
    // error and not another file.
    let extended = format!("lazy_itable_init=0,nodiscard,root_owner=0:0,hash_seed={IDENTITY}");
    let fixed = ["-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-I", "256", "-N", &inode_count];
    let features = ["-O", "^has_journal,^resize_inode", "-E", &extended, "-U", IDENTITY, "-d"];
    let mut arguments: Vec<&OsStr> = fixed.iter().chain(&features).map(OsStr::new).collect();
    arguments.extend([content.as_os_str(), target.as_os_str()]);
    tool("mke2fs", &arguments)?;
    finish(target, inodes)?;
    // Its whole structure, as the kernel will read it.
    tool("e2fsck", &[OsStr::new("-f"), OsStr::new("-n"), target.as_os_str()])?;
    readable(target, 0o444)?;
    let file = File::open(target).map_err(|e| DataSetError::io("open", target, e))?;
    file.sync_all().map_err(|e| DataSetError::io("sync", target, e))?;
    Ok((hash(target, "hashing the file system", progress)?, bytes))
}

/// Folders that everybody may enter; gives how many.
fn open_folders(content: &Path) -> Result<u64, DataSetError> {
    let mut waiting = vec![content.to_owned()];
    let mut count = 0;
    while let Some(folder) = waiting.pop() {
        readable(&folder, 0o755)?;
        count += 1;
        let failed = |e| DataSetError::io("read", &folder, e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(count)
}

/// Without lost+found, which a program would see among the files; and root's, also where this worker is not root. Inodes
/// are named by number: no name of a file becomes a word of a command.
fn finish(target: &Path, inodes: u64) -> Result<(), DataSetError> {
    let commands = target.with_extension("commands");
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create_new(&commands)?);
        writeln!(file, "rmdir lost+found")?;
        if !nix::unistd::geteuid().is_root() {
            for inode in FIRST_INODE + 1..=inodes {
                writeln!(file, "set_inode_field <{inode}> uid 0\nset_inode_field <{inode}> gid 0")?;
            }
        }
        file.flush()
    };
    write().map_err(|e| DataSetError::io("write", &commands, e))?;
    let arguments = ["-w", "-f"].map(OsStr::new);
    let arguments: Vec<&OsStr> =
        arguments.into_iter().chain([commands.as_os_str(), target.as_os_str()]).collect();
    tool("debugfs", &arguments)?;
    fs::remove_file(&commands).map_err(|e| DataSetError::io("remove", &commands, e))
}

/// Runs a tool of e2fsprogs to its end.
fn tool(program: &'static str, arguments: &[&OsStr]) -> Result<(), DataSetError> {
    let sbin = "/usr/local/sbin:/usr/sbin:/sbin:";
    let path = std::env::var("PATH").unwrap_or_default();
    // A plain user's PATH has no sbin.
    let output = Command::new(program).args(arguments).env("PATH", format!("{path}:{sbin}")).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = if said.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { said };
            let said = kit::text::one_line(&said, 400);
            Err(DataSetError::Tool(format!("{program} ended with {}: {said}", output.status)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(DataSetError::Tool(format!("there is no {program}: install the package e2fsprogs")))
        }
        Err(error) => Err(DataSetError::Tool(format!("{program} cannot be run: {error}"))),
    }
}

/// The digest of a whole file, with progress.
pub(super) fn hash(path: &Path, what: &str, progress: Progress<'_>) -> Result<Digest, DataSetError> {
    use std::io::Read as _;
    let failed = |e| DataSetError::io("read", path, e);
    let mut file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let (mut hasher, mut done, mut buffer) = (Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
        done += count as u64;
        progress(what, done, Some(total));
    }
}
