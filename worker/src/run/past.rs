//! What a run's events say to a process that takes it up: where it was, what it used, and when it last did something. So the
//! peaks stay the run's, and a program that was idle before a restart of the worker has been idle since then.

use std::time::Duration;

use proto::v1::{Event, GpuUsage, Usage, event::Kind};

use super::state::State;

/// From all events, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// The last one that was told.
    pub state: Option<State>,
    /// The last sample.
    pub usage: Option<Usage>,
    /// Since the gate, at the last sample.
    pub sampled: Duration,
    /// Since the gate, when there was last output or a busy device.
    pub active: Duration,
    /// Of all samples.
    pub disk_peak: u64,
    /// Of all samples.
    pub gpu_peaks: Vec<GpuUsage>,
}

impl Past {
    /// Takes the next event in; `is_busy` says whether so much CPU time in so much time is work.
    pub fn take(&mut self, event: &Event, is_busy: impl Fn(Duration, Duration) -> bool) {
        let elapsed = Duration::from_nanos(event.elapsed_ns);
        match &event.kind {
            Some(Kind::StateChange(change)) => self.state = State::of_wire(change.state()).or(self.state),
            Some(Kind::Frame(_)) => self.active = elapsed,
            Some(Kind::Usage(usage)) => {
                let cpu = self.usage.as_ref().map_or(0, |last| last.cpu_ns);
                let cpu = Duration::from_nanos(usage.cpu_ns.saturating_sub(cpu));
                let gpu = usage.gpus.iter().any(|gpu| gpu.utilisation_percent > 0);
                if gpu || is_busy(cpu, elapsed.saturating_sub(self.sampled)) {
                    self.active = elapsed;
                }
                self.disk_peak = self.disk_peak.max(usage.disk_bytes);
                raise(&mut self.gpu_peaks, &usage.gpus);
                self.sampled = elapsed;
                self.usage = Some(usage.clone());
            }
            _ => {}
        }
    }
}

/// Takes a reading into the peaks.
pub fn raise(peaks: &mut Vec<GpuUsage>, now: &[GpuUsage]) {
    for usage in now {
        match peaks.iter_mut().find(|peak| peak.uuid == usage.uuid) {
            Some(peak) => {
                peak.memory_bytes = peak.memory_bytes.max(usage.memory_bytes);
                peak.utilisation_percent = peak.utilisation_percent.max(usage.utilisation_percent);
            }
            None => peaks.push(usage.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{Frame, RunState, StateChange};

    use super::*;

    #[test]
    fn idle_time_and_peaks_are_the_runs_and_not_the_processs() {
        let mut past = Past::default();
        let mut at = |seconds: u64, kind: Kind| {
            let event = Event { elapsed_ns: seconds * 1_000_000_000, kind: Some(kind), ..Event::default() };
            past.take(&event, |cpu, time| cpu * 50 > time);
        };
        let usage = |cpu_s: u64, disk_bytes| {
            Kind::Usage(Usage { cpu_ns: cpu_s * 1_000_000_000, disk_bytes, ..Usage::default() })
        };
        at(0, Kind::StateChange(StateChange { state: RunState::Running.into(), detail: String::new() }));
        at(1, Kind::Frame(Frame::default()));
        at(2, usage(2, 7));
        at(4, usage(3, 9));
        at(6, usage(3, 5));
        assert_eq!(past.state, Some(State::Running));
        assert_eq!(
            (past.active, past.sampled, past.disk_peak),
            (Duration::from_secs(4), Duration::from_secs(6), 9)
        );
    }
}
