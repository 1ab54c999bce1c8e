//! The fault matrix: a campaign of real binaries meets each fault in each phase, at an exact instruction, and ends as if
//! nothing had happened: the same findings, every run executed once or `lost` with a successor, no reply paid for twice
//! but the one in flight, nothing left. Each cell proves first that its fault happened. One alone:
//! `cargo test -p e2e --test faults controller_killed::running`; what it proved is told with `-- --nocapture`.

mod cell;
mod instant;
mod strike;

use std::collections::BTreeSet;

/// One test for each cell. What a fault is: `strike.rs`; where a phase is: `instant.rs`.
macro_rules! matrix {
    ($($fault:ident, $module:ident: $($phase:ident as $name:ident),+;)+) => {
        const CELLS: &[(strike::Fault, instant::Phase)] =
            &[$($((strike::Fault::$fault, instant::Phase::$phase),)+)+];

        $(mod $module {
            $(#[test]
              fn $name() {
                  crate::cell::survives(crate::strike::Fault::$fault, crate::instant::Phase::$phase);
              })+
        })+
    };
}

matrix! {
    ControllerKilled, controller_killed:
        Planning as planning, ModelCall as model_call, Upload as upload, Starting as starting, Running as running,
        Finishing as finishing, Artifact as artifact, Release as release, Analysis as analysis, Report as report;
    WorkerKilled, worker_killed:
        Planning as planning, ModelCall as model_call, Upload as upload, Starting as starting, Running as running,
        Finishing as finishing, Artifact as artifact, Release as release, Analysis as analysis;
    BothKilled, both_killed:
        ModelCall as model_call, Starting as starting, Running as running, Finishing as finishing,
        Artifact as artifact, Release as release;
    ConnectionCut, connection_cut:
        Upload as upload, Starting as starting, Running as running, Finishing as finishing, Artifact as artifact,
        Release as release;
    BlackHole, black_hole:
        Upload as upload, Running as running, Artifact as artifact, Release as release;
    Asleep, asleep:
        ModelCall as model_call, Running as running, Artifact as artifact;
    MachineWiped, machine_wiped:
        ModelCall as model_call, Upload as upload, Starting as starting, Running as running, Finishing as finishing,
        Artifact as artifact;
    LaptopClock, laptop_clock:
        ModelCall as model_call, Running as running, Report as report;
    MachineClock, machine_clock:
        Starting as starting, Running as running, Release as release;
    LaptopDiskFull, laptop_disk_full:
        ModelCall as model_call, Running as running, Artifact as artifact, Report as report;
    MachineDiskFull, machine_disk_full:
        Upload as upload, Starting as starting, Running as running, Finishing as finishing;
    EngineRestarted, engine_restarted:
        Running as running;
}

#[test]
fn every_fault_and_every_phase_is_in_the_matrix() {
    let cells: BTreeSet<_> = CELLS.iter().collect();
    assert_eq!(cells.len(), CELLS.len(), "a cell stands there twice");
    assert!(cells.len() >= 40, "only {} cells", cells.len());
    let phases: BTreeSet<_> = CELLS.iter().map(|(_, phase)| phase).collect();
    let faults: BTreeSet<_> = CELLS.iter().map(|(fault, _)| fault).collect();
    assert_eq!((phases.len(), faults.len()), (instant::PHASES, strike::FAULTS), "{phases:?} {faults:?}");
}
