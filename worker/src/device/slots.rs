//! Whose the slots are. There is no queue here: with no free slot a caller is told so, and the controller places its
//! run again. A guard is the slot: it is free again when the guard is dropped, however its run ended, unless the
//! slot was set aside because something in it could not be killed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plan::SlotInfo;

/// What a run needs of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotRequest {
    /// How many GPUs; 0 is a CPU run, which takes a slot with the fewest.
    pub gpus: u32,
}

/// A slot as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// What it has.
    pub info: SlotInfo,
    /// A guard is out.
    pub busy: bool,
    /// Set aside, and why.
    pub quarantined: Option<String>,
}

/// The slots of this machine. A clone is the same.
#[derive(Debug, Clone)]
pub struct Slots {
    states: Arc<Mutex<Vec<SlotState>>>,
}

impl Slots {
    /// All free.
    #[must_use]
    pub fn new(slots: Vec<SlotInfo>) -> Self {
        let state = |info| SlotState { info, busy: false, quarantined: None };
        Self { states: Arc::new(Mutex::new(slots.into_iter().map(state).collect())) }
    }

    /// Takes the free slot that fits best: the fewest GPUs that do, then the lowest index.
    #[must_use]
    pub fn take(&self, request: SlotRequest) -> Option<SlotGuard> {
        let mut states = self.lock();
        let wanted = request.gpus as usize;
        let best = states
            .iter_mut()
            .filter(|state| is_free(state) && state.info.gpu_uuids.len() >= wanted)
            .min_by_key(|state| (state.info.gpu_uuids.len(), state.info.index))?;
        Some(self.guard(best))
    }

    /// Takes one slot by its index, if it is free: for a run that was in it before this process started.
    #[must_use]
    pub fn take_index(&self, index: u32) -> Option<SlotGuard> {
        let mut states = self.lock();
        let state = states.iter_mut().find(|state| state.info.index == index && is_free(state))?;
        Some(self.guard(state))
    }

    fn guard(&self, state: &mut SlotState) -> SlotGuard {
        state.busy = true;
        SlotGuard { info: state.info.clone(), slots: self.clone() }
    }

    /// Every slot, by index.
    #[must_use]
    pub fn states(&self) -> Vec<SlotState> {
        self.lock().clone()
    }

    /// The most GPUs that a run may ask for: those of one slot.
    #[must_use]
    pub fn gpus_max(&self) -> u32 {
        let most = self.lock().iter().map(|state| state.info.gpu_uuids.len()).max().unwrap_or(0);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Sets a slot aside: it is not taken again until the worker starts anew. The first reason stands.
    pub fn quarantine(&self, index: u32, reason: &str) {
        if let Some(state) = self.lock().iter_mut().find(|state| state.info.index == index) {
            tracing::error!(slot = index, reason, "a slot is set aside");
            state.quarantined.get_or_insert_with(|| reason.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SlotState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_free(state: &SlotState) -> bool {
    !state.busy && state.quarantined.is_none()
}

/// A slot that is taken; free again when this is dropped.
#[derive(Debug)]
pub struct SlotGuard {
    info: SlotInfo,
    slots: Slots,
}

impl SlotGuard {
    /// What it has.
    #[must_use]
    pub fn info(&self) -> &SlotInfo {
        &self.info
    }

    /// Sets the slot aside: what ran in it cannot be shown to be gone.
    pub fn quarantine(&self, reason: &str) {
        self.slots.quarantine(self.info.index, reason);
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let index = self.info.index;
        if let Some(state) = self.slots.lock().iter_mut().find(|state| state.info.index == index) {
            state.busy = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cpu_list::CpuList, *};

    fn slot(index: u32, gpus: u32) -> SlotInfo {
        SlotInfo {
            index,
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            gpu_uuids: (0..gpus).map(|gpu| format!("GPU-{index}-{gpu}")).collect(),
            cpus: CpuList::new(vec![index]),
            uid: 50_000 + index,
        }
    }

    #[test]
    fn a_slot_has_one_owner_and_is_free_when_it_is_dropped() {
        let slots = Slots::new(vec![slot(0, 0), slot(1, 0)]);
        let first = slots.take(SlotRequest::default()).unwrap();
        let second = slots.take(SlotRequest::default()).unwrap();
        assert_eq!((first.info().index, second.info().index), (0, 1));
        assert!(slots.take(SlotRequest::default()).is_none());
        assert!(slots.take_index(0).is_none());
        drop(first);
        assert_eq!(slots.take_index(0).unwrap().info().uid, 50_000);
        assert!(slots.take(SlotRequest::default()).is_some());
    }

    #[test]
    fn a_cpu_run_leaves_the_gpus_to_others_where_it_can() {
        let slots = Slots::new(vec![slot(0, 2), slot(1, 1), slot(2, 0)]);
        assert_eq!(slots.gpus_max(), 2);
        let cpu = slots.take(SlotRequest { gpus: 0 }).unwrap();
        let one = slots.take(SlotRequest { gpus: 1 }).unwrap();
        assert_eq!((cpu.info().index, one.info().index), (2, 1));
        assert!(slots.take(SlotRequest { gpus: 3 }).is_none());
        assert_eq!(slots.take(SlotRequest { gpus: 0 }).unwrap().info().index, 0);
    }

    #[test]
    fn a_slot_that_is_set_aside_stays_so() {
        let slots = Slots::new(vec![slot(0, 0)]);
        let guard = slots.take(SlotRequest::default()).unwrap();
        guard.quarantine("process 7 cannot be killed");
        guard.quarantine("another reason");
        drop(guard);
        assert!(slots.take(SlotRequest::default()).is_none() && slots.take_index(0).is_none());
        let state = &slots.states()[0];
        assert!(!state.busy);
        assert_eq!(state.quarantined.as_deref(), Some("process 7 cannot be killed"));
        slots.quarantine(9, "there is no such slot");
    }
}
