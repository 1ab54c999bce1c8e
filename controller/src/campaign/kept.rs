//! What a kill must not take from a campaign: everything that the next step depends on, as one value. It is stored with
//! every step (`journal/snapshots.rs`), so that whoever takes a campaign up goes on exactly where it was.
//!
//! What is not in it: the ends of runs and the programs, which the journal has and from where they are read again; what
//! a connection tells (the workers are asked anew whether they have image and blobs); the time, which the journal counts.
//!
//! The bytes are MessagePack, because a float comes back exactly, also one that JSON lacks: a plan that is asked for
//! again must be the same question to the last digit, or a reply would be paid for twice.

use serde::{Deserialize, Serialize};

use crate::{journal::Snapshot, stats::Ledger};

use super::{
    budget::Failures,
    check::Sound,
    executor::spec::Blob,
    machine::{Action, Bounds, Machine},
    record::Record,
    researcher::{BudgetLeft, Failure, Fault, Program, Workers},
    settings::{CONFIRMATORY, CampaignSettings, REPLIES},
};

/// Of the form of the bytes. Raised where an older one could no longer be read as what it meant.
const VERSION: u32 = 1;

/// Why a campaign cannot be taken up.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// By a later program.
    #[error(
        "what was kept of the campaign has form {found}, and this program reads {VERSION}: resume it with the version of \
         autoresearch that ran it"
    )]
    Version {
        /// Of the snapshot.
        found: u32,
    },
    /// The seal is right and the bytes mean nothing: a fault of the program that wrote them.
    #[error("what was kept of the campaign cannot be read, please report it: {0}")]
    Meaning(#[from] rmp_serde::decode::Error),
    /// A fault of this program.
    #[error("what is to be kept of the campaign cannot be written, please report it: {0}")]
    Writing(#[from] rmp_serde::encode::Error),
}

/// Everything that the next step depends on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// As they are now: a budget may have been raised.
    pub settings: CampaignSettings,
    pub machine: Machine,
    /// What is under way, or is to be done next.
    pub pending: Option<Action>,
    pub record: Record,
    pub ledger: Ledger,
    pub failures: Failures,
    pub workers: Workers,
    pub longest_seconds: u32,
    pub started_at: String,
    /// What was left of the budgets when the action began: a prompt tells it, and must tell the same after a kill.
    pub left: BudgetLeft,
    /// The last command of another process that counts already.
    pub obeyed: u64,
    /// What was wrong with the last plan.
    pub faults: Vec<Fault>,
    /// The plan that is to be registered.
    pub draft: Option<Sound>,
    /// What the last batch or check gave a repair to do.
    pub broken: Vec<Failure>,
    /// Variants at fault in it.
    pub broken_variants: Vec<String>,
    /// The repairs' signatures so far, to see the same error again.
    pub signatures: Vec<String>,
    /// The program that was written and is not yet checked.
    pub written: Option<Program>,
    /// The revision's program on the workers.
    pub program: Option<Blob>,
    /// Data sets on the workers.
    pub data: Vec<(String, Blob)>,
    /// The limit that the open experiment's runs have.
    pub time_seconds: u32,
}

impl Kept {
    /// Before the first step.
    pub fn new(id: String, settings: CampaignSettings, started_at: String) -> Self {
        let bounds =
            Bounds { iterations: settings.max_iterations, plans: REPLIES, repairs: settings.repairs };
        let confirmatory = CONFIRMATORY.min(settings.max_iterations).max(1);
        Self {
            machine: Machine::new(bounds),
            pending: None,
            record: Record { id, ..Record::default() },
            ledger: Ledger::new(confirmatory),
            failures: Failures::default(),
            workers: Workers::default(),
            longest_seconds: 0,
            started_at,
            left: BudgetLeft::default(),
            obeyed: 0,
            faults: Vec::new(),
            draft: None,
            broken: Vec::new(),
            broken_variants: Vec::new(),
            signatures: Vec::new(),
            written: None,
            program: None,
            data: Vec::new(),
            time_seconds: 0,
            settings,
        }
    }

    /// As the journal stores it.
    ///
    /// # Errors
    /// [`KeptError::Writing`].
    pub fn snapshot(&self) -> Result<Snapshot, KeptError> {
        Ok(Snapshot { version: VERSION, body: rmp_serde::to_vec_named(self)? })
    }

    /// From what the journal stored. The runs have no ends and the programs no text yet.
    ///
    /// # Errors
    /// [`KeptError::Version`], [`KeptError::Meaning`].
    pub fn of(snapshot: &Snapshot) -> Result<Self, KeptError> {
        if snapshot.version != VERSION {
            return Err(KeptError::Version { found: snapshot.version });
        }
        Ok(rmp_serde::from_slice(&snapshot.body)?)
    }
}
