//! Every backend over the real kernel, and over the real engine: what a sandbox owes, one test for each promise, each
//! run on each backend. The hostile ones say in their names what the program tries.

#![cfg(target_arch = "x86_64")] // the numbers of its system calls are
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by ending"
)]

mod adopt;
mod fixture;
mod launcher;
mod machine;

use std::{collections::BTreeSet, fs, time::Duration, time::Instant};

use fixture::{Fixture, MIB, On, UID, ended, finish, said};
use worker::sandbox::{Backend as _, Enforcement, Order, SandboxError, rules::RuleId};

/// Each of these tests on each backend, which is the first part of its name.
macro_rules! on_each_backend {
    ($($test:ident,)+) => {
        mod docker {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::On::Docker).await;
            })+
        }
        mod native {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::On::Native).await;
            })+
        }
    };
}

on_each_backend! {
    a_program_runs_and_nothing_of_it_is_left,
    the_end_is_told_as_it_was,
    a_polite_program_ends_by_the_term_order,
    a_deaf_program_and_its_grandchild_in_another_session_are_killed,
    a_program_that_forges_its_end_is_refused_everywhere_and_not_believed,
    a_program_sees_nothing_of_the_host,
    a_program_makes_no_call_that_the_table_does_not_name,
    a_call_of_another_numbering_ends_the_program,
    a_program_without_memory_leaves_the_kernels_evidence,
    a_child_without_memory_is_seen_although_the_program_succeeds,
    a_full_disk_is_the_limit_to_the_block_and_does_not_silence_the_logs,
    full_shared_memory_is_seen,
    a_fork_bomb_meets_the_pid_limit_and_dies,
    a_pid_1_that_does_not_answer_is_killed_from_outside_and_the_reading_before_stands,
    a_program_of_a_dead_worker_is_ended_by_the_backstop,
    a_caller_that_goes_away_while_a_sandbox_is_made_leaves_nothing,
    what_a_program_leaves_is_read_from_a_mount_that_follows_no_link,
    a_kill_before_the_start_shuts_the_gate_for_good,
    a_program_that_cannot_be_started_says_why,
    a_sandbox_that_cannot_be_made_leaves_nothing,
    after_a_crash_a_sweep_removes_what_nobody_owns_and_keeps_the_rest,
    a_sweep_finds_a_volume_without_a_container_and_a_folder_without_a_volume,
    the_backend_says_what_it_enforces,
    a_running_sandbox_is_taken_up_and_nothing_of_its_output_is_missing,
    what_ended_while_nobody_was_there_is_told_as_it_was,
    what_is_half_made_or_half_removed_is_taken_up_and_removed,
    a_sandbox_that_was_never_made_is_none,
    a_gate_that_is_shut_is_opened_by_the_next_worker,
}

use adopt::{
    a_gate_that_is_shut_is_opened_by_the_next_worker,
    a_running_sandbox_is_taken_up_and_nothing_of_its_output_is_missing,
    a_sandbox_that_was_never_made_is_none, what_ended_while_nobody_was_there_is_told_as_it_was,
    what_is_half_made_or_half_removed_is_taken_up_and_removed,
};

async fn a_program_runs_and_nothing_of_it_is_left(on: On) {
    let fixture = Fixture::new(on).await;
    let backend = fixture.running(&["speak"]);
    let begin = Instant::now();
    let sandbox = backend.prepare(fixture.class()).await.unwrap();
    let prepared = begin.elapsed();
    sandbox.assign(&fixture.assignment()).await.unwrap();
    let assigned = begin.elapsed();
    sandbox.verify().await.unwrap();
    let verified = begin.elapsed();
    sandbox.order(Order::Start).await.unwrap();
    println!(
        "prepared {prepared:?}, assigned {assigned:?}, verified {verified:?}, started {:?}",
        begin.elapsed()
    );
    let end = ended(&sandbox).await;
    assert_eq!((end.exit_code, end.signal), (Some(0), None));
    let cgroups = fixture.cgroups(&sandbox).await;
    assert!(!cgroups.is_empty() && cgroups.iter().all(|folder| folder.exists()), "{cgroups:?}");

    let streams = sandbox.streams();
    assert_eq!(fs::read_to_string(&streams.stdout).unwrap(), "to stdout\n{\"seed\":3}\nprint('code')\n");
    assert_eq!(fs::read_to_string(&streams.stderr).unwrap(), "to stderr\n");
    assert!(fs::read_to_string(&streams.metrics).unwrap().contains("\"loss\":\"0.1\""));

    sandbox.order(Order::Kill).await.unwrap();
    let evidence = sandbox.evidence().await;
    assert!(evidence.complete && evidence.reading.memory_peak_bytes > 0, "{evidence:?}");
    assert_eq!((evidence.oom_kills, evidence.pids_refused, evidence.disk_full), (0, 0, false));
    let begin = Instant::now();
    sandbox.end().await.unwrap();
    assert_eq!(fs::read(sandbox.artifacts().join("model.bin")).unwrap(), b"weights");
    sandbox.remove().await.unwrap();
    println!("ended and removed in {:?}", begin.elapsed());
    assert!(cgroups.iter().all(|folder| !folder.exists()), "{cgroups:?}");
    assert_eq!(fixture.traces().await, Vec::<String>::new());
    sandbox.remove().await.unwrap();
}

async fn the_end_is_told_as_it_was(on: On) {
    let fixture = Fixture::new(on).await;
    for (program, code, signal) in [
        (["exit", "0"], Some(0), None),
        (["exit", "7"], Some(7), None),
        (["exit", "137"], Some(137), None),
        (["signal", "9"], None, Some(9)),
        (["signal", "11"], None, Some(11)),
    ] {
        let sandbox = fixture.start(&program).await;
        let end = ended(&sandbox).await;
        assert_eq!((end.exit_code, end.signal), (code, signal), "{program:?}");
        finish(&sandbox).await;
    }
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_polite_program_ends_by_the_term_order(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["polite"]).await;
    said(&sandbox.streams().stdout, "polite").await;
    sandbox.order(Order::Terminate).await.unwrap();
    assert_eq!(ended(&sandbox).await.signal, Some(15));
    sandbox.order(Order::Terminate).await.unwrap();
    finish(&sandbox).await;
}

async fn a_deaf_program_and_its_grandchild_in_another_session_are_killed(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["deaf"]).await;
    said(&sandbox.streams().stdout, "deaf").await;
    let grandchild = sandbox.artifacts().with_file_name("grandchild");
    while !grandchild.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sandbox.order(Order::Terminate).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(sandbox.reports().borrow().ended, None);
    assert!(sandbox.reading().await.unwrap().pids >= 4);
    let begin = Instant::now();
    sandbox.order(Order::Kill).await.unwrap();
    println!("killed in {:?}", begin.elapsed());
    assert!(sandbox.reports().borrow().killed);
    assert_eq!(ended(&sandbox).await.signal, Some(9));
    assert_eq!(sandbox.evidence().await.reading.pids, 1, "only PID 1 is left");
    finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_program_that_forges_its_end_is_refused_everywhere_and_not_believed(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["forge"]).await;
    let end = ended(&sandbox).await;
    assert_eq!((end.exit_code, end.signal), (Some(137), None));
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    // For a plain user its output is a pipe, to which that flag is nothing.
    let harmless = |line: &&str| !nix::unistd::geteuid().is_root() && *line == "append off allowed";
    let allowed: Vec<&str> =
        told.lines().filter(|line| line.ends_with(" allowed")).filter(|line| !harmless(line)).collect();
    assert_eq!(allowed, Vec::<&str>::new());
    assert!(told.lines().filter(|line| line.contains(" refused ")).count() >= 90, "{told}");
    let evidence = finish(&sandbox).await;
    assert_eq!(evidence.oom_kills, 0);
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_program_sees_nothing_of_the_host(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["look"]).await;
    ended(&sandbox).await;
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    let line = |name: &str| told.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    assert_eq!(line("uid"), format!("uid {UID}"));
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(line(name), format!("{name}:\t0000000000000000"));
    }
    assert_eq!(line("NoNewPrivs"), "NoNewPrivs:\t1");
    assert_eq!(line("Seccomp:"), "Seccomp:\t2");
    assert_eq!(line("SigBlk"), "SigBlk:\t0000000000000000");
    assert_eq!(line("Groups").trim(), "Groups:");
    assert_eq!(line("oom"), "oom 1000");
    assert_eq!((line("host"), line("folder")), ("host sandbox", "folder /work"));
    let descriptors = line("descriptors").replace("/proc/1/", "");
    assert!(
        descriptors.contains("0=/dev/null 1=/logs/stdout 2=/logs/stderr 3=/logs/metrics 4=/proc/"),
        "{descriptors}"
    );
    assert!(line("null").ends_with('4'), "no descriptor but its own is open: {}", line("null"));
    assert!(line("env OMP_NUM_THREADS").ends_with("=1") && line("env HOME").ends_with("=/work"));
    // What is bound shows its place on the volume, never the host's folders.
    assert!(!told.contains("scratch-") && !told.contains("sandboxes"), "{told}");
    finish(&sandbox).await;
}

async fn a_program_makes_no_call_that_the_table_does_not_name(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["calls"]).await;
    let end = ended(&sandbox).await;
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    assert_eq!(end.exit_code, Some(0), "{told}");
    const EPERM: &str = "1";
    const ENOSYS: &str = "38";
    let absent = ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3", "splice", "not a call"];
    let open = ["AF_UNIX", "TCP", "UDP", "NETLINK_ROUTE", "GETFLAGS"];
    let tried: Vec<(&str, &str)> = told.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    for (name, errno) in tried.iter().filter(|(_, word)| word.bytes().all(|b| b.is_ascii_digit())) {
        match *name {
            name if absent.contains(&name) => assert_eq!(*errno, ENOSYS, "{name}"),
            name if open.contains(&name) => assert_eq!(*errno, "0", "{name}"),
            // Newer than what older engines can name: absent is refused too.
            "file_setattr" => assert!([EPERM, ENOSYS].contains(errno), "{name} {errno}"),
            name => assert_eq!(*errno, EPERM, "{name}"),
        }
    }
    assert!(tried.len() > 55, "{told}");
    assert!(told.contains("a thread runs\n") && told.contains("a child ended with Some(9)"), "{told}");
    finish(&sandbox).await;
}

async fn a_call_of_another_numbering_ends_the_program(on: On) {
    const SIGSYS: i32 = 31;
    let fixture = Fixture::new(on).await;
    for which in ["x32", "i386"] {
        let sandbox = fixture.start(&["foreign", which]).await;
        let end = ended(&sandbox).await;
        let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
        assert_eq!((end.signal, told.as_str()), (Some(SIGSYS), "before\n"), "{which}");
        finish(&sandbox).await;
    }
}

async fn a_program_without_memory_leaves_the_kernels_evidence(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["memory"]).await;
    assert_eq!(ended(&sandbox).await.signal, Some(9));
    let evidence = finish(&sandbox).await;
    assert!(evidence.oom_kills >= 1 && evidence.memory_limit_met && evidence.complete, "{evidence:?}");
    assert!(evidence.reading.memory_peak_bytes > 56 * MIB, "{evidence:?}");
}

async fn a_child_without_memory_is_seen_although_the_program_succeeds(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["child-memory"]).await;
    assert_eq!(ended(&sandbox).await.exit_code, Some(0));
    assert!(finish(&sandbox).await.oom_kills >= 1);
}

async fn a_full_disk_is_the_limit_to_the_block_and_does_not_silence_the_logs(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["disk"]).await;
    assert_eq!(ended(&sandbox).await.exit_code, Some(1));
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    let mut first = told.lines().next().unwrap().split(' ').skip(1).map(|n| n.parse::<u64>().unwrap());
    let (written, error) = (first.next().unwrap(), first.next().unwrap());
    assert_eq!(error, 28, "ENOSPC");
    assert!((23 * MIB..=25 * MIB).contains(&written), "{written}");
    assert_eq!(told.lines().filter(|l| l.starts_with("still talking")).count(), 1000);
    let evidence = finish(&sandbox).await;
    assert!(evidence.disk_full, "{evidence:?}");
    assert!((23 * MIB..=25 * MIB).contains(&evidence.reading.disk_bytes), "{evidence:?}");
}

async fn full_shared_memory_is_seen(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["shm"]).await;
    ended(&sandbox).await;
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    assert!(told.starts_with(&format!("wrote {} 28", 8 * MIB)), "{told}");
    assert!(finish(&sandbox).await.shm_full);
}

async fn a_fork_bomb_meets_the_pid_limit_and_dies(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["forks"]).await;
    ended(&sandbox).await;
    let told = fs::read_to_string(sandbox.streams().stdout).unwrap();
    // The limit counts PID 1 and the program.
    assert!(told.starts_with("forks 30 11"), "{told}");
    let evidence = finish(&sandbox).await;
    assert!(evidence.pids_refused >= 1, "{evidence:?}");
    assert_eq!(evidence.reading.pids, 1);
}

async fn a_pid_1_that_does_not_answer_is_killed_from_outside_and_the_reading_before_stands(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["deaf"]).await;
    said(&sandbox.streams().stdout, "deaf").await;
    let pid = nix::unistd::Pid::from_raw(fixture.pid_1(&sandbox).await);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    sandbox.order(Order::Kill).await.unwrap();
    let now = sandbox.reports().borrow().clone();
    assert!(!now.killed && now.ended.is_none() && now.gone.is_some(), "{now:?}");
    let evidence = sandbox.evidence().await;
    assert!(evidence.complete && evidence.reading.pids >= 4, "{evidence:?}");
    sandbox.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_program_of_a_dead_worker_is_ended_by_the_backstop(on: On) {
    let fixture = Fixture::new(on).await;
    let backend = fixture.running(&["deaf"]);
    let sandbox = backend.prepare(fixture.class()).await.unwrap();
    let mut assignment = fixture.assignment();
    (assignment.time_limit, assignment.grace) = (Duration::from_millis(100), Duration::from_millis(100));
    sandbox.assign(&assignment).await.unwrap();
    sandbox.order(Order::Start).await.unwrap();
    let end = ended(&sandbox).await;
    assert_eq!(end.signal, Some(9));
    // Limit, grace and ten seconds.
    assert!((10_200..12_000).contains(&end.elapsed.as_millis()), "{end:?}");
    let mut reports = sandbox.reports();
    reports.wait_for(|now| now.killed).await.unwrap();
    finish(&sandbox).await;
}

async fn a_caller_that_goes_away_while_a_sandbox_is_made_leaves_nothing(on: On) {
    let fixture = Fixture::new(on).await;
    let backend = fixture.backend();
    backend.prove().await;
    let prepare = backend.prepare(fixture.class());
    assert!(tokio::time::timeout(Duration::from_millis(10), prepare).await.is_err(), "it was made too fast");
    let until = Instant::now() + Duration::from_secs(20);
    let mut seen = false;
    loop {
        let traces = fixture.traces().await;
        seen |= !traces.is_empty();
        if seen && traces.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "seen: {seen}, left: {traces:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn what_a_program_leaves_is_read_from_a_mount_that_follows_no_link(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.start(&["links"]).await;
    assert_eq!(ended(&sandbox).await.exit_code, Some(0));
    sandbox.order(Order::Kill).await.unwrap();
    let artifacts = sandbox.artifacts();
    assert!(fs::symlink_metadata(artifacts.join("passwd")).unwrap().is_symlink());
    sandbox.end().await.unwrap();
    let error = fs::read(artifacts.join("passwd")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(40), "ELOOP, not {error}");
    assert_eq!(fs::read(artifacts.join("folder/hostname")).unwrap_err().raw_os_error(), Some(40));
    assert!(fs::write(artifacts.join("new"), b"").is_err());
    sandbox.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_kill_before_the_start_shuts_the_gate_for_good(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.gated(&["exit", "0"]).await;
    sandbox.order(Order::Kill).await.unwrap();
    assert!(!sandbox.reports().borrow().started);
    finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_program_that_cannot_be_started_says_why(on: On) {
    let fixture = Fixture::new(on).await;
    let backend = fixture.maker.running(vec!["/no/such/program".into()]);
    let sandbox = backend.prepare(fixture.class()).await.unwrap();
    sandbox.assign(&fixture.assignment()).await.unwrap();
    let error = sandbox.order(Order::Start).await.unwrap_err();
    let SandboxError::Gone { detail, .. } = &error else { panic!("{error}") };
    assert!(detail.contains("exec the program") && detail.contains("No such file"), "{detail}");
    sandbox.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn a_sandbox_that_cannot_be_made_leaves_nothing(on: On) {
    let fixture = Fixture::new(on).await;
    let mut class = fixture.class();
    class.image_id = "sha256:0000000000000000000000000000000000000000000000000000000000000000".into();
    let error = fixture.backend().prepare(class).await.unwrap_err();
    assert!(error.to_string().contains("image"), "{error}");
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn after_a_crash_a_sweep_removes_what_nobody_owns_and_keeps_the_rest(on: On) {
    let fixture = Fixture::new(on).await;
    let kept = fixture.start(&["deaf"]).await;
    let lost = fixture.start(&["deaf"]).await;
    let gated = fixture.gated(&["exit", "0"]).await;
    let kept_id = kept.id();
    // What a SIGKILL leaves: nobody who remembers.
    drop((kept, lost, gated));
    let again = fixture.again().await;
    let removed = again.sweep(&BTreeSet::from([kept_id])).await.unwrap();
    assert_eq!(removed.len(), 4, "{removed:?}");
    let traces = fixture.traces().await;
    assert!(
        !traces.is_empty() && traces.iter().all(|t| t.contains(&kept_id.to_string()) || t.contains("loop")),
        "{traces:?}"
    );
    again.sweep(&BTreeSet::new()).await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
    assert_eq!(again.sweep(&BTreeSet::new()).await.unwrap(), Vec::<String>::new());
}

async fn a_sweep_finds_a_volume_without_a_container_and_a_folder_without_a_volume(on: On) {
    let fixture = Fixture::new(on).await;
    let sandbox = fixture.gated(&["exit", "0"]).await;
    sandbox.end().await.unwrap();
    let empty = worker::sandbox::SandboxId::new();
    fs::create_dir(fixture.sandboxes().join(empty.to_string())).unwrap();
    drop(sandbox);
    let removed = fixture.again().await.sweep(&BTreeSet::new()).await.unwrap();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

async fn the_backend_says_what_it_enforces(on: On) {
    let fixture = Fixture::new(on).await;
    let backend = fixture.backend();
    backend.prove().await;
    let info = backend.describe().await;
    assert_eq!((info.name.as_str(), info.unavailable), (on.name(), None));
    let begin = match on {
        On::Docker => "engine ",
        On::Native => "kernel ",
    };
    assert!(info.version.starts_with(begin), "{}", info.version);
    let told: Vec<&str> = info.rules.iter().map(|rule| rule.name).collect();
    let all: Vec<&str> = RuleId::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(told, all, "every rule is answered, in its order");
    // The tests before this one have seen these hold.
    for name in ["identity", "seccomp", "files", "network", "memory", "processes", "disk", "time"] {
        let rule = info.rules.iter().find(|rule| rule.name == name).unwrap();
        let weaker = name == "disk" && !nix::unistd::geteuid().is_root();
        let expected = if weaker { Enforcement::Weaker } else { Enforcement::Enforced };
        assert_eq!(rule.enforcement, expected, "{rule:?}");
    }
    for rule in info.rules.iter().filter(|rule| rule.enforcement == Enforcement::Enforced) {
        assert!(!rule.detail.is_empty() && rule.remedy.is_empty(), "{rule:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_the_engine_does_not_have_is_refused_with_the_list_of_those_it_has() {
    let fixture = Fixture::new(On::Docker).await;
    let backend = fixture.with_runtime("no-such-runtime").await;
    let reason = backend.describe().await.unavailable.unwrap();
    assert!(reason.contains("`no-such-runtime`") && reason.contains("runc"), "{reason}");
    let error = backend.prepare(fixture.class()).await.unwrap_err().to_string();
    assert!(error.contains("no-such-runtime"), "{error}");
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}
