//! The hostile suite: every program of `tests/hostile/` over the real binaries, on each backend. A program is a file with
//! its expectation in its header (`e2e::program`); here each has a test of its own, so that one alone can be run:
//! `cargo test -p e2e --test hostile docker::processes_fork_bomb`.

mod checks;
mod pair;
mod run;

use std::collections::BTreeSet;

use e2e::program::{Program, names};

/// One test for each program and backend. A new file needs its name here; [`every_file_is_a_test`] sees to it.
macro_rules! programs {
    ($($name:ident),+ $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];

        mod docker {
            #[tokio::test(flavor = "multi_thread")]
            async fn two_at_once_are_strangers() { crate::pair::strangers(crate::run::Backend::Docker).await; }
            $(#[test] fn $name() { crate::run::program(stringify!($name), crate::run::Backend::Docker); })+
        }

        mod native {
            #[tokio::test(flavor = "multi_thread")]
            async fn two_at_once_are_strangers() { crate::pair::strangers(crate::run::Backend::Native).await; }
            $(#[test]
              fn $name() { crate::run::program(stringify!($name), crate::run::Backend::Native); })+
        }

        /// On Docker, by a plain user in the engine's group.
        mod plain {
            $(#[test] fn $name() { crate::run::program(stringify!($name), crate::run::Backend::Plain); })+
        }
    };
}

programs! {
    artifacts_deep, artifacts_five_thousand, artifacts_folder_becomes_a_link, artifacts_folder_is_a_link,
    artifacts_growing, artifacts_hard_links, artifacts_links, artifacts_names, artifacts_not_files,
    artifacts_other_owner, artifacts_shut_folders, artifacts_sixteen_folders, artifacts_sparse,
    artifacts_too_big,
    deceit_cut_logs, deceit_exit_124, deceit_exit_137, deceit_exit_143, deceit_exit_159, deceit_fake_errors,
    deceit_forge_outcome, deceit_full_disk_claimed, deceit_inputs, deceit_log_lines, deceit_other_runs,
    deceit_sigkill_itself, deceit_signal_storm, deceit_sigsys_itself, deceit_sigterm_itself,
    disk_allocate, disk_deep_folders, disk_deleted_and_open, disk_hard_links, disk_leaves_its_quota,
    disk_one_file, disk_other_places, disk_small_files, disk_sparse,
    escape_abstract_sockets, escape_administration, escape_af_alg, escape_bpf, escape_cgroup, escape_core_dump,
    escape_descriptors, escape_devices, escape_engine, escape_file_handles, escape_int80, escape_io_uring,
    escape_ipc, escape_kernel_files, escape_keyrings, escape_leaks, escape_mount, escape_namespaces,
    escape_network, escape_personality, escape_ptrace, escape_runtime, escape_setuid, escape_sockets,
    escape_userfaultfd, escape_x32,
    memory_bus_error, memory_child_killed_and_failed, memory_child_killed_and_gone_on, memory_error_claimed,
    memory_fragments, memory_heap, memory_hides_from_the_killer, memory_locked, memory_many_children,
    memory_memfd, memory_page_cache, memory_shm_full, memory_shm_is_memory, memory_slow_growth, memory_tmpfs,
    output_after_the_end, output_alternating, output_bad_metrics, output_closed, output_fills_the_disk,
    output_flood_of_metrics, output_gigabyte, output_invalid_utf8, output_many_points, output_nan_metric,
    output_one_endless_line, output_terminal_escapes,
    processes_deaf, processes_fork_bomb, processes_fork_until_refused, processes_hide_their_names,
    processes_kill_everything, processes_priorities, processes_stop_everything, processes_stopped,
    processes_straggler_multiplies, processes_subreaper, processes_thread_bomb, processes_vfork_bomb,
    processes_zombies,
    time_blocked_read, time_busy_loop, time_own_clock, time_set_clock, time_sleep, time_succeeds_on_sigterm,
}

#[test]
fn every_file_is_a_test() {
    let files: BTreeSet<String> = names().into_iter().collect();
    let tests: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, tests, "a file without a test, or a test without a file");
    let wrong: Vec<String> = names().iter().filter_map(|name| Program::load(name).err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(files.len() >= 50, "only {} programs", files.len());
}
