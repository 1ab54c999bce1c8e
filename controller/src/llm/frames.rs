//! Bytes to frames. Both framings work on bytes and decode UTF-8 only where a line is whole, so that a character
//! cut in two by the network arrives whole. Length of a line and of the stream are bounded: a server that writes
//! for ever must not fill the memory.

use std::{pin::Pin, sync::Arc, time::Duration};

use eventsource_stream::{EventStreamError, Eventsource as _};
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
    match framing {
        Framing::Events => events(pieces),
        Framing::Lines => lines(pieces),
    }
}

fn events(pieces: Pieces) -> Frames {
    // A last event without its blank line counts: whether the reply is whole is the terminal marker's to say.
    let closed = pieces.chain(stream::once(async { Ok(b"\n\n".to_vec()) }));
    Box::pin(Box::pin(closed).eventsource().map(|event| match event {
        Ok(event) => Ok(event.data),
        Err(EventStreamError::Transport(fault)) => Err(fault),
        Err(EventStreamError::Utf8(_)) => Err(FrameFault::NotText),
        Err(EventStreamError::Parser(_)) => Err(FrameFault::Broken("not a stream of events".into())),
    }))
}

fn lines(pieces: Pieces) -> Frames {
    struct State {
        pieces: Pieces,
        rest: Vec<u8>,
        over: bool,
    }
    let state = State { pieces, rest: Vec::new(), over: false };
    Box::pin(stream::unfold(state, |mut state| async move {
        loop {
            if let Some(end) = state.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = state.rest.drain(..=end).collect();
                match line_text(line) {
                    Some(Ok(line)) if line.is_empty() => continue,
                    Some(line) => return Some((line, state)),
                    None => continue,
                }
            }
            if state.over {
                let line = line_text(std::mem::take(&mut state.rest))?;
                return if matches!(&line, Ok(line) if line.is_empty()) { None } else { Some((line, state)) };
            }
            match state.pieces.next().await {
                Some(Ok(piece)) => state.rest.extend_from_slice(&piece),
                Some(Err(fault)) => {
                    state.over = true;
                    state.rest.clear();
                    return Some((Err(fault), state));
                }
                None => state.over = true,
            }
        }
    }))
}

/// A line without its end, `None` for nothing at all.
fn line_text(line: Vec<u8>) -> Option<Result<String, FrameFault>> {
    if line.is_empty() {
        return None;
    }
    Some(String::from_utf8(line).map(|line| line.trim().to_owned()).map_err(|_| FrameFault::NotText))
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
