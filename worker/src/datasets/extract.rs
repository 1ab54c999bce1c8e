//! One member of a zip made into one file. The name in the archive only finds it: where it goes is the caller's, and no
//! path of the archive is ever a path here. The bytes are bounded, whatever the archive says of itself, and the
//! archive's own checksum is checked where the member is read to its end.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use kit::{
    digest::{Digest, Hasher},
    size::Bytes,
};

use super::{DataSetError, Progress, walk::readable};

/// Writes a member, or its first `first_bytes` bytes up to the end of their last whole line, to `target`. Gives length and
/// digest.
///
/// # Errors
/// Where it is no zip, has no such member, or more bytes come than `limit`.
pub(super) fn member(
    archive: &Path,
    member: &str,
    first_bytes: Option<u64>,
    target: &Path,
    limit: u64,
    progress: Progress<'_>,
) -> Result<(u64, Digest), DataSetError> {
    let wrong = |problem: String| DataSetError::Member {
        archive: archive.to_owned(),
        member: member.to_owned(),
        problem,
    };
    let file = File::open(archive).map_err(|e| DataSetError::io("open", archive, e))?;
    let mut zip = zip::ZipArchive::new(file).map_err(|e| wrong(e.to_string()))?;
    let mut from = zip.by_name(member).map_err(|e| wrong(e.to_string()))?;
    if !from.is_file() {
        return Err(wrong("is no file".to_owned()));
    }
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(|e| DataSetError::io("create", target, e))?;
    let written = |e| DataSetError::io("write", target, e);
    let mut hasher = Hasher::new();
    let mut size = 0_u64;
    let mut take = |bytes: &[u8]| -> Result<(), DataSetError> {
        hasher.update(bytes);
        size += bytes.len() as u64;
        to.write_all(bytes).map_err(written)
    };
    // With a cut, what follows the last newline waits here until it is known whether its line ends before the cut.
    let (mut waiting, mut read) = (Vec::new(), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let wanted = first_bytes.map_or(count as u64, |first| first.saturating_sub(read).min(count as u64));
        let bytes = &buffer[..usize::try_from(wanted).unwrap_or(count)];
        read += wanted;
        if read > limit {
            let what = format!("{member} of {}", archive.display());
            return Err(DataSetError::TooLarge { what, limit: Bytes(limit) });
        }
        match (first_bytes, memchr::memrchr(b'\n', bytes)) {
            (None, _) => take(bytes)?,
            (Some(_), Some(at)) => {
                take(&waiting)?;
                take(&bytes[..=at])?;
                waiting = bytes[at + 1..].to_vec();
            }
            (Some(_), None) => waiting.extend_from_slice(bytes),
        }
        progress("taking out", read, first_bytes);
        if count == 0 {
            // The member's own end ends its last line.
            take(&waiting)?;
            break;
        }
        if first_bytes == Some(read) {
            break;
        }
    }
    readable(target, 0o444)?;
    Ok((size, hasher.finish()))
}
