//! Files that are not what was written: each is named, none is read as good.

use std::fs;

use rusqlite::Connection;

use super::*;

async fn filled(folder: &Path) -> (CampaignId, RunId) {
    let journal = open(folder);
    let id = campaign(&journal, Limits::default()).await;
    for n in 0..40 {
        journal.append_step(id, "step", &json!({ "n": n, "text": "x".repeat(200) })).await.unwrap();
    }
    let run = planned(&journal, id).await;
    let values: Vec<f64> = (0..2_000).map(f64::from).collect();
    journal.open_run(run).await.unwrap().apply(vec![metric(1, "loss", &values)]).await.unwrap();
    (id, run)
}

/// The first thing that anybody says against the journal, reading what a report reads.
async fn complaint(folder: &Path, id: CampaignId, run: RunId) -> Option<String> {
    let journal = match Journal::open(folder, SystemClock::shared()) {
        Ok(journal) => journal,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = journal.steps(id).await {
        return Some(error.to_string());
    }
    journal.points(run, "loss").await.err().map(|error| error.to_string())
}

#[tokio::test]
async fn a_journal_that_was_cut_off_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (id, run) = filled(folder.path()).await;
    let path = folder.path().join("journal.db");
    let whole = fs::read(&path).unwrap();
    assert!(complaint(folder.path(), id, run).await.is_none());
    for length in [0, 1, 99, 100, 512, 4_096, whole.len() / 2, whole.len() - 4_096, whole.len() - 1] {
        for beside in ["journal.db-wal", "journal.db-shm"] {
            fs::remove_file(folder.path().join(beside)).ok();
        }
        fs::write(&path, &whole[..length]).unwrap();
        fs::create_dir_all(folder.path().join(format!("campaigns/{id}"))).unwrap();
        let said = complaint(folder.path(), id, run).await;
        let said = said.unwrap_or_else(|| panic!("{length} of {} bytes were read as good", whole.len()));
        assert!(said.contains("journal.db") && said.contains("damaged"), "{length}: {said}");
    }
}

#[tokio::test]
async fn a_bit_that_flips_in_what_a_report_reads_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (id, run) = filled(folder.path()).await;
    let path = folder.path().join("journal.db");
    let whole = fs::read(&path).unwrap();
    // Steps' bodies and points' chunks are found by what they hold. Pages keep dead copies of what they once held, so
    // the bit flips in every copy.
    let value = 1_234.0f64.to_bits().to_le_bytes();
    let places: [(&[u8], usize); 4] = [(b"{\"n\":7,", 5), (&[b'x'; 150], 100), (&value, 0), (&value, 6)];
    for (needle, offset) in places {
        let mut flipped = whole.clone();
        let found: Vec<usize> =
            (0..whole.len() - needle.len()).filter(|at| whole[*at..].starts_with(needle)).collect();
        assert!(!found.is_empty(), "the damage is real");
        for at in found {
            flipped[at + offset] ^= 0x04;
        }
        fs::write(&path, &flipped).unwrap();
        let said = complaint(folder.path(), id, run).await;
        let said = said.unwrap_or_else(|| panic!("{needle:?} + {offset} was read as good"));
        assert!(said.contains("journal.db") && said.contains("damaged"), "{said}");
    }
    fs::write(&path, &whole).unwrap();
    assert!(complaint(folder.path(), id, run).await.is_none());
}

#[tokio::test]
async fn what_is_no_journal_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let missing = Journal::open_read_only(folder.path(), SystemClock::shared()).unwrap_err();
    assert!(missing.is_not_there(), "{missing}");
    assert!(!path.exists());

    fs::write(&path, "a text, and longer than the header of a SQLite file is: ".repeat(10)).unwrap();
    let error = Journal::open(folder.path(), SystemClock::shared()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (x)").unwrap();
    let before = fs::read(&path).unwrap();
    let error = Journal::open(folder.path(), SystemClock::shared()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { found: 0, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let newer = migrations::VERSION + 1;
    let connection = Connection::open(folder.path().join("journal.db")).unwrap();
    connection.pragma_update(None, "user_version", newer).unwrap();
    drop(connection);
    for error in [
        Journal::open(folder.path(), SystemClock::shared()).unwrap_err(),
        Journal::open_read_only(folder.path(), SystemClock::shared()).unwrap_err(),
    ] {
        let said = error.to_string();
        assert!(
            said.contains(&newer.to_string()) && said.contains(&migrations::VERSION.to_string()),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_log_file_that_lost_bytes_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    journal.open_run(run).await.unwrap().apply(vec![output(1, v1::Stream::Stdout, b"one\n")]).await.unwrap();
    fs::write(journal.log_path(id, run, LogStream::Stdout), b"on").unwrap();
    let error = journal.open_run(run).await.unwrap_err();
    assert!(matches!(&error, JournalError::Damaged { path, .. } if path.ends_with("stdout")), "{error}");
    // A refusal does not keep the run open.
    fs::write(journal.log_path(id, run, LogStream::Stdout), b"one\n").unwrap();
    journal.open_run(run).await.unwrap();
}

#[tokio::test]
async fn the_pragmas_are_what_the_design_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let found = journal
        .write(|c| {
            let number = |name: &str| c.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let mode: String = c.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
            Ok((mode, number("synchronous")?, number("foreign_keys")?, number("application_id")?))
        })
        .await
        .unwrap();
    assert_eq!(found, ("wal".to_owned(), 2, 1, i64::from(migrations::APPLICATION_ID)));
    let tables: Vec<String> = journal
        .read(|c| {
            let mut statement = c.prepare(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
                AND strict = 0 AND name NOT LIKE 'sqlite_%'",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
        .unwrap();
    assert_eq!(tables, Vec::<String>::new(), "every table is STRICT");
}
