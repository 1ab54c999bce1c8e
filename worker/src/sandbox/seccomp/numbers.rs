//! The machines that the table is rendered for: which number a call has there, and which numbers have a name at all.

use syscalls::{aarch64, x86_64};

use super::{Answer, ENOSYS, EPERM, table};

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
}

/// On x86_64 the bit that marks a call of the x32 numbering, which the kernel reports as the same instruction set.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Machine {
    /// The one that this program was compiled for.
    pub(super) fn own() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// As the kernel reports it with every call (linux/audit.h).
    pub(super) fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// As an engine's profile names it.
    pub(super) fn profile_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    /// The last number that has a name. What is above it is newer than this table.
    pub(super) fn last(self) -> u32 {
        let last = match self {
            Self::X86_64 => x86_64::Sysno::last().id(),
            Self::Aarch64 => aarch64::Sysno::last().id(),
        };
        last.unsigned_abs()
    }

    /// The name of a number; `None` for a hole in the numbering, and above the last.
    pub(super) fn name(self, number: u32) -> Option<&'static str> {
        let number = number as usize;
        match self {
            Self::X86_64 => x86_64::Sysno::new(number).map(|call| call.name()),
            // The kernel's own name of it, and the engines'.
            Self::Aarch64 => aarch64::Sysno::new(number).map(|call| match call {
                aarch64::Sysno::fstatat => "newfstatat",
                call => call.name(),
            }),
        }
    }

    /// Every call that this machine has.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        (0..=self.last()).filter_map(move |number| self.name(number))
    }

    /// What the table says of a number. A hole is refused as the engine does it, whose profile cannot name a hole.
    pub(super) fn answer(self, number: u32) -> Answer {
        match self.name(number) {
            Some(name) => table::answer(name),
            None if number > self.last() => Answer::Error(ENOSYS),
            None => Answer::Error(EPERM),
        }
    }
}
