//! Metric points. Those of one metric that came in one batch are one chunk, with one seal: 10,000,000 rows would be
//! twice the bytes and many times the work. A point is 33 bytes, little-endian: the event's sequence, whether there
//! is a step, the step, the value's bits, the elapsed time.
//!
//! SQLite turns NaN into NULL, so values are kept as bits, and what a program logged comes back bit by bit.

use std::collections::BTreeMap;

use proto::v1;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use super::{
    CampaignId, Journal, JournalError, RunId, RunPurpose,
    campaigns::number,
    rows::{parsed, signed, unsigned},
    run_rows::number as run_number,
    seal::{check, seal},
};

/// Bytes of one point in a chunk.
const POINT: usize = 33;
/// Points of one chunk at most, so that one blob stays small.
const CHUNK: usize = 4_096;

/// One value of one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Of the event that brought it.
    pub sequence: u64,
    /// The program's own step.
    pub step: Option<i64>,
    /// As the program gave it: NaN and infinities too.
    pub value: f64,
    /// The program's clock, ns since the start gate.
    pub elapsed_ns: u64,
}

/// All points of one metric of one run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Whose.
    pub run: RunId,
    /// Of that run.
    pub variant: String,
    /// Of that run.
    pub seed: u64,
    /// In the order in which they came.
    pub points: Vec<Point>,
}

/// What a run logged under one name, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricSummary {
    /// The metric's name.
    pub name: String,
    /// How many points.
    pub points: u64,
    /// Of the last point.
    pub last_step: Option<i64>,
    /// Of the last point.
    pub last: f64,
}

/// Points of a batch of events, by metric.
#[derive(Debug, Default)]
pub(super) struct NewPoints {
    by_metric: BTreeMap<String, Vec<Point>>,
}

impl NewPoints {
    pub(super) fn add(&mut self, sequence: u64, points: Vec<v1::MetricPoint>) {
        for point in points {
            let v1::MetricPoint { name, value, step, elapsed_ns } = point;
            self.by_metric.entry(name).or_default().push(Point { sequence, step, value, elapsed_ns });
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.by_metric.values().map(|points| points.len() as u64).sum()
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_metric.keys().map(String::as_str)
    }

    /// Appends them to the run's series.
    pub(super) fn store(&self, connection: &Connection, run: i64) -> Result<(), JournalError> {
        for (metric, points) in &self.by_metric {
            let Some(last) = points.last() else { continue };
            let before: u64 = connection
                .prepare_cached("SELECT points FROM series WHERE run = ?1 AND metric = ?2")?
                .query_row((run, metric), |row| unsigned(row, "points"))
                .optional()?
                .unwrap_or_default();
            let mut first = before;
            for chunk in points.chunks(CHUNK) {
                let bytes = encode(chunk);
                connection
                    .prepare_cached(
                        "INSERT INTO points (run, metric, first, chunk, seal) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute((run, metric, signed(first), &bytes, seal(&bytes)))?;
                first += chunk.len() as u64;
            }
            connection
                .prepare_cached(
                    "INSERT INTO series (run, metric, points, last_step, last_value_bits) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (run, metric) DO UPDATE SET points = ?3, last_step = ?4, last_value_bits = ?5",
                )?
                .execute((run, metric, signed(first), last.step, last.value.to_bits().cast_signed()))?;
        }
        Ok(())
    }
}

pub(super) fn encode(points: &[Point]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(points.len() * POINT);
    for point in points {
        bytes.extend(point.sequence.to_le_bytes());
        bytes.push(u8::from(point.step.is_some()));
        bytes.extend(point.step.unwrap_or_default().to_le_bytes());
        bytes.extend(point.value.to_bits().to_le_bytes());
        bytes.extend(point.elapsed_ns.to_le_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], into: &mut Vec<Point>) {
    let word = |piece: &[u8], at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&piece[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    into.extend(bytes.chunks_exact(POINT).map(|piece| Point {
        sequence: word(piece, 0),
        step: (piece[8] == 1).then(|| word(piece, 9).cast_signed()),
        value: f64::from_bits(word(piece, 17)),
        elapsed_ns: word(piece, 25),
    }));
}

/// A metric's points from its chunks, checked against the count in `series`.
fn load(connection: &Connection, run: i64, metric: &str) -> Result<Vec<Point>, JournalError> {
    let expected: Option<u64> = connection
        .prepare_cached("SELECT points FROM series WHERE run = ?1 AND metric = ?2")?
        .query_row((run, metric), |row| unsigned(row, "points"))
        .optional()?;
    let Some(expected) = expected else { return Ok(Vec::new()) };
    let mut statement = connection
        .prepare_cached("SELECT chunk, seal FROM points WHERE run = ?1 AND metric = ?2 ORDER BY first")?;
    let mut rows = statement.query((run, metric))?;
    let mut points = Vec::with_capacity(usize::try_from(expected.min(1 << 20)).unwrap_or_default());
    while let Some(row) = rows.next()? {
        let chunk = row.get_ref("chunk")?.as_blob().map_err(rusqlite::Error::from)?;
        check("chunk of metric points", chunk, row.get("seal")?)?;
        decode(chunk, &mut points);
    }
    if points.len() as u64 != expected {
        let found = points.len();
        return Err(rusqlite::Error::FromSqlConversionFailure(
            0,
            rusqlite::types::Type::Blob,
            format!("a series has {found} points and was written with {expected}").into(),
        )
        .into());
    }
    Ok(points)
}

impl Journal {
    /// The points of one metric of one run, in the order in which they came; none for a name it never logged.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where they are not what was written.
    pub async fn points(&self, run: RunId, metric: &str) -> Result<Vec<Point>, JournalError> {
        let metric = metric.to_owned();
        self.read(move |c| load(c, run_number(c, run)?, &metric)).await
    }

    /// What a run logged, by name.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn metrics(&self, run: RunId) -> Result<Vec<MetricSummary>, JournalError> {
        self.read(move |c| {
            let run = run_number(c, run)?;
            let mut statement = c.prepare_cached("SELECT * FROM series WHERE run = ?1 ORDER BY metric")?;
            let rows = statement.query_map([run], |row| {
                Ok(MetricSummary {
                    name: row.get("metric")?,
                    points: unsigned(row, "points")?,
                    last_step: row.get("last_step")?,
                    last: f64::from_bits(row.get::<_, i64>("last_value_bits")?.cast_unsigned()),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// One metric of all full runs of an experiment, in the order in which the runs were planned, from one snapshot.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where points are not what was written.
    pub async fn series(
        &self,
        campaign: CampaignId,
        experiment: u32,
        metric: &str,
    ) -> Result<Vec<Series>, JournalError> {
        let metric = metric.to_owned();
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement = c.prepare_cached(
                "SELECT number, id, variant, seed FROM runs
                 WHERE campaign = ?1 AND experiment = ?2 AND purpose = ?3 ORDER BY number",
            )?;
            let mut rows = statement.query((campaign, experiment, RunPurpose::Full))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let points = load(c, row.get("number")?, &metric)?;
                if !points.is_empty() {
                    let seed = row.get::<_, i64>("seed")?.cast_unsigned();
                    found.push(Series {
                        run: parsed(row, "id")?,
                        variant: row.get("variant")?,
                        seed,
                        points,
                    });
                }
            }
            Ok(found)
        })
        .await
    }
}
