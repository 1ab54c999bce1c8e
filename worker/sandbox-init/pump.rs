//! The logs of a sandbox whose program writes to pipes: read here, outside, and written to files that no sandbox sees. The
//! supervisor (`launch.rs`) does it beside its waiting for PID 1.
//!
//! What a stream has beyond its limit is taken and forgotten, but for its last 64 KiB: these are written at the end at
//! the place that they had in the stream. So a file is as long as what was printed, and its reader sees what is missing.

use std::{
    ffi::{c_int, c_long, c_short, c_uint, c_ulong},
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{EINTR, O_CLOEXEC, O_NOFOLLOW, errno};

const O_NONBLOCK: c_int = 0o4000;
const F_SETPIPE_SZ: c_int = 1031;
const POLLIN: c_short = 1;
const POLLHUP: c_short = 16;
const SYS_PIDFD_OPEN: c_long = 434;
const PIPE_BYTES: c_int = 1 << 20;
const PIECE_BYTES: usize = 256 << 10;
/// Kept of a stream that is past its limit.
const LAST_BYTES: usize = 64 << 10;

#[repr(C)]
struct Polled {
    descriptor: c_int,
    events: c_short,
    seen: c_short,
}

unsafe extern "C" {
    fn poll(polled: *mut Polled, count: c_ulong, milliseconds: c_int) -> c_int;
    fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// Where a stream comes from and goes to.
pub(crate) struct Order {
    pub(crate) limit: u64,
    pub(crate) pipe: PathBuf,
    pub(crate) file: PathBuf,
}

pub(crate) struct Pump {
    streams: Vec<Stream>,
    said: bool,
}

struct Stream {
    from: Option<File>,
    to: File,
    limit: u64,
    /// Everything that came.
    total: u64,
    /// The last of what came past the limit.
    last: Vec<u8>,
}

impl Pump {
    /// Opens all, before there is a writer.
    pub(crate) fn open(orders: &[Order]) -> io::Result<Self> {
        let streams = orders.iter().map(|order| Stream::open(&order.pipe, &order.file, order.limit));
        Ok(Self { streams: streams.collect::<io::Result<_>>()?, said: false })
    }

    /// Carries what comes until the process ends. Calls `drained` when nobody is left who could write.
    pub(crate) fn run(&mut self, pid: c_int, mut drained: impl FnMut()) {
        // SAFETY: plain numbers; the process is a child that was not taken yet.
        let process = unsafe { syscall(SYS_PIDFD_OPEN, pid, 0 as c_uint) } as c_int;
        if process < 0 {
            return; // what waits for its end then finds the pipes as they are
        }
        // SAFETY: it is open, and owned here alone.
        let process = unsafe { File::from_raw_fd(process) };
        let mut piece = vec![0u8; PIECE_BYTES];
        loop {
            let mut all = vec![Polled { descriptor: process.as_raw_fd(), events: POLLIN, seen: 0 }];
            all.extend(self.streams.iter().map(|s| {
                // The kernel passes a negative one over.
                let descriptor = s.from.as_ref().map_or(-1, AsRawFd::as_raw_fd);
                Polled { descriptor, events: POLLIN, seen: 0 }
            }));
            // SAFETY: as many as are said.
            if unsafe { poll(all.as_mut_ptr(), all.len() as c_ulong, -1) } < 0 {
                if errno() == EINTR {
                    continue;
                }
                return;
            }
            for (stream, polled) in self.streams.iter_mut().zip(&all[1..]) {
                if polled.seen != 0 {
                    stream.take(&mut piece, polled.seen & POLLHUP != 0);
                }
            }
            if !self.said && !self.streams.is_empty() && self.streams.iter().all(|s| s.from.is_none()) {
                self.said = true;
                drained();
            }
            if all[0].seen != 0 {
                break;
            }
        }
        // Every writer is gone with PID 1; what they wrote is not.
        for stream in &mut self.streams {
            while stream.from.is_some() && stream.take(&mut piece, true) {}
            stream.close();
        }
    }
}

impl Stream {
    fn open(pipe: &Path, file: &Path, limit: u64) -> io::Result<Self> {
        let flags = O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
        let from = OpenOptions::new().read(true).custom_flags(flags).open(pipe)?;
        // Only for speed.
        // SAFETY: plain numbers.
        unsafe { fcntl(from.as_raw_fd(), F_SETPIPE_SZ, PIPE_BYTES) };
        let to = OpenOptions::new().write(true).custom_flags(O_NOFOLLOW | O_CLOEXEC).open(file)?;
        Ok(Self { from: Some(from), to, limit, total: 0, last: Vec::new() })
    }

    /// One piece; false where there was none. `hung_up`: the last writer is gone.
    fn take(&mut self, piece: &mut [u8], hung_up: bool) -> bool {
        let Some(from) = self.from.as_mut() else { return false };
        match from.read(piece) {
            Ok(0) => {
                if hung_up {
                    self.close();
                }
                false
            }
            Ok(bytes) => {
                self.keep(&piece[..bytes]);
                true
            }
            Err(_) => false,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.total).min(bytes.len() as u64) as usize;
        let (now, past) = bytes.split_at(room);
        // A host that takes no more has lost it, and the length tells.
        self.to.write_all_at(now, self.total).ok();
        self.total += bytes.len() as u64;
        if past.is_empty() {
            return;
        }
        self.last.extend_from_slice(past);
        // Cut now and then: to shift it at each piece would be slow.
        if self.last.len() > 16 * LAST_BYTES {
            self.last.drain(..self.last.len() - LAST_BYTES);
        }
    }

    fn close(&mut self) {
        self.from = None;
        let last = std::mem::take(&mut self.last);
        let kept = &last[last.len().saturating_sub(LAST_BYTES)..];
        self.to.write_all_at(kept, self.total - kept.len() as u64).ok();
    }
}
