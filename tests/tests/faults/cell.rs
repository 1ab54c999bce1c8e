//! One cell: a campaign, its fault, and what must hold after it.

use std::{process::Command, sync::OnceLock, time::Instant as Time};

use e2e::{
    engine::Engine,
    faults::{
        campaign::{self, Findings, LONGEST, Model, Price},
        record::Record,
        site::{Site, Wishes},
    },
};

use crate::{
    instant::{self, Phase},
    strike::{self, Fault},
};

/// Room for a journal and some runs, and little enough to fill in a moment.
const LAPTOP_MEBIBYTES: u32 = 400;
const MACHINE_MEBIBYTES: u32 = 500;
/// Small limits, so that two runs fit on the machine's small disk.
const SMALL: &[(&str, &str)] = &[
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__DISK", "64MiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__ARTIFACTS", "8MiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__STDOUT", "1MiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__STDERR", "1MiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__METRICS", "1MiB"),
];

/// What a campaign finds that nothing befalls; made once.
fn unharmed() -> &'static Findings {
    static FOUND: OnceLock<Findings> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut site =
            Site::new(&Wishes { backend: "native", worker_environment: SMALL, ..Wishes::default() });
        let model = Model::start(None);
        let ran = model.research(&site, "native").finish(LONGEST);
        let found = campaign::check(&site, &model, &ran, Price::default());
        site.assert_nothing_left();
        found
    })
}

#[allow(clippy::print_stderr, reason = "what was proven, for a person, shown with --nocapture")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// A campaign meets this fault in this phase, and ends as if nothing had happened.
pub fn survives(fault: Fault, phase: Phase) {
    let wanted = unharmed();
    let instant = instant::of(phase, fault);
    let (controller_points, worker_points) = (instant.controller_points(), instant.worker_points());
    // Dropped after the site, whose sandboxes it has.
    let mut engine = (fault == Fault::EngineRestarted).then(own_engine);
    let backend = if engine.is_some() { "docker" } else { "native" };
    let mut site = Site::new(&Wishes {
        backend,
        engine: engine.as_ref().map(|(engine, _)| engine.host()),
        controller_points: &controller_points,
        worker_points: &worker_points,
        laptop_mebibytes: (fault == Fault::LaptopDiskFull).then_some(LAPTOP_MEBIBYTES),
        machine_mebibytes: (fault == Fault::MachineDiskFull).then_some(MACHINE_MEBIBYTES),
        worker_environment: SMALL,
    });
    let model = Model::start(instant.held_call());
    let mut command = model.research(&site, backend);
    let met = instant.meet(&site, &model, &mut command);

    let own = engine.as_mut().map(|(engine, _)| engine);
    let struck = strike::strike(fault, &mut site, own, &model, command, &met);
    let since = Time::now();
    let command = struck.command.unwrap_or_else(|| {
        let id = Record::read(&site.home.data_dir()).expect("the campaign is in the journal").id;
        site.start(&["resume", &id])
    });
    let ran = command.finish(LONGEST);
    let proof = format!("{}{}", struck.proof, strike::proven_at_the_end(fault, &site));
    tell(&format!("{fault:?} in {phase:?} ({instant:?}): {proof}; the end came {:?} later", since.elapsed()));

    let found = campaign::check(&site, &model, &ran, fault.price(phase));
    assert_eq!(&found, wanted, "what was found is what is found without the fault");
    site.assert_nothing_left();
}

/// An engine of the cell's own with the image that the campaign runs in, and the folder that it lies in.
fn own_engine() -> (Engine, tempfile::TempDir) {
    let mut images = Command::new("docker");
    images.args(["images", "autoresearch/lite", "--format", "{{.Repository}}:{{.Tag}}"]);
    let listed = String::from_utf8_lossy(&images.output().expect("docker").stdout).into_owned();
    let image = listed.lines().next().expect("the small image is built").to_owned();
    let folder = tempfile::Builder::new().prefix("ar-engine-").tempdir().expect("a temporary folder");
    let engine = Engine::start(folder.path());
    engine.take_image(&image);
    (engine, folder)
}
