//! The campaign's error ledger (METHOD §4): what each look of each contrast of each experiment may spend.
//!
//! A campaign has A = 0.05 and at most J confirmatory experiments, both fixed at its start. With J = 1 the one
//! experiment gets all; else the first gets A/2 and each later one A/(2(J−1)). Primary contrasts share their
//! experiment's part equally; looks take [1], [.2, .8] or [.1, .3, .6] of it. What is not spent is lost.
//!
//! The proof is the union bound: the parts sum to A, whatever the dependence between looks and contrasts and
//! whatever the reason for stopping (repeated confidence intervals, Jennison & Turnbull 2000, ch. 9). Nothing is
//! passed on after a verdict: with three-way verdicts that breaks the bound (METHOD §4, simulated).

use serde::{Deserialize, Serialize};

use super::estimate::SEEDS_MIN;

/// Error of a whole campaign.
pub const CAMPAIGN_ALPHA: f64 = 0.05;
/// Confirmatory experiments in a campaign unless set otherwise (METHOD §4, our choice).
pub const EXPERIMENTS_DEFAULT: u32 = 3;

/// A campaign's error and the number of confirmatory experiments that share it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The whole campaign's error, between 0 and 1.
    pub alpha: f64,
    /// Confirmatory experiments at most, J ≥ 1.
    pub experiments: u32,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(EXPERIMENTS_DEFAULT)
    }
}

/// Why the ledger has no level for a look.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LedgerError {
    /// The campaign's error is not a probability.
    #[error("the campaign's error is {alpha}, and must be above 0 and below 1")]
    Alpha {
        /// What it is.
        alpha: f64,
    },
    /// All confirmatory experiments are used up.
    #[error(
        "confirmatory experiment number {} is one too many: the campaign was planned with {experiments}; \
         further experiments are exploratory", .experiment + 1
    )]
    Spent {
        /// The experiment asked for, from 0.
        experiment: u32,
        /// J.
        experiments: u32,
    },
    /// No primary contrast.
    #[error("an experiment without a primary contrast spends no error and gives no verdict")]
    NoContrasts,
    /// Not one to three looks, not increasing, or the first under three seeds.
    #[error(
        "looks {looks:?}: write one to three increasing numbers of seeds, the first at least {SEEDS_MIN}"
    )]
    Looks {
        /// The looks.
        looks: Vec<u32>,
    },
    /// A look that was not registered.
    #[error("look number {} was not registered: the looks are {looks:?}", .look + 1)]
    Unregistered {
        /// The look asked for, from 0.
        look: usize,
        /// The looks.
        looks: Vec<u32>,
    },
}

impl Ledger {
    /// A ledger of [`CAMPAIGN_ALPHA`] for `experiments` confirmatory experiments.
    pub fn new(experiments: u32) -> Self {
        Self { alpha: CAMPAIGN_ALPHA, experiments }
    }

    /// The part of `alpha` that confirmatory experiment number `experiment` (from 0) may spend; the parts sum to 1.
    ///
    /// # Errors
    /// [`LedgerError::Spent`] past the last one.
    pub fn share(&self, experiment: u32) -> Result<f64, LedgerError> {
        match (experiment, self.experiments) {
            (experiment, experiments) if experiment >= experiments => {
                Err(LedgerError::Spent { experiment, experiments })
            }
            (_, 1) => Ok(1.0),
            (0, _) => Ok(0.5),
            (_, experiments) => Ok(0.5 / f64::from(experiments - 1)),
        }
    }

    /// The error of one confirmatory experiment: the `alpha` that a design is checked with.
    ///
    /// # Errors
    /// [`LedgerError`]: the campaign's error is none, or the experiment is one too many.
    pub fn experiment_error(&self, experiment: u32) -> Result<f64, LedgerError> {
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return Err(LedgerError::Alpha { alpha: self.alpha });
        }
        Ok(self.alpha * self.share(experiment)?)
    }

    /// The two-sided error of one interval: experiment (from 0), number of its primary contrasts, registered
    /// looks (seeds, like `[5, 10]`), which look (from 0).
    ///
    /// # Errors
    /// [`LedgerError`], which says what was not registered.
    pub fn level(
        &self,
        experiment: u32,
        contrasts: usize,
        looks: &[u32],
        look: usize,
    ) -> Result<f64, LedgerError> {
        if contrasts == 0 {
            return Err(LedgerError::NoContrasts);
        }
        let shares = look_shares(looks)?;
        let share =
            shares.get(look).ok_or_else(|| LedgerError::Unregistered { look, looks: looks.to_vec() })?;
        Ok(self.experiment_error(experiment)? * share / contrasts as f64)
    }
}

/// The part of a contrast's error that each look takes.
///
/// METHOD registers the shares for (n), (5, 10) and (5, 10, 20); other numbers of seeds take the shares of their
/// count, since the union bound needs only that they sum to 1 and were fixed before the first look.
///
/// # Errors
/// [`LedgerError::Looks`]: not one to three, not increasing, or the first under three seeds.
pub fn look_shares(looks: &[u32]) -> Result<&'static [f64], LedgerError> {
    let refused = || LedgerError::Looks { looks: looks.to_vec() };
    if looks.first().is_none_or(|&first| (first as usize) < SEEDS_MIN)
        || looks.windows(2).any(|w| w[0] >= w[1])
    {
        return Err(refused());
    }
    match looks.len() {
        1 => Ok(&[1.0]),
        2 => Ok(&[0.2, 0.8]),
        3 => Ok(&[0.1, 0.3, 0.6]),
        _ => Err(refused()),
    }
}
