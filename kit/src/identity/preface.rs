//! The first line in each direction on a connection that a worker dialled, right after the TLS handshake and before the
//! first byte of HTTP/2 (which the controller then begins, as the gRPC client):
//!
//! ```text
//! worker:      autoresearch-dial/1 WORKER_ID NAME SECRET      the secret of the invitation in hexadecimal digits, or `-`
//! controller:  ok CONTROLLER_ID                               or: no REASON
//! ```
//!
//! The worker's key is known from TLS. With a secret it asks to be remembered by that key; the same key may show the
//! same secret again, because the answer can be lost. Each line ends with `\n`, has at most 512 bytes, and must be there
//! within 10 seconds.

use std::{fmt, io, str::FromStr, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Secret;

const WORD: &str = "autoresearch-dial/1";
const LINE_MAX: usize = 512;
const REASON_MAX: usize = 300;
/// For one line.
pub const LINE_LIMIT: Duration = Duration::from_secs(10);

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Made with the worker's state folder.
    pub worker_id: String,
    /// How the controller called it in the invitation.
    pub name: String,
    /// Until it was let in once.
    pub secret: Option<Secret>,
}

/// What the controller answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// From here on it is the gRPC client on this connection.
    Ok {
        /// Whose runs will come.
        controller_id: String,
    },
    /// It hangs up.
    No {
        /// For the worker's log.
        reason: String,
    },
}

/// Why there was no line.
#[derive(Debug, thiserror::Error)]
pub enum PrefaceError {
    /// Not ours, or of another version.
    #[error("the first line of the other side is not `{0}`: is it another version of this program?")]
    Words(&'static str),
    /// Too long.
    #[error("the first line of the other side has more than {LINE_MAX} bytes")]
    Long,
    /// Too slow.
    #[error("the first line of the other side did not come within {} s", LINE_LIMIT.as_secs())]
    Slow,
    /// It hung up.
    #[error("the other side hung up before its first line")]
    End,
    /// The connection.
    #[error("the connection broke before the first line")]
    Broken(#[source] io::Error),
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret.as_ref().map_or_else(|| "-".to_owned(), Secret::hex);
        write!(f, "{WORD} {} {} {secret}", self.worker_id, self.name)
    }
}

impl FromStr for Hello {
    type Err = PrefaceError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let wrong = || PrefaceError::Words("autoresearch-dial/1 WORKER_ID NAME SECRET");
        let words: Vec<&str> = line.split(' ').collect();
        let [WORD, worker_id, name, secret] = words.as_slice() else { return Err(wrong()) };
        let secret = match *secret {
            "-" => None,
            text => Some(Secret::from_hex(text).ok_or_else(wrong)?),
        };
        if !is_word(worker_id) || crate::name::check_name(name).is_err() {
            return Err(wrong());
        }
        Ok(Self { worker_id: (*worker_id).to_owned(), name: (*name).to_owned(), secret })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { controller_id } => write!(f, "ok {controller_id}"),
            Self::No { reason } => write!(f, "no {}", crate::text::one_line(reason, REASON_MAX / 4)),
        }
    }
}

impl FromStr for Answer {
    type Err = PrefaceError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        match line.split_once(' ') {
            Some(("ok", id)) if is_word(id) => Ok(Self::Ok { controller_id: id.to_owned() }),
            Some(("no", reason)) => Ok(Self::No { reason: crate::text::one_line(reason, REASON_MAX) }),
            _ => Err(PrefaceError::Words("ok CONTROLLER_ID")),
        }
    }
}

/// Reads one line and not a byte more, bounded in size and time.
///
/// # Errors
/// [`PrefaceError`].
pub async fn read<T: FromStr<Err = PrefaceError>>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, PrefaceError> {
    tokio::time::timeout(LINE_LIMIT, read_line(stream)).await.map_err(|_| PrefaceError::Slow)??.parse()
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, PrefaceError> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(_) if line.len() >= LINE_MAX => return Err(PrefaceError::Long),
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PrefaceError::End),
            Err(error) => return Err(PrefaceError::Broken(error)),
        }
    }
    String::from_utf8(line).map_err(|_| PrefaceError::Words("text"))
}

/// Writes one line.
///
/// # Errors
/// [`PrefaceError::Broken`], [`PrefaceError::Slow`].
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    line: &impl fmt::Display,
) -> Result<(), PrefaceError> {
    let line = format!("{line}\n");
    let send = async {
        stream.write_all(line.as_bytes()).await?;
        stream.flush().await
    };
    let sent = tokio::time::timeout(LINE_LIMIT, send).await.map_err(|_| PrefaceError::Slow)?;
    sent.map_err(PrefaceError::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(secret: Option<Secret>) -> Hello {
        Hello { worker_id: "w-1".to_owned(), name: "gpu-box".to_owned(), secret }
    }

    #[tokio::test]
    async fn each_line_is_read_as_written_and_nothing_after_it() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        for hello in [hello(None), hello(Some(Secret::new()))] {
            write(&mut near, &hello).await.unwrap();
            assert_eq!(read::<Hello>(&mut far).await.unwrap(), hello);
        }
        for answer in [
            Answer::Ok { controller_id: "c-1".to_owned() },
            Answer::No { reason: "the secret was used already".to_owned() },
        ] {
            write(&mut near, &answer).await.unwrap();
            near.write_all(b"PRI").await.unwrap();
            assert_eq!(read::<Answer>(&mut far).await.unwrap(), answer);
            let mut rest = [0; 3];
            far.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"PRI");
        }
    }

    #[tokio::test]
    async fn other_long_slow_and_no_lines_are_refused() {
        async fn of(bytes: &[u8]) -> PrefaceError {
            let (mut near, mut far) = tokio::io::duplex(4096);
            near.write_all(bytes).await.unwrap();
            near.shutdown().await.unwrap();
            read::<Hello>(&mut far).await.unwrap_err()
        }
        for wrong in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"autoresearch-dial/2 w n -\n",
            b"autoresearch-dial/1 w n\n",
            b"autoresearch-dial/1 w ../n -\n",
            b"autoresearch-dial/1 w n 00\n",
            b"autoresearch-dial/1 w n \xff\n",
            b"\n",
        ] {
            assert!(matches!(of(wrong).await, PrefaceError::Words(_)), "{wrong:?}");
        }
        assert!(matches!(of(&[b'a'; 600]).await, PrefaceError::Long));
        assert!(matches!(of(b"autoresearch").await, PrefaceError::End));
        let (_near, mut far) = tokio::io::duplex(16);
        assert!(matches!(read::<Hello>(&mut far).await, Err(PrefaceError::Slow)));
        // What the other side says cannot reach a terminal or grow.
        let long = Answer::No { reason: format!("\x1b[31m{}", "x".repeat(5000)) }.to_string();
        assert!(long.len() < LINE_MAX && !long.contains('\x1b'), "{long}");
    }
}
