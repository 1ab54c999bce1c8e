//! What each fault is, and the proof that it happened. A fault is done while the phase's instant stands still; some go on
//! after it.

use std::time::{Duration, Instant as Time};

use e2e::{
    Ran,
    engine::Engine,
    faults::{
        campaign::{LONGEST, Model, Price},
        process,
        site::{Command, Site},
    },
    wait_for,
};
use nix::sys::signal::Signal;

use crate::instant::{Met, Phase};

/// How many there are.
pub const FAULTS: usize = 12;
/// Longer than every time-out between the two: 10 s to a ping and 10 s for its answer, 15 s without a message.
const SWALLOWED: Duration = Duration::from_secs(27);
const ASLEEP: Duration = Duration::from_secs(40);
/// Away for so long, so that the other side finds nobody.
const AWAY: Duration = Duration::from_millis(700);
/// A disk is full for so long, or until the program gives up.
const FULL: Duration = Duration::from_secs(8);
const HOUR: i64 = 3600;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, then `resume`.
    ControllerKilled,
    /// SIGKILL, then started again.
    WorkerKilled,
    /// SIGKILL to both, then the worker again and `resume`.
    BothKilled,
    /// The engine and its containerd are killed and come back.
    EngineRestarted,
    /// Every connection is closed.
    ConnectionCut,
    /// Every connection stays open and carries nothing, for longer than every time-out.
    BlackHole,
    /// The controller stands still for longer than every time-out.
    Asleep,
    /// The worker's machine is gone and comes back with an empty disk.
    MachineWiped,
    /// The laptop's wall clock jumps an hour ahead.
    LaptopClock,
    /// The machine's wall clock jumps an hour back.
    MachineClock,
    /// No byte fits on the laptop's disk any more; then it is freed.
    LaptopDiskFull,
    /// No byte fits on the machine's disk any more; then it is freed.
    MachineDiskFull,
}

impl Fault {
    /// Whether its instant is the worker's, where a phase has one on both sides.
    pub const fn meets_the_worker(self) -> bool {
        !matches!(self, Self::ControllerKilled | Self::Asleep | Self::LaptopClock | Self::LaptopDiskFull)
    }

    /// What it may cost.
    pub fn price(self, phase: Phase) -> Price {
        let loses_the_call = matches!(self, Self::ControllerKilled | Self::BothKilled | Self::LaptopDiskFull);
        let loses_runs = matches!(
            self,
            Self::WorkerKilled
                | Self::BothKilled
                | Self::EngineRestarted
                | Self::MachineWiped
                | Self::MachineDiskFull
        );
        Price {
            call_in_flight: loses_the_call && phase == Phase::ModelCall,
            runs: loses_runs,
            machine: self == Self::MachineWiped,
        }
    }
}

/// What came of it.
pub struct Struck {
    /// That it happened, for a person.
    pub proof: String,
    /// The command, where it outlived it.
    pub command: Option<Command>,
}

/// Does it. On return the instant is over and everything is mended, as far as a person would mend it, but a controller that
/// is dead is not yet resumed.
pub fn strike(
    fault: Fault,
    site: &mut Site,
    engine: Option<&mut Engine>,
    model: &Model,
    mut command: Command,
    met: &Met,
) -> Struck {
    let proof = match fault {
        Fault::ControllerKilled => {
            let ran = command.kill();
            met.go_on(model);
            return Struck {
                proof: format!("the controller ended by SIGKILL ({})", ran.code),
                command: None,
            };
        }
        Fault::BothKilled => {
            site.worker.kill();
            let ran = command.kill();
            met.go_on(model);
            site.worker.restart(&site.home);
            site.until_the_worker_listens();
            let proof =
                format!("both ended by SIGKILL ({}), the worker is now {}", ran.code, site.worker.pid());
            return Struck { proof, command: None };
        }
        Fault::WorkerKilled => {
            let before = site.worker.pid();
            site.worker.kill();
            assert_eq!(process::state(before), None, "it is gone");
            met.go_on(model);
            std::thread::sleep(AWAY);
            site.worker.restart(&site.home);
            site.until_the_worker_listens();
            format!("worker {before} ended by SIGKILL, the next is {}", site.worker.pid())
        }
        Fault::ConnectionCut => {
            let cut = site.proxy.cut();
            assert!(cut > 0, "there was a connection to cut");
            met.go_on(model);
            wait_for("the cut", AWAY * 20, || match site.proxy.cut_so_far() {
                0 => Err("none yet".to_owned()),
                _ => Ok(()),
            });
            format!("{cut} connections were closed")
        }
        Fault::BlackHole => {
            assert!(site.proxy.open() > 0, "there is a connection to swallow");
            site.proxy.black_hole();
            met.go_on(model);
            std::thread::sleep(SWALLOWED);
            let held = site.proxy.held();
            assert!(held > 0, "bytes were swallowed");
            site.proxy.heal();
            format!("{held} bytes were swallowed in {SWALLOWED:?}")
        }
        Fault::Asleep => {
            let pid = command.pid();
            process::signal(pid, Signal::SIGSTOP);
            let (since, answered) = (Time::now(), site.proxy.passed());
            // A call that is in flight is answered while nobody listens.
            if matches!(met, Met::Call) {
                met.go_on(model);
            }
            process::until_stopped(pid);
            while since.elapsed() < ASLEEP {
                assert_eq!(process::state(pid), Some('T'), "it stands still all the while");
                std::thread::sleep(Duration::from_millis(250));
            }
            process::signal(pid, Signal::SIGCONT);
            let sent = site.proxy.passed() - answered;
            format!("the controller stood still for {:?}; {sent} bytes passed meanwhile", since.elapsed())
        }
        Fault::MachineWiped => {
            let before = site.worker.pid();
            site.wipe_the_machine();
            met.go_on(model);
            format!("worker {before} and its disk are gone, the next is {}", site.worker.pid())
        }
        Fault::LaptopClock => {
            site.laptop_clock.set_off_by(HOUR);
            met.go_on(model);
            "an hour ahead".to_owned()
        }
        Fault::MachineClock => {
            site.machine_clock.set_off_by(-HOUR);
            met.go_on(model);
            "an hour back".to_owned()
        }
        Fault::LaptopDiskFull => {
            let disk = site.laptop_disk.as_ref().expect("a disk of its own");
            disk.fill();
            met.go_on(model);
            let since = Time::now();
            while command.is_running().is_ok() && since.elapsed() < FULL {
                std::thread::sleep(Duration::from_millis(50));
            }
            disk.free();
            if command.is_running().is_err() {
                let ran = command.finish(LONGEST);
                return Struck { proof: no_room(&ran), command: None };
            }
            format!("the laptop's disk was full for {:?}", since.elapsed())
        }
        Fault::MachineDiskFull => {
            let disk = site.machine_disk.as_ref().expect("a disk of its own");
            disk.fill();
            met.go_on(model);
            let since = Time::now();
            while command.is_running().is_ok() && since.elapsed() < FULL / 2 {
                std::thread::sleep(Duration::from_millis(50));
            }
            disk.free();
            format!("the machine's disk was full for {:?}", since.elapsed())
        }
        Fault::EngineRestarted => {
            let engine = engine.expect("an engine of its own");
            engine.kill();
            let asked = engine.docker(&["version"]).output().expect("docker");
            assert!(!asked.status.success(), "the engine is dead: {asked:?}");
            met.go_on(model);
            std::thread::sleep(AWAY);
            engine.start_again();
            "the engine did not answer, and was started again".to_owned()
        }
    };
    Struck { proof, command: Some(command) }
}

/// A command that ends for want of room says so.
fn no_room(ran: &Ran) -> String {
    assert!(ran.code == 1 || ran.code == 2, "{ran:?}");
    let told = ran.stderr.to_lowercase();
    assert!(
        ["no space", "is full", "disk full"].iter().any(|words| told.contains(words)),
        "it says that the disk is full: {ran:?}"
    );
    format!("the controller gave up on a full disk: {}", ran.stderr.lines().last().unwrap_or_default())
}

/// What is only known at the end.
pub fn proven_at_the_end(fault: Fault, site: &Site) -> String {
    let told = match fault {
        Fault::LaptopClock => site.laptop_clock.told(),
        Fault::MachineClock => site.machine_clock.told(),
        _ => return String::new(),
    };
    assert!(told > 0, "somebody asked for the time");
    format!(", and {told} times a time was told that was off")
}
