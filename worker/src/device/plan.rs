//! How a machine is cut into slots. Pure, so that `doctor` can show it and tests can try every machine.
//!
//! With GPUs there is a slot for each, with an equal share of CPUs and memory: no two sandboxes share a GPU, because
//! no driver limits its memory (SANDBOXES.md R15). Without, there is a slot for each core. What the worker, the
//! engine and the system need is kept back first.

use kit::size::Bytes;

use super::{cpu_list::CpuList, inventory::Inventory};

/// For everything that is no sandbox.
const MEMORY_KEPT_BACK: u64 = 1 << 30;
/// Less does not import numpy and scikit-learn: a slot that can run nothing is none.
const MEMORY_MIN: u64 = 256 << 20;
/// The uid of the first slot's programs: above what a machine hands out to people, and below 65,536, all that an
/// engine with remapped ids has.
const FIRST_UID: u32 = 50_000;
/// Uids of slots end before that of `nobody`.
const SLOTS_MAX: u32 = 10_000;

/// A place on this machine to run one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// From 0.
    pub index: u32,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// In bytes.
    pub memory_bytes: u64,
    /// By UUID.
    pub gpu_uuids: Vec<String>,
    /// The CPUs that its share lies on; neighbours meet on one where the shares are not whole.
    pub cpus: CpuList,
    /// Of its programs, and of nothing else on this machine.
    pub uid: u32,
}

/// Why a machine makes no slots.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// The configured count.
    #[error("slots: {count} is not a count of slots (1 to {SLOTS_MAX})")]
    Count {
        /// As configured.
        count: u32,
    },
    /// GPUs are not shared.
    #[error("slots: {count} are more than the {gpus} GPUs of this machine")]
    MoreThanGpus {
        /// As configured.
        count: u32,
        /// There are.
        gpus: usize,
    },
    /// Too little for each.
    #[error(
        "slots: {count} would have {each} of memory each, and less than {} runs nothing",
        Bytes(MEMORY_MIN)
    )]
    Memory {
        /// As configured, or the least.
        count: u32,
        /// The share.
        each: Bytes,
    },
}

/// Cuts the machine into slots; `count` is the user's own number of them.
///
/// # Errors
/// [`PlanError`], naming the setting.
pub fn plan(machine: &Inventory, count: Option<u32>) -> Result<Vec<SlotInfo>, PlanError> {
    let usable = machine.memory_bytes.saturating_sub(MEMORY_KEPT_BACK);
    let cpus = machine.cpus.numbers();
    let count = match count {
        Some(count) => count,
        None if machine.gpus.is_empty() => {
            let most = u32::try_from(usable / MEMORY_MIN).unwrap_or(u32::MAX);
            u32::try_from(cpus.len()).unwrap_or(u32::MAX).min(most).clamp(1, SLOTS_MAX)
        }
        None => u32::try_from(machine.gpus.len()).unwrap_or(u32::MAX),
    };
    if !(1..=SLOTS_MAX).contains(&count) {
        return Err(PlanError::Count { count });
    }
    if !machine.gpus.is_empty() && count as usize > machine.gpus.len() {
        return Err(PlanError::MoreThanGpus { count, gpus: machine.gpus.len() });
    }
    let each = usable / u64::from(count);
    if each < MEMORY_MIN {
        return Err(PlanError::Memory { count, each: Bytes(each) });
    }
    let first_uid = first_uid(rustix::process::geteuid().as_raw(), count);
    let slot = |index: u32| SlotInfo {
        index,
        cpu_millis: share_millis(cpus.len(), count),
        memory_bytes: each,
        gpu_uuids: deal(&machine.gpus, index, count).map(|gpu| gpu.uuid.clone()).collect(),
        cpus: share(cpus, index, count),
        uid: first_uid + index,
    };
    Ok((0..count).map(slot).collect())
}

/// The worker's own uid is no program's: it owns what a program may only read.
fn first_uid(own: u32, count: u32) -> u32 {
    if (FIRST_UID..FIRST_UID + count).contains(&own) { own + 1 } else { FIRST_UID }
}

/// An equal share of the CPUs, rounded down.
fn share_millis(cpus: usize, count: u32) -> u32 {
    u32::try_from(cpus as u64 * 1000 / u64::from(count)).unwrap_or(u32::MAX)
}

/// The CPUs that the part from `index/count` to `(index + 1)/count` of the list touches.
fn share(cpus: &[u32], index: u32, count: u32) -> CpuList {
    let (cpu_count, index, count) = (cpus.len(), index as usize, count as usize);
    let first = index * cpu_count / count;
    let end = ((index + 1) * cpu_count).div_ceil(count);
    CpuList::new(cpus[first..end.min(cpu_count)].to_vec())
}

/// Each GPU to one slot, in turn: with fewer slots than GPUs, some slots have one more.
fn deal<T>(all: &[T], index: u32, count: u32) -> impl Iterator<Item = &T> {
    all.iter().skip(index as usize).step_by(count as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::gpu::Gpu, *};

    pub(in crate::device) fn machine(cpus: u32, memory_gib: u64, gpus: u32) -> Inventory {
        let gpu = |index| Gpu {
            uuid: format!("GPU-{index}"),
            name: "test".to_owned(),
            memory_bytes: 80 << 30,
            driver_version: "1".to_owned(),
        };
        Inventory {
            host_name: "host".to_owned(),
            os: "Linux".to_owned(),
            kernel: "6".to_owned(),
            cpu_model: String::new(),
            cpus: CpuList::new((0..cpus).collect()),
            memory_bytes: memory_gib << 30,
            gpus: (0..gpus).map(gpu).collect(),
            no_gpus: None,
        }
    }

    #[test]
    fn no_slot_has_the_workers_own_uid() {
        assert_eq!(first_uid(1000, 4), 50_000);
        assert_eq!(first_uid(50_004, 4), 50_000);
        assert_eq!(first_uid(50_003, 4), 50_004);
    }

    #[test]
    fn a_laptop_has_a_slot_for_each_core() {
        let slots = plan(&machine(2, 24, 0), None).unwrap();
        assert_eq!(slots.len(), 2);
        assert_eq!((slots[1].cpu_millis, slots[1].memory_bytes, slots[1].uid), (1000, 23 << 29, 50_001));
        assert_eq!(slots[1].cpus.to_string(), "1");
        assert!(slots[0].gpu_uuids.is_empty());
    }

    #[test]
    fn a_gpu_machine_has_a_slot_for_each_gpu() {
        let slots = plan(&machine(26, 65, 8), None).unwrap();
        assert_eq!(slots.len(), 8);
        assert_eq!((slots[0].cpu_millis, slots[0].memory_bytes), (3250, 8 << 30));
        assert_eq!(slots[7].gpu_uuids, ["GPU-7"]);
        assert_eq!((slots[0].cpus.to_string(), slots[7].cpus.to_string()), ("0-3".into(), "22-25".into()));
        let fewer = plan(&machine(8, 65, 3), Some(2)).unwrap();
        assert_eq!(fewer[0].gpu_uuids, ["GPU-0", "GPU-2"]);
    }

    #[test]
    fn a_wrong_count_names_the_setting() {
        assert_eq!(plan(&machine(2, 24, 0), Some(0)), Err(PlanError::Count { count: 0 }));
        assert_eq!(plan(&machine(8, 24, 1), Some(2)), Err(PlanError::MoreThanGpus { count: 2, gpus: 1 }));
        let error = plan(&machine(2, 2, 0), Some(64)).unwrap_err().to_string();
        assert!(error.contains("64 would have 16MiB"), "{error}");
        assert!(plan(&machine(2, 1, 0), None).is_err());
        assert_eq!(plan(&machine(64, 3, 0), None).unwrap().len(), 8);
    }

    proptest! {
        #[test]
        fn no_machine_is_handed_out_twice(cpus in 1u32..200, memory in 2u64..2000, gpus in 0u32..17, wish in 1u32..300) {
            let machine = machine(cpus, memory, gpus);
            for count in [None, Some(wish)] {
                let Ok(slots) = plan(&machine, count) else { continue };
                let memory: u64 = slots.iter().map(|slot| slot.memory_bytes).sum();
                prop_assert!(memory <= machine.memory_bytes - MEMORY_KEPT_BACK);
                let millis: u64 = slots.iter().map(|slot| u64::from(slot.cpu_millis)).sum();
                prop_assert!(millis <= u64::from(cpus) * 1000);
                let mut dealt: Vec<_> = slots.iter().flat_map(|slot| &slot.gpu_uuids).collect();
                dealt.sort_unstable();
                dealt.dedup();
                prop_assert_eq!(dealt.len(), gpus as usize);
                for slot in &slots {
                    prop_assert!(slot.cpu_millis > 0 || count.is_some());
                    // The share fits on the CPUs that it is pinned to.
                    prop_assert!(slot.cpus.numbers().len() as u32 * 1000 >= slot.cpu_millis);
                }
            }
        }
    }
}
