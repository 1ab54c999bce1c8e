//! Round trips, and one damage a test: the damage is shown to be real, then what becomes of it.

use std::{fs, path::Path};

use proto::v1::{Frame, Stream, event::Kind};

use super::{read::recover, *};
use crate::run::RunId;

fn frame(offset: u64, data: &'static [u8]) -> Kind {
    Kind::Frame(Frame {
        stream: Stream::Stderr.into(),
        offset,
        data: data.to_vec().into(),
        points: Vec::new(),
    })
}

/// A spool of `count` events of 16 bytes of data, in segments of `segment` bytes.
fn filled(folder: &Path, run_id: RunId, count: u64, segment: u64) -> SpoolWriter {
    let mut writer = SpoolWriter::create(folder, run_id).unwrap().with_segment_bytes(segment);
    for index in 0..count {
        assert_eq!(writer.append(1, 2, frame(index * 16, b"0123456789abcdef")).unwrap(), index + 1);
    }
    writer.sync().unwrap();
    writer
}

fn read_all(folder: &Path, run_id: RunId, after: u64, synced: u64) -> Result<Vec<u64>, SpoolError> {
    let mut reader = SpoolReader::open(folder, run_id, after, synced)?;
    let mut out = Vec::new();
    while let Some(event) = reader.next(synced)? {
        out.push(event.sequence);
    }
    Ok(out)
}

#[test]
fn every_event_once_from_everywhere_over_segments() {
    let folder = tempfile::tempdir().unwrap();
    let run_id = RunId::new();
    let writer = filled(folder.path(), run_id, 100, 200);
    assert!(count_segments(folder.path()) > 10);
    for after in [0, 1, 37, 99, 100] {
        let expected: Vec<u64> = (after + 1..=100).collect();
        assert_eq!(read_all(folder.path(), run_id, after, 100).unwrap(), expected);
    }
    assert!(matches!(
        read_all(folder.path(), run_id, 101, 100),
        Err(SpoolError::PastEnd { asked: 101, last: 100 })
    ));
    let found = recover(folder.path(), run_id).unwrap();
    assert_eq!((found.last_sequence, found.stream_ends, found.cut_bytes), (100, [0, 1600, 0], 0));
    assert_eq!(found.total_bytes, writer.total_bytes());
    let last = read::recover_last(folder.path(), run_id).unwrap();
    assert_eq!((last.last_sequence, last.total_bytes), (100, found.total_bytes));
}

#[test]
fn what_is_not_synced_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run_id = RunId::new();
    let mut writer = filled(folder.path(), run_id, 2, 1 << 20);
    let synced = writer.synced();
    writer.append(1, 2, frame(32, b"late")).unwrap();
    assert_eq!(*synced.borrow(), 2);
    assert_eq!(read_all(folder.path(), run_id, 0, *synced.borrow()).unwrap(), [1, 2]);
    writer.sync().unwrap();
    assert_eq!(*synced.borrow(), 3);
    assert_eq!(read_all(folder.path(), run_id, 0, *synced.borrow()).unwrap(), [1, 2, 3]);
}

#[test]
fn a_torn_end_is_cut_byte_by_byte_and_writing_goes_on() {
    let run_id = RunId::new();
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path(), run_id, 3, 1 << 20);
    let bytes = fs::read(segment_path(whole.path(), 1)).unwrap();
    let two = tempfile::tempdir().unwrap();
    filled(two.path(), run_id, 2, 1 << 20);
    let end_of_two = fs::read(segment_path(two.path(), 1)).unwrap().len();
    for size in end_of_two..bytes.len() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(segment_path(folder.path(), 1), &bytes[..size]).unwrap();
        let found = recover(folder.path(), run_id).unwrap();
        assert_eq!((found.last_sequence, found.cut_bytes), (2, (size - end_of_two) as u64), "cut at {size}");
        let mut writer = SpoolWriter::resume(folder.path(), run_id, &found).unwrap();
        assert_eq!(writer.append(1, 2, frame(32, b"again")).unwrap(), 3);
        writer.sync().unwrap();
        assert_eq!(read_all(folder.path(), run_id, 0, 3).unwrap(), [1, 2, 3]);
    }
}

#[test]
fn a_flipped_bit_with_good_frames_behind_it_is_damage() {
    let run_id = RunId::new();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), run_id, 5, 1 << 20);
    let path = segment_path(folder.path(), 1);
    let good = fs::read(&path).unwrap();
    let frame_bytes = (good.len() - format::HEADER_BYTES) / 5;
    let second = format::HEADER_BYTES + frame_bytes;
    for at in second..second + frame_bytes {
        let mut bytes = good.clone();
        bytes[at] ^= 0x04;
        assert_ne!(bytes, good);
        fs::write(&path, &bytes).unwrap();
        let error = recover(folder.path(), run_id).unwrap_err();
        assert!(matches!(error, SpoolError::Damaged { .. }), "byte {at}: {error}");
        let error = read_all(folder.path(), run_id, 0, 5).unwrap_err();
        assert!(matches!(error, SpoolError::Damaged { .. }), "byte {at}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "damage is never repaired by cutting");
    }
}

#[test]
fn damage_in_a_closed_segment_is_never_cut() {
    let run_id = RunId::new();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), run_id, 20, 200);
    let path = segment_path(folder.path(), 1);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(recover(folder.path(), run_id), Err(SpoolError::Damaged { .. })));
    assert!(matches!(read_all(folder.path(), run_id, 0, 20), Err(SpoolError::Damaged { .. })));
}

#[test]
fn a_segment_with_a_torn_header_is_taken_away() {
    let run_id = RunId::new();
    let folder = tempfile::tempdir().unwrap();
    let writer = filled(folder.path(), run_id, 4, 1 << 20);
    drop(writer);
    fs::write(segment_path(folder.path(), 2), b"ARSP").unwrap();
    let found = recover(folder.path(), run_id).unwrap();
    assert_eq!((found.ordinal, found.last_sequence), (1, 4));
    let mut writer = SpoolWriter::resume(folder.path(), run_id, &found).unwrap();
    writer.append(1, 2, frame(64, b"on")).unwrap();
    writer.sync().unwrap();
    assert_eq!(read_all(folder.path(), run_id, 3, 5).unwrap(), [4, 5]);
}

#[test]
fn a_write_that_fails_breaks_the_writer_for_good() {
    let run_id = RunId::new();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = filled(folder.path(), run_id, 1, 60);
    // The folder goes, so the next segment cannot be made.
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(writer.append(1, 2, frame(16, b"x")), Err(SpoolError::Io { .. })));
    assert!(writer.append(1, 2, frame(16, b"x")).is_err() && writer.sync().is_err());
}

#[test]
fn a_torn_end_full_of_would_be_frames_holds_up_no_start() {
    let run_id = RunId::new();
    let folder = tempfile::tempdir().unwrap();
    let good = filled(folder.path(), run_id, 2, 1 << 20).total_bytes();
    let path = segment_path(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    // Every 11 bytes the head of a frame of 2 MiB with a sequence that fits: sums over 1.4 TB, were they all made.
    let mut head = (2_u32 << 20).to_le_bytes().to_vec();
    head.extend([0, 0, 0, 0, 8, 5, 0]);
    bytes.extend(head.repeat((8 << 20) / head.len()));
    fs::write(&path, &bytes).unwrap();
    let begun = std::time::Instant::now();
    let error = recover(folder.path(), run_id).unwrap_err();
    assert!(matches!(error, SpoolError::Damaged { offset, .. } if offset == good), "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn what_an_earlier_version_began_is_read_and_gone_on_with() {
    use super::format::{Header, Seal, push_frame};
    let folder = tempfile::tempdir().unwrap();
    let run_id = RunId::new();
    let mut bytes = Header { version: 1, ..Header::new(run_id, 1) }.encode().to_vec();
    for sequence in 1..=2 {
        let kind = Some(frame((sequence - 1) * 16, b"0123456789abcdef"));
        let event = proto::v1::Event { sequence, kind, ..Default::default() };
        assert!(push_frame(&mut bytes, &event, Seal::None));
    }
    fs::write(segment_path(folder.path(), 1), bytes).unwrap();
    let found = recover(folder.path(), run_id).unwrap();
    assert_eq!((found.last_sequence, found.cut_bytes, found.seal), (2, 0, Some(Seal::None)));
    let mut writer = SpoolWriter::resume(folder.path(), run_id, &found).unwrap().with_segment_bytes(220);
    for index in 2..6 {
        writer.append(1, 2, frame(index * 16, b"0123456789abcdef")).unwrap();
    }
    writer.sync().unwrap();
    assert!(count_segments(folder.path()) > 1, "and the next segment is of this version");
    assert_eq!(read_all(folder.path(), run_id, 0, 6).unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(recover(folder.path(), run_id).unwrap().seal, Some(Seal::Run(run_id)));
}

#[test]
fn a_frame_of_another_run_is_no_frame_of_this_one_although_its_place_and_its_sequence_fit() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run_id = RunId::new();
    filled(ours.path(), run_id, 3, 1 << 20);
    filled(theirs.path(), RunId::new(), 3, 1 << 20);
    let mut bytes = fs::read(segment_path(ours.path(), 1)).unwrap();
    let other = fs::read(segment_path(theirs.path(), 1)).unwrap();
    assert_eq!(bytes.len(), other.len());
    // The second frame of three.
    let size = |at: usize| format::announced(&bytes[at..]).unwrap().0;
    let at = format::HEADER_BYTES + size(format::HEADER_BYTES);
    let place = at..at + size(at);
    bytes[place.clone()].copy_from_slice(&other[place.clone()]);
    fs::write(segment_path(ours.path(), 1), bytes).unwrap();
    let Err(SpoolError::Damaged { offset, .. }) = recover(ours.path(), run_id) else { panic!("it is read") };
    assert_eq!(offset, place.start as u64);
    assert!(matches!(read_all(ours.path(), run_id, 0, 3), Err(SpoolError::Damaged { .. })));
}
