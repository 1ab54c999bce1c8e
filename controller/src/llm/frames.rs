//! Bytes to frames. Both framings work on bytes and decode UTF-8 only where a line is whole, so that a character
//! cut in two by the network arrives whole. Length of a line and of the stream are bounded: a server that writes
//! for ever must not fill the memory.
//!
//! Design notes. The crate for this, eventsource-stream 0.2.3, panics on a stream that begins with a byte order
//! mark and stalls in silence at a byte that is not UTF-8; what it does beyond lines is twenty lines here.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};

use super::{
    retry::{Timer, Wait},
    wire::Framing,
};

/// One line, in bytes: far above any event of the providers, which are a few KiB and some 100 KiB at the end.
const LONGEST_LINE: usize = 8 << 20;
/// One reply, in bytes.
const LONGEST_REPLY: usize = 64 << 20;

/// Why there are no more frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    /// No byte came for too long.
    #[error("the server was silent for {0} s")]
    Silence(u64),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// Over a limit.
    #[error("the server sent {0}")]
    TooLong(&'static str),
    /// Not UTF-8.
    #[error("the server sent bytes that are not UTF-8")]
    NotText,
}

/// Pieces of a body as they come.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<Vec<u8>, FrameFault>> + Send>>;
/// Frames as they come.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<String, FrameFault>> + Send>>;

/// Puts the limits on a body: silence, line, whole. Any byte ends a silence, a comment's too.
pub(super) fn bounded(pieces: Pieces, timer: Arc<dyn Timer>, silence: Duration) -> Pieces {
    struct State {
        pieces: Pieces,
        timer: Arc<dyn Timer>,
        line: usize,
        all: usize,
        over: bool,
    }
    let state = State { pieces, timer, line: 0, all: 0, over: false };
    Box::pin(stream::unfold(state, move |mut state| async move {
        if state.over {
            return None;
        }
        let next = tokio::select! {
            piece = state.pieces.next() => piece?,
            () = state.timer.sleep(Wait::Silence, silence) => Err(FrameFault::Silence(silence.as_secs())),
        };
        let next = next.and_then(|piece| {
            state.all = state.all.saturating_add(piece.len());
            let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
            let first = piece.iter().position(is_end);
            let longest = state.line.saturating_add(first.unwrap_or(piece.len()));
            state.line = piece.iter().rposition(is_end).map_or(longest, |last| piece.len() - last - 1);
            if state.all > LONGEST_REPLY {
                Err(FrameFault::TooLong("more than 64 MiB"))
            } else if longest.max(state.line) > LONGEST_LINE {
                Err(FrameFault::TooLong("a line of more than 8 MiB"))
            } else {
                Ok(piece)
            }
        });
        state.over = next.is_err();
        Some((next, state))
    }))
}

/// Cuts a body into frames.
pub(super) fn frames(pieces: Pieces, framing: Framing) -> Frames {
    let state = State { pieces, splitter: Splitter::default(), event: Event::default(), over: false };
    Box::pin(stream::unfold(state, move |mut state| async move {
        loop {
            let frame = match state.next_line().await {
                Some(Ok(line)) => match framing {
                    Framing::Lines => Some(line.trim().to_owned()).filter(|line| !line.is_empty()),
                    Framing::Events => state.event.take(&line),
                },
                Some(Err(fault)) => {
                    state.event = Event::default();
                    state.over = true;
                    return Some((Err(fault), state));
                }
                // A last event without its blank line counts: whether the reply is whole is the terminal
                // marker's to say.
                None => return Some((Ok(state.event.take("")?), state)),
            };
            if let Some(frame) = frame {
                return Some((Ok(frame), state));
            }
        }
    }))
}

struct State {
    pieces: Pieces,
    splitter: Splitter,
    event: Event,
    over: bool,
}

impl State {
    async fn next_line(&mut self) -> Option<Result<String, FrameFault>> {
        loop {
            if let Some(line) = self.splitter.line(self.over) {
                return Some(String::from_utf8(line).map_err(|_| FrameFault::NotText));
            }
            if self.over {
                return None;
            }
            match self.pieces.next().await {
                Some(Ok(piece)) => self.splitter.bytes.extend(piece),
                Some(Err(fault)) => {
                    self.splitter = Splitter::default();
                    return Some(Err(fault));
                }
                None => self.over = true,
            }
        }
    }
}

/// Bytes to lines, which end with `\n`, `\r\n` or `\r`.
#[derive(Default)]
struct Splitter {
    bytes: VecDeque<u8>,
    /// Bytes at the front that are known to hold no end: a long line is not searched again with each piece.
    searched: usize,
    /// The last line ended with `\r`: a `\n` right behind it belongs to that end.
    after_return: bool,
    /// The mark that may stand before the first line was looked for.
    begun: bool,
}

impl Splitter {
    /// The next line without its end; at the end of the stream the rest too, if there is one.
    fn line(&mut self, over: bool) -> Option<Vec<u8>> {
        if let Some(first) = self.bytes.front()
            && std::mem::take(&mut self.after_return)
            && *first == b'\n'
        {
            self.bytes.pop_front();
        }
        let end = self.bytes.iter().skip(self.searched).position(|byte| matches!(byte, b'\n' | b'\r'));
        let mut line: Vec<u8> = match end {
            Some(end) => {
                let line = self.bytes.drain(..self.searched + end).collect();
                self.after_return = self.bytes.pop_front() == Some(b'\r');
                line
            }
            None if over && !self.bytes.is_empty() => self.bytes.drain(..).collect(),
            None => {
                self.searched = self.bytes.len();
                return None;
            }
        };
        self.searched = 0;
        if !self.begun {
            self.begun = true;
            if line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
        }
        Some(line)
    }
}

/// One server-sent event in the making: only its data matters, for each provider repeats the name inside it.
#[derive(Default)]
struct Event {
    data: Option<String>,
}

impl Event {
    /// Takes a line; gives the data where the line, being blank, ends an event that has some.
    fn take(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            return self.data.take();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
