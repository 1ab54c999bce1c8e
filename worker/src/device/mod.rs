//! What this machine has and how it is shared out: CPUs, memory, GPUs, and the slots that they make. What a sandbox
//! does with its slot is not decided here; this room only says whose it is.

mod cpu_list;
mod gpu;
mod inventory;
mod plan;
mod slots;

pub use cpu_list::{CpuList, ParseCpuListError};
pub use gpu::{Gpu, GpuSample, Gpus};
pub use inventory::{Inventory, InventoryError};
pub use plan::{PlanError, SlotInfo, plan};
pub use slots::{SlotGuard, SlotRequest, SlotState, Slots};
