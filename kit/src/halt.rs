//! Points at which a test has the program stop itself (SIGSTOP), so that a fault can be done at exactly that instruction:
//! a kill, a cut, a clock that jumps. Only in builds with debug assertions; in a release build a point is nothing.
//!
//! `AUTORESEARCH_HALT=FOLDER:POINT,POINT#3` names the points; `#3` is the third time that one is passed. A point that stops
//! the program first makes the file `FOLDER/POINT` with the process id in it, and a point whose file is there stops nobody:
//! each stops one process once, also where a program that is started anew inherits the variable.

/// The variable.
pub const VARIABLE: &str = "AUTORESEARCH_HALT";

/// Stops this process here, if a test asked for it. `point` is a name like `controller.release`.
#[cfg(debug_assertions)]
pub fn at(point: &'static str) {
    asked::PLAN.get_or_init(|| asked::Plan::of(&std::env::var(VARIABLE).unwrap_or_default())).pass(point);
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_: &'static str) {}

#[cfg(debug_assertions)]
mod asked {
    use std::{
        collections::BTreeMap,
        io::Write as _,
        path::PathBuf,
        sync::{Mutex, OnceLock, PoisonError},
    };

    pub(super) static PLAN: OnceLock<Plan> = OnceLock::new();

    #[derive(Debug, Default)]
    pub(super) struct Plan {
        folder: PathBuf,
        /// How often each point is still to be passed before it stops.
        left: Mutex<BTreeMap<String, u32>>,
    }

    impl Plan {
        pub(super) fn of(text: &str) -> Self {
            let Some((folder, points)) = text.split_once(':') else { return Self::default() };
            let point = |text: &str| match text.split_once('#') {
                Some((name, time)) => (name.to_owned(), time.parse().unwrap_or(1)),
                None => (text.to_owned(), 1),
            };
            Self { folder: folder.into(), left: Mutex::new(points.split(',').map(point).collect()) }
        }

        /// Whether this time is the one that was asked for.
        pub(super) fn is_due(&self, point: &str) -> bool {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(count) = left.get_mut(point) else { return false };
            *count = count.saturating_sub(1);
            if *count > 0 {
                return false;
            }
            left.remove(point);
            true
        }

        pub(super) fn pass(&self, point: &str) {
            if !self.is_due(point) {
                return;
            }
            let file = std::fs::File::create_new(self.folder.join(point));
            // A file that is there has stopped somebody already; a folder that is gone has nobody who waits.
            let Ok(mut file) = file else { return };
            if writeln!(file, "{}", std::process::id()).is_ok() {
                tracing::info!(point, "stopped for a test");
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).ok();
            }
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::asked::Plan;

    #[test]
    fn a_point_is_due_at_its_time_and_once() {
        let plan = Plan::of("/nowhere:one,two#3");
        assert!(plan.is_due("one"));
        assert!(!plan.is_due("one"));
        assert_eq!([(); 4].map(|()| plan.is_due("two")), [false, false, true, false]);
        assert!(!plan.is_due("three"));
    }

    #[test]
    fn where_nothing_was_asked_for_nothing_is_due() {
        assert!(!Plan::of("").is_due("one"));
        assert!(!Plan::of("no folder").is_due("one"));
    }

    #[test]
    fn a_point_without_its_folder_stops_nobody() {
        Plan::of("/nowhere/at/all:one").pass("one");
    }
}
