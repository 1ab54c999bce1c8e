//! Reading the sandbox's log files while the program writes them. Each file is read from the end of its last frame
//! in pieces of one frame; past its limit a stream is read no further until the program has ended, and then its
//! last 64 KiB are taken, for the traceback.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use proto::{CHUNK_BYTES, v1::Stream};

use crate::sandbox::StreamPaths;

/// Taken of each stream at the end, whatever its limit.
pub const LAST_BYTES: u64 = 64 << 10;

/// In the order of the files and of all arrays of three.
pub const STREAMS: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::Metrics];

/// A log file could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} the log {}", path.display())]
pub struct TailError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// One file.
#[derive(Debug)]
struct StreamTail {
    path: PathBuf,
    file: File,
    /// Where to read on.
    offset: u64,
    /// Stored before the end.
    limit: u64,
}

/// What one look at a stream gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes from an offset.
    Bytes {
        /// Where they begin.
        offset: u64,
        /// At most one frame's worth.
        data: Vec<u8>,
    },
    /// Bytes that are never read; only at the end.
    Dropped {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// The three log files of a sandbox.
#[derive(Debug)]
pub struct Tail {
    streams: Vec<StreamTail>,
}

impl Tail {
    /// Opens the files. The folder they lie in is not the program's, but links are refused all the same.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(paths: &StreamPaths, offsets: [u64; 3], limits: [u64; 3]) -> Result<Self, TailError> {
        let mut streams = Vec::with_capacity(3);
        for (index, path) in [&paths.stdout, &paths.stderr, &paths.metrics].into_iter().enumerate() {
            streams.push(StreamTail {
                file: open(path)?,
                path: path.clone(),
                offset: offsets[index],
                limit: limits[index],
            });
        }
        Ok(Self { streams })
    }

    /// The next piece of a stream below its limit, or `None` where nothing is new.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(&mut self, index: usize) -> Result<Option<Piece>, TailError> {
        match self.streams.get_mut(index) {
            Some(stream) => stream.read(stream.limit),
            None => Ok(None),
        }
    }

    /// As [`Tail::read`], once the program has ended: past the limit there is one dropped piece, then the last 64 KiB.
    ///
    /// # Errors
    /// Names the file.
    pub fn read_to_end(&mut self, index: usize) -> Result<Option<Piece>, TailError> {
        let Some(stream) = self.streams.get_mut(index) else { return Ok(None) };
        if stream.offset < stream.limit
            && let Some(piece) = stream.read(stream.limit)?
        {
            return Ok(Some(piece));
        }
        let size = stream.file.metadata().map_err(|e| stream.error("read", e))?.len();
        let last = size.saturating_sub(LAST_BYTES);
        if last > stream.offset {
            let dropped = Piece::Dropped { offset: stream.offset, bytes: last - stream.offset };
            stream.offset = last;
            return Ok(Some(dropped));
        }
        stream.read(u64::MAX)
    }
}

fn open(path: &Path) -> Result<File, TailError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| TailError { verb: "open", path: path.to_owned(), source })
}

impl StreamTail {
    fn error(&self, verb: &'static str, source: io::Error) -> TailError {
        TailError { verb, path: self.path.clone(), source }
    }

    fn read(&mut self, limit: u64) -> Result<Option<Piece>, TailError> {
        let room = limit.saturating_sub(self.offset).min(CHUNK_BYTES as u64) as usize;
        if room == 0 {
            return Ok(None);
        }
        let mut data = vec![0; room];
        let count = loop {
            match self.file.read_at(&mut data, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("read", error)),
                Ok(count) => break count,
            }
        };
        if count == 0 {
            return Ok(None);
        }
        data.truncate(count);
        let offset = self.offset;
        self.offset += count as u64;
        Ok(Some(Piece::Bytes { offset, data }))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn paths(folder: &Path) -> StreamPaths {
        for name in ["stdout", "stderr", "metrics"] {
            fs::write(folder.join(name), b"").unwrap();
        }
        StreamPaths {
            stdout: folder.join("stdout"),
            stderr: folder.join("stderr"),
            metrics: folder.join("metrics"),
        }
    }

    #[test]
    fn reads_on_where_it_stopped_in_frames() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let mut tail = Tail::open(&paths, [0; 3], [1 << 20; 3]).unwrap();
        assert_eq!(tail.read(0).unwrap(), None);
        fs::write(&paths.stdout, vec![7; CHUNK_BYTES + 5]).unwrap();
        assert!(
            matches!(tail.read(0).unwrap(), Some(Piece::Bytes { offset: 0, data }) if data.len() == CHUNK_BYTES)
        );
        let second = tail.read(0).unwrap();
        assert!(
            matches!(second, Some(Piece::Bytes { offset, data }) if offset == CHUNK_BYTES as u64 && data.len() == 5)
        );
        assert_eq!(tail.read(0).unwrap(), None);
    }

    #[test]
    fn past_the_limit_one_gap_and_the_last_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        let mut tail = Tail::open(&paths, [0; 3], [100; 3]).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&paths.stderr).unwrap();
        file.write_all(&[1; 100]).unwrap();
        file.write_all(&vec![2; 200_000]).unwrap();
        file.write_all(b"ValueError").unwrap();
        assert!(matches!(tail.read(1).unwrap(), Some(Piece::Bytes { offset: 0, data }) if data == [1; 100]));
        assert_eq!(tail.read(1).unwrap(), None);
        let size = 200_110;
        let dropped = size - LAST_BYTES - 100;
        assert_eq!(tail.read_to_end(1).unwrap(), Some(Piece::Dropped { offset: 100, bytes: dropped }));
        let Some(Piece::Bytes { offset, data }) = tail.read_to_end(1).unwrap() else { panic!("the end") };
        assert_eq!((offset, data.len() as u64), (size - LAST_BYTES, LAST_BYTES));
        assert!(data.ends_with(b"ValueError"));
        assert_eq!(tail.read_to_end(1).unwrap(), None);
    }

    #[test]
    fn a_little_past_the_limit_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        fs::write(&paths.metrics, vec![3; 150]).unwrap();
        let mut tail = Tail::open(&paths, [0; 3], [100; 3]).unwrap();
        assert!(
            matches!(tail.read_to_end(2).unwrap(), Some(Piece::Bytes { offset: 0, data }) if data.len() == 100)
        );
        assert!(
            matches!(tail.read_to_end(2).unwrap(), Some(Piece::Bytes { offset: 100, data }) if data.len() == 50)
        );
        assert_eq!(tail.read_to_end(2).unwrap(), None);
    }

    #[test]
    fn links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path());
        fs::remove_file(&paths.stdout).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &paths.stdout).unwrap();
        assert!(Tail::open(&paths, [0; 3], [100; 3]).is_err());
    }
}
