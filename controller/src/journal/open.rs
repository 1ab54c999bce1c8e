//! Opening: whose file it is, whether it is whole, which version it has; then the pragmas that DESIGN §6 asks for.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use kit::{
    clock::Clock,
    folder::{FolderError, create_private},
};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    ControllerId, Inner, Journal,
    error::{JournalError, OpenError},
    migrations::{APPLICATION_ID, VERSION, migrate},
    paths::{CAMPAIGNS, FILE},
    reader::{self, Readers},
    writer::Writer,
};

/// A file up to this size is walked at every opening; that takes under 50 ms. A larger one is walked by `doctor`, and
/// the seals guard what is read from it.
const WALKED_MAX: u64 = 16 << 20;
/// How long another process may hold the write lock before we give up.
const BUSY: Duration = Duration::from_secs(10);
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Journal, OpenError> {
    create_private(data_dir)?;
    create_private(&data_dir.join(CAMPAIGNS))?;
    let path = data_dir.join(FILE);
    look(&path, data_dir)?;
    let connection = writable(&path)?;
    let controller = controller(&connection).map_err(|e| sql(&path, e))?;
    let writer = Writer::start(connection).map_err(OpenError::Thread)?;
    Ok(journal(data_dir, clock, controller, Some(writer)))
}

pub(super) fn open_read_only(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Journal, OpenError> {
    let path = data_dir.join(FILE);
    let size = fs::metadata(&path).map_or(0, |found| found.len());
    if size == 0 && !path.exists() {
        return Err(OpenError::NotThere { path });
    }
    look(&path, data_dir)?;
    let connection = reader::connect(&path).map_err(|e| sql(&path, e))?;
    if identify(&connection, &path)? < VERSION {
        drop(writable(&path)?);
    }
    walk_small(&connection, &path)?;
    let controller = controller(&connection).map_err(|e| sql(&path, e))?;
    Ok(journal(data_dir, clock, controller, None))
}

fn journal(
    data_dir: &Path,
    clock: Arc<dyn Clock>,
    controller: ControllerId,
    writer: Option<Writer>,
) -> Journal {
    let readers = Readers::new(data_dir.join(FILE));
    let data_dir = data_dir.to_owned();
    Journal {
        inner: Arc::new(Inner {
            data_dir,
            clock,
            controller,
            writer,
            readers,
            open_runs: Default::default(),
        }),
    }
}

/// Opens for writing, identifies, walks, migrates.
fn writable(path: &Path) -> Result<Connection, OpenError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| sql(path, e))?;
    configure(&connection).map_err(|e| sql(path, e))?;
    let version = identify(&connection, path)?;
    walk_small(&connection, path)?;
    let prepare = || -> rusqlite::Result<()> {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "full")?;
        if version < VERSION {
            migrate(&connection)?;
        }
        Ok(())
    };
    prepare().map_err(|e| sql(path, e))?;
    Ok(connection)
}

/// What every connection of ours has.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", "on")?;
    // The schema comes from a file, and a file may have been touched by others.
    connection.pragma_update(None, "trusted_schema", "off")?;
    connection.pragma_update(None, "cell_size_check", "on")
}

/// What can be told without SQLite, so that it is told in our words.
fn look(path: &Path, data_dir: &Path) -> Result<(), OpenError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FolderError::io("open", path, error).into()),
    };
    let damaged = |detail: &str| OpenError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let mut header = [0; 100];
    let mut found = 0;
    while found < header.len() {
        match file.read(&mut header[found..]).map_err(|e| FolderError::io("read", path, e))? {
            0 => break,
            n => found += n,
        }
    }
    if found == 0 {
        // What a kill leaves just after the file was made; but with campaigns beside it, it was more once.
        let campaigns =
            fs::read_dir(data_dir.join(CAMPAIGNS)).is_ok_and(|mut entries| entries.next().is_some());
        return if campaigns { Err(damaged("it is empty, though campaigns lie beside it")) } else { Ok(()) };
    }
    if found < header.len() || header[..16] != *MAGIC {
        return Err(damaged("it does not begin like a SQLite file"));
    }
    Ok(())
}

/// The file's version, once it is known to be ours and not newer. A file with nothing in it is ours.
fn identify(connection: &Connection, path: &Path) -> Result<i32, OpenError> {
    let number = |pragma: &str| -> Result<i32, OpenError> {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|e| sql(path, e))
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| sql(path, e))?;
    if tables == 0 && application == 0 && version == 0 {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), found: application });
    }
    if version > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known: VERSION });
    }
    if version < 1 {
        let detail = format!("its schema version is {version}");
        return Err(OpenError::Damaged { path: path.to_owned(), detail });
    }
    Ok(version)
}

fn controller(connection: &Connection) -> rusqlite::Result<ControllerId> {
    connection.query_row("SELECT value FROM meta WHERE key = 'controller_id'", [], |row| {
        super::rows::parsed(row, "value")
    })
}

fn walk_small(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    if fs::metadata(path).map_or(0, |found| found.len()) > WALKED_MAX {
        return Ok(());
    }
    match walk(connection, path) {
        Ok(()) => Ok(()),
        Err(JournalError::Damaged { path, detail }) => Err(OpenError::Damaged { path, detail }),
        Err(error) => Err(OpenError::Damaged { path: path.to_owned(), detail: error.to_string() }),
    }
}

/// Walks every page, index and reference.
pub(super) fn walk(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let damaged = |detail: String| JournalError::Damaged { path: path.to_owned(), detail };
    let found: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| damaged(error.to_string()))?;
    if found != "ok" {
        return Err(damaged(found));
    }
    let dangling: Option<String> = {
        let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    match dangling {
        None => Ok(()),
        Some(table) => Err(damaged(format!("a row of `{table}` refers to nothing"))),
    }
}

fn sql(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            OpenError::Damaged { path, detail: source.to_string() }
        }
        _ => match &source {
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::QueryReturnedNoRows => {
                OpenError::Damaged { path, detail: source.to_string() }
            }
            _ => OpenError::Sql { path, source },
        },
    }
}
