//! The bytes of a segment. All numbers are little-endian.
//!
//! ```text
//! segment: │ magic "ARSPOOL\0" │ version u32 │ run id 16 │ first sequence u64 │ crc32 u32 │ frame │ frame │ …
//! frame:   │ length u32 │ crc32 u32 of run id, length and payload │ payload: an encoded Event │
//! ```
//!
//! The checksum covers the length, so that a damaged length is found before it is believed, and the run's id, which is not
//! written there: a frame of another run, wherever a file system that was cut off may have put it, is no good frame here.
//! In version 1 it did not; such a segment is read and gone on with as it was begun, and the next one is of this version.

use prost::Message as _;
use proto::v1::Event;

use crate::run::RunId;

/// Of the segment's first bytes.
pub const MAGIC: &[u8; 8] = b"ARSPOOL\0";
/// Of this layout.
pub const VERSION: u32 = 2;
/// Still read.
const UNSEALED_VERSION: u32 = 1;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 8 + 4 + 16 + 8 + 4;
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 8;
/// A frame's payload is never larger: an event is at most a 64 KiB chunk with the points read from it, or the
/// last one with its list of artifacts.
pub const PAYLOAD_BYTES_MAX: usize = 3 << 20;

/// What the checksums of a segment's frames begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Nothing, as in version 1.
    None,
    /// The run's id.
    Run(RunId),
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of the layout.
    pub version: u32,
    /// Whose it is.
    pub run_id: RunId,
    /// Of its first frame.
    pub first_sequence: u64,
}

impl Header {
    /// Of a new segment.
    #[must_use]
    pub fn new(run_id: RunId, first_sequence: u64) -> Self {
        Self { version: VERSION, run_id, first_sequence }
    }

    /// Of its frames.
    #[must_use]
    pub fn seal(&self) -> Seal {
        if self.version == UNSEALED_VERSION { Seal::None } else { Seal::Run(self.run_id) }
    }

    /// As it lies on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..28].copy_from_slice(self.run_id.uuid().as_bytes());
        bytes[28..36].copy_from_slice(&self.first_sequence.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads it back; `None` where it is damaged, of another version, or of another run.
    #[must_use]
    pub fn decode(bytes: &[u8], run_id: RunId) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let version = u32::try_from(number(&bytes[8..12])?).ok()?;
        let good = bytes[..8] == MAGIC[..]
            && (UNSEALED_VERSION..=VERSION).contains(&version)
            && bytes[12..28] == run_id.uuid().as_bytes()[..]
            && number(&bytes[36..40])? == u64::from(crc32fast::hash(&bytes[..36]));
        if !good {
            return None;
        }
        Some(Self { version, run_id, first_sequence: number(&bytes[28..36])? })
    }
}

/// A little-endian number of at most 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn checksum(seal: Seal, length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if let Seal::Run(run_id) = seal {
        hasher.update(run_id.uuid().as_bytes());
    }
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Appends one frame to a buffer. Gives whether the event was small enough; a larger one is not appended.
#[must_use]
pub fn push_frame(out: &mut Vec<u8>, event: &Event, seal: Seal) -> bool {
    let size = event.encoded_len();
    let (Ok(length), true) = (u32::try_from(size), size <= PAYLOAD_BYTES_MAX) else { return false };
    out.reserve(FRAME_HEADER_BYTES + size);
    let at = out.len();
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    // A Vec grows, so encoding cannot run out of room.
    if event.encode(out).is_err() {
        out.truncate(at);
        return false;
    }
    let sum = checksum(seal, length.to_le_bytes(), &out[at + FRAME_HEADER_BYTES..]);
    out[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    true
}

/// What lies at the head of some bytes.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// A whole frame, and its bytes.
    Frame(Box<Event>, usize),
    /// Too few bytes for the frame that is announced: a torn tail, or more is to come.
    Short,
    /// The checksum does not hold, or it is no event.
    Bad,
}

/// What the head of a frame announces, without a look at its checksum: how many bytes it has, and the sequence that
/// its event begins with. `None` where no frame of ours begins like this.
#[must_use]
pub fn announced(bytes: &[u8]) -> Option<(usize, u64)> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    // Field 1 of Event, a varint: prost writes fields in their order, and no sequence is 0.
    let varint = bytes.get(FRAME_HEADER_BYTES..)?.strip_prefix(&[8])?;
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let mut varint = &varint[..varint.len().min(10)];
    Some((FRAME_HEADER_BYTES + length, prost::encoding::decode_varint(&mut varint).ok()?))
}

/// Reads the frame at the head of `bytes`.
#[must_use]
pub fn parse_frame(bytes: &[u8], seal: Seal) -> Parsed {
    let Some(head) = bytes.get(..FRAME_HEADER_BYTES) else { return Parsed::Short };
    let length_bytes = [head[0], head[1], head[2], head[3]];
    let length = u32::from_le_bytes(length_bytes) as usize;
    let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length > PAYLOAD_BYTES_MAX {
        return Parsed::Bad;
    }
    let Some(payload) = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length) else {
        return Parsed::Short;
    };
    if checksum(seal, length_bytes, payload) != sum {
        return Parsed::Bad;
    }
    match Event::decode(payload) {
        Ok(event) => Parsed::Frame(Box::new(event), FRAME_HEADER_BYTES + length),
        Err(_) => Parsed::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_of_its_run_and_whole() {
        let header = Header::new(RunId::new(), 7);
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes, header.run_id), Some(header));
        assert_eq!(Header::decode(&bytes, RunId::new()), None);
        assert_eq!(Header::decode(&bytes[..HEADER_BYTES - 1], header.run_id), None);
        for index in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[index] ^= 1;
            assert_eq!(Header::decode(&damaged, header.run_id), None, "byte {index}");
        }
    }

    #[test]
    fn a_frame_is_whole_or_nothing() {
        let event = Event { sequence: 3, wall_time_ns: 5, ..Event::default() };
        let (mut bytes, seal) = (Vec::new(), Seal::Run(RunId::new()));
        assert!(push_frame(&mut bytes, &event, seal));
        assert_eq!(parse_frame(&bytes, seal), Parsed::Frame(Box::new(event), bytes.len()));
        // Of another run, or of the version that did not say: no good frame here.
        for other in [Seal::Run(RunId::new()), Seal::None] {
            assert_eq!(parse_frame(&bytes, other), Parsed::Bad);
        }
        assert_eq!(announced(&bytes), Some((bytes.len(), 3)));
        for cut in 0..bytes.len() {
            assert_eq!(parse_frame(&bytes[..cut], seal), Parsed::Short);
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x10;
            assert!(matches!(parse_frame(&damaged, seal), Parsed::Bad | Parsed::Short), "byte {index}");
        }
    }
}
