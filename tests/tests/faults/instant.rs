//! Where a phase of a campaign is, to the instruction: the point at which one of the two programs stops itself, or the
//! model call that gets no answer.

use e2e::{
    faults::{
        campaign::Model,
        halts::Stopped,
        site::{Command, Site},
    },
    vendor::Wanted,
};

use crate::strike::Fault;

/// How many there are.
pub const PHASES: usize = 10;

/// A phase of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The model is about to be asked for a plan.
    Planning,
    /// The model has the question and does not answer yet.
    ModelCall,
    /// A program is on its way to the worker.
    Upload,
    /// A sandbox waits at its gate.
    Starting,
    /// A program runs.
    Running,
    /// A run's end is told.
    Finishing,
    /// What a run kept is on its way to the controller.
    Artifact,
    /// The experiment's numbers are all there.
    Analysis,
    /// The report is about to be written.
    Report,
    /// The worker is told that it may forget a run.
    Release,
}

/// What stands still while the fault is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instant {
    /// The controller, at this point.
    Controller(&'static str),
    /// The worker, at this point.
    Worker(&'static str),
    /// The model.
    Call(Wanted),
}

/// Two runs of each kind lie before the fourth time: smoke runs are two, so it is a run that counts.
pub const fn of(phase: Phase, fault: Fault) -> Instant {
    let at_the_worker = fault.meets_the_worker();
    match phase {
        Phase::Planning => Instant::Controller("controller.planning"),
        Phase::ModelCall => Instant::Call(Wanted::Code),
        Phase::Upload => Instant::Controller("controller.upload"),
        Phase::Starting if at_the_worker => Instant::Worker("worker.starting#4"),
        Phase::Starting => Instant::Controller("controller.starting#4"),
        Phase::Running if at_the_worker => Instant::Worker("worker.running#4"),
        Phase::Running => Instant::Controller("controller.running#4"),
        Phase::Finishing if at_the_worker => Instant::Worker("worker.finishing#4"),
        Phase::Finishing => Instant::Controller("controller.finishing#4"),
        Phase::Artifact => Instant::Controller("controller.artifact#4"),
        Phase::Analysis => Instant::Controller("controller.analysis"),
        Phase::Report => Instant::Controller("controller.report"),
        Phase::Release if at_the_worker => Instant::Worker("worker.release#4"),
        Phase::Release => Instant::Controller("controller.release#4"),
    }
}

/// What stands still now.
#[derive(Debug)]
pub enum Met {
    /// A process, seen to be stopped.
    Stopped(Stopped),
    /// A call that has come and is not answered.
    Call,
}

impl Instant {
    pub fn controller_points(self) -> Vec<&'static str> {
        if let Self::Controller(point) = self { vec![point] } else { Vec::new() }
    }

    pub fn worker_points(self) -> Vec<&'static str> {
        if let Self::Worker(point) = self { vec![point] } else { Vec::new() }
    }

    pub fn held_call(self) -> Option<Wanted> {
        if let Self::Call(wanted) = self { Some(wanted) } else { None }
    }

    /// Waits until it is met.
    pub fn meet(self, site: &Site, model: &Model, command: &mut Command) -> Met {
        match self {
            Self::Controller(point) | Self::Worker(point) => {
                Met::Stopped(site.halts.reached(point, || command.is_running()))
            }
            Self::Call(_) => {
                model.until_asked(command);
                Met::Call
            }
        }
    }
}

impl Met {
    /// Lets what stood still go on.
    pub fn go_on(&self, model: &Model) {
        match self {
            Self::Stopped(stopped) => stopped.go_on(),
            Self::Call => model.let_go(),
        }
    }
}
