//! Hard stops that are the program's: wall-clock, device-hours, money, failures in a row. (Iterations and repairs are
//! the machine's.) Pure: readings come in, and which limit was reached comes out. What is reserved and settled is the
//! journal's; this only says when to stop asking.

use std::time::Duration;

use proto::v1::OutcomeKind;
use serde::{Deserialize, Serialize};

use super::{machine::StoppedBy, researcher::BudgetLeft, settings::CampaignSettings};

/// What was used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Awake and not paused.
    pub awake: Duration,
    /// Reserved and settled, of devices (slots on a CPU worker).
    pub devices: Duration,
    /// Reserved and settled, US dollars.
    pub dollars: f64,
}

/// The limits of a campaign; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Awake and not paused.
    pub awake: Duration,
    /// Of devices.
    pub devices: Option<Duration>,
    /// US dollars.
    pub dollars: Option<f64>,
    /// Failures in a row.
    pub failures: u32,
}

impl Budget {
    /// Of the settings.
    #[must_use]
    pub fn of(settings: &CampaignSettings) -> Self {
        Self {
            awake: settings.time_budget,
            devices: settings.gpu_budget,
            dollars: settings.cost_budget,
            failures: settings.max_failures,
        }
    }

    /// The limit that was reached, if any.
    #[must_use]
    pub fn reached(&self, used: &Used, failures: Failures) -> Option<StoppedBy> {
        if used.awake >= self.awake {
            Some(StoppedBy::WallClock)
        } else if self.devices.is_some_and(|limit| used.devices >= limit) {
            Some(StoppedBy::DeviceHours)
        } else if self.dollars.is_some_and(|limit| used.dollars >= limit) {
            Some(StoppedBy::Money)
        } else if failures.in_a_row >= self.failures {
            Some(StoppedBy::FailuresInARow)
        } else {
            None
        }
    }

    /// What is left, for the planner and the progress line.
    #[must_use]
    pub fn left(&self, used: &Used) -> BudgetLeft {
        BudgetLeft {
            seconds: Some(self.awake.saturating_sub(used.awake).as_secs_f64()),
            device_seconds: self.devices.map(|limit| limit.saturating_sub(used.devices).as_secs_f64()),
            dollars: self.dollars.map(|limit| (limit - used.dollars).max(0.0)),
        }
    }
}

/// Failures in a row: experiments' programs that failed one after another. Runs of one batch fail together for one
/// reason, so a batch counts once; what the plan expects (divergence, memory where it says so) counts as neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Batches (smoke runs, or the runs of a seed) that failed since the last success.
    pub in_a_row: u32,
}

impl Failures {
    /// Takes the outcomes of a batch in.
    pub fn take(&mut self, outcomes: impl IntoIterator<Item = OutcomeKind>) {
        use OutcomeKind as K;
        let mut any_failed = false;
        for outcome in outcomes {
            match outcome {
                // One that works shows that the program does: what failed beside it is repair's business.
                K::Succeeded => {
                    self.in_a_row = 0;
                    return;
                }
                K::Failed
                | K::MissingMetrics
                | K::LimitExceeded
                | K::DependencyConflict
                | K::TimedOut
                | K::Stalled
                | K::OutOfMemory
                | K::GpuOutOfMemory
                | K::Lost
                | K::Rejected => any_failed = true,
                K::Diverged | K::Cancelled | K::Unspecified => {}
            }
        }
        self.in_a_row += u32::from(any_failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn each_limit_stops_by_its_own_name() {
        let budget = Budget { awake: HOUR, devices: Some(HOUR), dollars: Some(1.0), failures: 2 };
        let none = Failures::default();
        let used = Used::default();
        assert_eq!(budget.reached(&used, none), None);
        assert_eq!(budget.reached(&Used { awake: HOUR, ..used }, none), Some(StoppedBy::WallClock));
        assert_eq!(budget.reached(&Used { devices: HOUR, ..used }, none), Some(StoppedBy::DeviceHours));
        assert_eq!(budget.reached(&Used { dollars: 1.0, ..used }, none), Some(StoppedBy::Money));
        assert_eq!(budget.reached(&used, Failures { in_a_row: 2 }), Some(StoppedBy::FailuresInARow));
        let unlimited = Budget { devices: None, dollars: None, ..budget };
        assert_eq!(unlimited.reached(&Used { devices: 9 * HOUR, dollars: 99.0, ..used }, none), None);
    }

    #[test]
    fn a_batch_counts_once_and_what_is_a_result_never() {
        use OutcomeKind as K;
        let mut failures = Failures::default();
        failures.take([K::Failed, K::Failed, K::TimedOut]);
        assert_eq!(failures.in_a_row, 1);
        failures.take([K::Diverged, K::Diverged]);
        assert_eq!(failures.in_a_row, 1, "a divergence neither counts nor clears");
        failures.take([K::OutOfMemory]);
        assert_eq!(failures.in_a_row, 2);
        failures.take([K::Failed, K::Succeeded]);
        assert_eq!(failures.in_a_row, 0);
    }
}
