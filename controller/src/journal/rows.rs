//! Ids, words and the small conversions between rows and values that every query here uses.

use std::str::FromStr;

use rusqlite::{
    Row,
    types::{FromSql, Type},
};

kit::id_type!(
    /// Of a campaign.
    CampaignId,
    "campaign"
);
kit::id_type!(
    /// Of a run: the worker's idempotency key.
    RunId,
    "run"
);
kit::id_type!(
    /// Of a call to a model.
    CallId,
    "call"
);
kit::id_type!(
    /// Of a journal, and so of all processes on it.
    ControllerId,
    "controller"
);

/// Declares an enum that is stored, printed and serialised as a word.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// The word, as it is stored and shown.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl rusqlite::types::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                match value.as_str()? {
                    $($word => Ok(Self::$variant),)+
                    other => Err(rusqlite::types::FromSqlError::Other(
                        format!(concat!("`{}` is no ", stringify!($name)), other.escape_debug()).into(),
                    )),
                }
            }
        }
    };
}
pub(super) use words;

fn parse<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(index)?.as_str()?;
    text.parse()
        .map_err(|e: T::Err| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(e)))
}

fn count(index: usize, value: i64) -> rusqlite::Result<u64> {
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

/// A column that holds the text of something that parses: an id, a digest.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    parse(row, row.as_ref().column_index(column)?)
}

/// SQLite's integers are signed. A count that does not fit is a wrong count from outside and is held at the end.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count or a length: never below zero in what we wrote.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    count(row.as_ref().column_index(column)?, row.get(column)?)
}

/// As [`unsigned`], where the column may be empty.
pub(super) fn unsigned_option(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    let index = row.as_ref().column_index(column)?;
    row.get::<_, Option<i64>>(index)?.map(|value| count(index, value)).transpose()
}

/// The columns of a row, one after the other.
pub(super) struct InOrder<'a, 'b> {
    row: &'a Row<'b>,
    next: usize,
}

impl<'a, 'b> InOrder<'a, 'b> {
    pub(super) fn of(row: &'a Row<'b>) -> Self {
        Self { row, next: 0 }
    }

    fn place(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn get<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let index = self.place();
        self.row.get(index)
    }

    pub(super) fn parsed<T>(&mut self) -> rusqlite::Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let index = self.place();
        parse(self.row, index)
    }

    pub(super) fn parsed_option<T>(&mut self) -> rusqlite::Result<Option<T>>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let index = self.place();
        if self.row.get_ref(index)?.as_str_or_null()?.is_none() {
            Ok(None)
        } else {
            parse(self.row, index).map(Some)
        }
    }

    pub(super) fn unsigned(&mut self) -> rusqlite::Result<u64> {
        let index = self.place();
        count(index, self.row.get(index)?)
    }

    pub(super) fn unsigned_option(&mut self) -> rusqlite::Result<Option<u64>> {
        let index = self.place();
        self.row.get::<_, Option<i64>>(index)?.map(|value| count(index, value)).transpose()
    }
}
