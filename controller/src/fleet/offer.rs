//! What a worker has to give, read from what it says of itself, and whether a run could ever have a place there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kit::size::Bytes;
use proto::v1;

use super::needs::Needs;

/// A worker's machine, slots, images and data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The kind of its CPU slots: runs are compared within one kind only.
    pub cpu: String,
    /// The kind of its GPU slots.
    pub gpu: String,
    /// Usable slots by the number of their GPUs.
    pub slots: BTreeMap<u32, usize>,
    /// Of one run.
    pub largest: v1::Limits,
    /// By name and backend; whether it is prepared.
    images: BTreeMap<(String, String), bool>,
    data_sets: BTreeSet<String>,
    /// Those that work, the one in use first.
    backends: Vec<String>,
}

/// A run will never be taken by this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Never {
    /// Which field of the request.
    pub field: &'static str,
    /// Why, in one line.
    pub reason: String,
}

impl Offer {
    /// As the worker said it.
    #[must_use]
    pub fn of(info: &v1::GetWorkerResponse) -> Self {
        let machine = info.machine.clone().unwrap_or_default();
        let gpu = machine.gpus.first().map(|g| format!("{}, {}", g.name.trim(), Bytes(g.memory_bytes)));
        let mut slots = BTreeMap::new();
        for slot in info.slots.iter().filter(|slot| slot.quarantined.is_empty()) {
            *slots.entry(u32::try_from(slot.gpu_uuids.len()).unwrap_or(u32::MAX)).or_default() += 1;
        }
        let image = |i: &v1::Image| ((i.name.clone(), i.backend.clone()), i.prepared);
        Self {
            cpu: machine.cpu_model.trim().to_owned(),
            gpu: gpu.unwrap_or_default(),
            slots,
            largest: info.largest_limits.unwrap_or_default(),
            images: info.images.iter().map(image).collect(),
            data_sets: info.data_sets.iter().map(|set| set.name.clone()).collect(),
            backends: info.backends.iter().filter(|b| b.available).map(|b| b.name.clone()).collect(),
        }
    }

    /// The kind of device that such a run would have.
    #[must_use]
    pub fn kind(&self, needs: &Needs) -> &str {
        if needs.gpus == 0 { &self.cpu } else { &self.gpu }
    }

    /// Slots that could take such a run.
    #[must_use]
    pub fn capable(&self, needs: &Needs) -> usize {
        self.slots.range(needs.gpus..).map(|(_, count)| count).sum()
    }

    /// All usable slots.
    #[must_use]
    pub fn all_slots(&self) -> usize {
        self.slots.values().sum()
    }

    /// Whether one more run fits beside those that are there: for every number of GPUs, runs that need as many are no
    /// more than slots that have as many. `taken` counts runs by the GPUs that they need.
    #[must_use]
    pub fn has_room(&self, taken: &BTreeMap<u32, usize>, needs: &Needs) -> bool {
        let all = self.slots.keys().chain(taken.keys()).copied().chain([needs.gpus]);
        let thresholds: BTreeSet<u32> = all.filter(|gpus| *gpus <= needs.gpus).collect();
        thresholds.into_iter().all(|gpus| {
            let slots: usize = self.slots.range(gpus..).map(|(_, count)| count).sum();
            let runs: usize = taken.range(gpus..).map(|(_, count)| count).sum();
            runs < slots
        })
    }

    /// Whether its image is prepared, so that a run begins at once.
    #[must_use]
    pub fn has_image(&self, needs: &Needs) -> bool {
        self.image(needs).any(|prepared| prepared)
    }

    fn image<'a>(&'a self, needs: &'a Needs) -> impl Iterator<Item = bool> + 'a {
        let backend = if needs.backend.is_empty() { self.backends.first() } else { Some(&needs.backend) };
        let fits =
            move |(name, its): &(String, String)| *name == needs.image && backend.is_none_or(|b| b == its);
        self.images.iter().filter(move |(key, _)| fits(key)).map(|(_, prepared)| *prepared)
    }

    /// Why such a run can never have a place here.
    ///
    /// # Errors
    /// [`Never`], with the field.
    pub fn could_take(&self, needs: &Needs) -> Result<(), Never> {
        let never = |field, reason: String| Err(Never { field, reason });
        if self.all_slots() == 0 {
            return never("slots", "it has no usable slot".to_owned());
        }
        if self.capable(needs) == 0 {
            let most = self.slots.keys().last().copied().unwrap_or(0);
            return never("spec.gpus", format!("{} are asked for; its largest slot has {most}", needs.gpus));
        }
        if !needs.backend.is_empty() && !self.backends.contains(&needs.backend) {
            return never("spec.backend", format!("{} does not work there", needs.backend));
        }
        // One that says nothing of images is asked.
        if !self.images.is_empty() && self.image(needs).next().is_none() {
            return never("spec.image", format!("{} is not on its list", needs.image));
        }
        if let Some(missing) = needs.data_sets.iter().find(|name| !self.data_sets.contains(*name)) {
            return never("spec.data_sets", format!("{missing} is not there"));
        }
        let largest = &self.largest;
        for (field, asked, largest) in [
            ("spec.limits.memory_bytes", needs.memory_bytes, largest.memory_bytes),
            ("spec.limits.cpu_millis", needs.cpu_millis.into(), largest.cpu_millis.into()),
            ("spec.limits.disk_bytes", needs.disk_bytes, largest.disk_bytes),
            ("spec.limits.time_ms", needs.time_ms, largest.time_ms),
            ("spec.limits.grace_ms", needs.grace_ms, largest.grace_ms),
        ] {
            if largest > 0 && asked > largest {
                return never(field, format!("is {asked}; this worker's largest is {largest}"));
            }
        }
        Ok(())
    }
}
