//! The table of rules: what a sandbox promises, one entry for each promise, whichever backend makes it. The numbers
//! R1 to R20 are those of the project's notes on sandboxes, so that nobody has to look for what covers them.
//!
//! What belongs here: the rules' names and words. Whether a rule holds on a host is the backend's to say, by a `match`
//! over [`RuleId`] without a wildcard: a backend that forgets a rule does not compile.

use super::{Enforcement, Rule};

macro_rules! rules {
    ($($id:ident $name:literal $covers:tt $promise:literal)*) => {
        /// A rule of the sandbox.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RuleId {
            $(#[doc = $promise] $id,)*
        }

        impl RuleId {
            /// Every rule, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$id,)*];

            /// Its name: lower case, with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$id => $name,)*
                }
            }

            /// What it promises, in one line.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self {
                    $(Self::$id => $promise,)*
                }
            }

            /// Which of R1 to R20 it covers, as their numbers.
            #[must_use]
            pub const fn covers(self) -> &'static [u8] {
                match self {
                    $(Self::$id => &$covers,)*
                }
            }
        }
    };
}

rules! {
    Identity "identity" []
        "The program has an unprivileged user id of its slot, and PID 1 another."
    Capabilities "capabilities" []
        "The program has no capability; PID 1 has three: to change its user and to kill."
    NoNewPrivileges "no-new-privileges" []
        "No program in it gains a privilege by being started."
    Seccomp "seccomp" [6]
        "Only the system calls that our own table names can be made; those of another numbering end the process."
    Namespaces "namespaces" []
        "Its processes, shared memory, host name and cgroups are its own; it sees nobody else's."
    Files "files" [5]
        "The root is read-only, data sets and packages too; only work/ and tmp/ of its own volume can be written, and the worker writes nothing there after the start."
    Network "network" []
        "None."
    Memory "memory" [7]
        "A hard limit on everything that is charged to it."
    Swap "swap" [8]
        "None beyond the memory limit."
    SharedMemory "shared-memory" []
        "/dev/shm has a size of its own and counts as memory."
    Processes "processes" []
        "A hard limit on processes and threads together."
    OpenFilesAndCores "open-files-and-cores" []
        "A limit on open files, and no core dump."
    Cpu "cpu" []
        "No more CPU time than its share, on the CPUs of its slot."
    Disk "disk" [9]
        "A file system of its own with a hard size, in blocks and in files."
    Output "output" [11]
        "Log bytes and metric points have limits; what comes after is not kept and holds up nobody."
    Time "time" [2]
        "The worker's clock ends it: SIGTERM, a grace, SIGKILL to everything; PID 1 does so itself where no worker is left."
    Gate "gate" [7, 20]
        "Nothing runs before every wall was read back from the kernel."
    Devices "devices" [14, 15]
        "Only the GPUs of its slot, by UUID, and no other device of the host; one sandbox for each GPU."
    Secrets "secrets" []
        "No environment, socket, key, name or path of the host is seen inside."
    Image "image" [10]
        "From the worker's own list, by content; never named by generated code, and without a volume or a loader's variable."
    Artifacts "artifacts" [3, 4, 19]
        "Files are taken after the program's end, by a reader that follows no link, within limits, and are never loaded."
    Evidence "evidence" [13, 18]
        "How it ended is the word of PID 1 and of the kernel; what the program says of itself is called its own word."
    Leaving "leaving" [12]
        "Nothing is left: no process, container, cgroup, mount, loop device or file, also after a crash."
    Quarantine "quarantine" [16]
        "Where a kill cannot be confirmed, the slot and its GPUs are given to nobody."
    SingleUse "single-use" [1]
        "One sandbox for one run, thrown away after it; nothing is ever started in it from outside."
    Versions "versions" [17]
        "What is older than the fixes of known escapes is said loudly."
}

/// How a rule stands on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    enforcement: Enforcement,
    detail: String,
    remedy: String,
}

impl Standing {
    /// It holds; how.
    pub fn enforced(how: impl Into<String>) -> Self {
        Self { enforcement: Enforcement::Enforced, detail: how.into(), remedy: String::new() }
    }

    /// It holds in part, or by weaker means; and the one command that would mend it, or nothing where none would.
    pub fn weaker(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { enforcement: Enforcement::Weaker, detail: detail.into(), remedy: remedy.into() }
    }

    /// It does not hold; and the one command that would mend it, or nothing where none would.
    pub fn not_enforced(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { enforcement: Enforcement::NotEnforced, detail: detail.into(), remedy: remedy.into() }
    }

    /// Whether it holds.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }
}

/// Every rule, as a backend answers it. `standing` is a `match` without a wildcard.
pub fn answer(standing: impl Fn(RuleId) -> Standing) -> Vec<Rule> {
    let rule = |id: &RuleId| {
        let Standing { enforcement, detail, remedy } = standing(*id);
        Rule { name: id.name(), enforcement, detail, remedy }
    };
    RuleId::ALL.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_the_notes_is_covered() {
        let covered: Vec<u8> = RuleId::ALL.iter().flat_map(|rule| rule.covers()).copied().collect();
        let missing: Vec<u8> = (1..=20).filter(|number| !covered.contains(number)).collect();
        assert_eq!(missing, Vec::<u8>::new());
    }

    #[test]
    fn names_are_kebab_case_and_their_own() {
        for rule in RuleId::ALL {
            let name = rule.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
            assert_eq!(RuleId::ALL.iter().filter(|other| other.name() == name).count(), 1, "{name}");
            assert!(rule.promise().ends_with('.') && !rule.promise().contains('\n'), "{name}");
        }
    }
}
