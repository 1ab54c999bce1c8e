//! The table itself. A call that is in no list here is answered as if the kernel did not have it.
//!
//! A name is added with a reason: something that a program in a sandbox really does. Left out although engines allow
//! them, because nothing here needs them and each has been a way in or out: `io_uring_*`, `splice` and its kin, kernel
//! asynchronous I/O, message queues, keyrings, tracing another process, `sync` of the whole host.

use super::{Answer, ENOSYS, EPERM};

/// Holds where every one of its conditions does.
pub(super) type Rule = &'static [Condition];

/// Holds where the argument, masked, is the value. The mask is what the kernel itself reads of the argument: it takes
/// most as 32 bits, and a test of all 64 could be passed by a bit that it never sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// From 0.
    pub argument: u8,
    pub mask: u64,
    pub value: u64,
}

const fn masked(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, mask, value }
}

/// The argument as the 32 bits that the kernel takes it for.
const fn is(argument: u8, value: u32) -> Condition {
    masked(argument, 0xffff_ffff, value as u64)
}

pub(super) fn answer(name: &str) -> Answer {
    if let Some((_, rules)) = WHERE.iter().find(|(call, _)| *call == name) {
        return Answer::AllowWhere(rules);
    }
    if allowed().any(|call| call == name) {
        return Answer::Allow;
    }
    Answer::Error(if refused().any(|call| call == name) { EPERM } else { ENOSYS })
}

pub(super) fn allowed() -> impl Iterator<Item = &'static str> {
    ALLOWED.iter().flat_map(|group| group.split_ascii_whitespace())
}

pub(super) fn refused() -> impl Iterator<Item = &'static str> {
    REFUSED.split_ascii_whitespace()
}

/// In groups, each a list of words.
const ALLOWED: [&str; 12] = [
    // Memory. The placement on NUMA nodes needs no privilege in the kernel; torch asks for it.
    "brk mmap munmap mremap mprotect madvise mincore msync membarrier memfd_create mlock mlock2 munlock \
     mlockall munlockall mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect get_mempolicy \
     set_mempolicy mbind",
    // Processes and threads. clone is below; clone3 hides its flags in memory, where no filter can read them.
    "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp \
     setpgid getsid setsid prctl arch_prctl set_tid_address set_robust_list get_robust_list rseq \
     restart_syscall futex futex_waitv futex_wait futex_wake futex_requeue kill tkill tgkill pidfd_open \
     pidfd_send_signal getrusage times getcpu uname sysinfo umask",
    // The kernel's own, in a process whose return is being traced from the host; it would die without.
    "uretprobe",
    // Priorities and limits: only ever its own, and only downwards.
    "sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler \
     sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr \
     sched_setattr getpriority setpriority ioprio_get ioprio_set getrlimit setrlimit prlimit64",
    // Who it is. Changing it needs capabilities that only PID 1 has.
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid \
     setresuid setresgid setfsuid setfsgid setgroups capget capset",
    // Signals.
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_tgsigqueueinfo sigaltstack signalfd signalfd4 pause alarm getitimer setitimer",
    // Descriptors and what is read and written through them.
    "open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev \
     preadv2 pwritev2 lseek sendfile copy_file_range dup dup2 dup3 fcntl flock pipe pipe2 fsync fdatasync \
     syncfs sync_file_range fadvise64 readahead fallocate ftruncate truncate",
    // Files by name.
    "stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat \
     getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat \
     symlink symlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes \
     futimesat utimensat getdents getdents64",
    // Extended attributes: shutil copies them.
    "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr \
     removexattr lremovexattr fremovexattr",
    // Waiting.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 \
     eventfd eventfd2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch nanosleep \
     clock_nanosleep clock_gettime clock_getres gettimeofday time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime \
     getrandom",
    // Sockets that it has got; which it gets is below.
    "bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt sendto recvfrom \
     sendmsg recvmsg sendmmsg recvmmsg shutdown",
    // Shared memory and semaphores of System V: the namespace is the sandbox's own and the memory is counted.
    "shmget shmat shmctl shmdt semget semop semctl semtimedop",
];

/// Calls that need a privilege, or that show or reach what is not the program's. A library that tries one of them is
/// used to being told so.
const REFUSED: &str = "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick \
    mount_setattr unshare setns ptrace process_vm_readv process_vm_writev process_madvise process_mrelease \
    pidfd_getfd kcmp bpf perf_event_open userfaultfd keyctl add_key request_key kexec_load kexec_file_load \
    init_module finit_module delete_module open_by_handle_at name_to_handle_at quotactl quotactl_fd \
    file_setattr swapon swapoff reboot settimeofday clock_settime clock_adjtime adjtimex sethostname \
    setdomainname syslog acct iopl ioperm lookup_dcookie fanotify_init fanotify_mark vhangup nfsservctl \
    move_pages migrate_pages lsm_set_self_attr modify_ldt seccomp";

/// Calls that depend on their arguments, as what may pass; the rest is EPERM.
pub(super) const WHERE: [(&str, &[Rule]); 7] = [
    ("clone", &[&[masked(0, NEW_NAMESPACES, 0)]]),
    ("socket", SOCKETS),
    ("socketpair", &[&[is(0, AF_UNIX)]]),
    // The usual one, and the question which it is.
    ("personality", &[&[is(0, 0)], &[is(0, 0xffff_ffff)]]),
    // No device nodes.
    (
        "mknod",
        &[&[file_kind(1, S_IFIFO)], &[file_kind(1, S_IFREG)], &[file_kind(1, S_IFSOCK)], &[file_kind(1, 0)]],
    ),
    (
        "mknodat",
        &[&[file_kind(2, S_IFIFO)], &[file_kind(2, S_IFREG)], &[file_kind(2, S_IFSOCK)], &[file_kind(2, 0)]],
    ),
    ("ioctl", REQUESTS),
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const S_IFIFO: u64 = 0o010_000;
const S_IFREG: u64 = 0o100_000;
const S_IFSOCK: u64 = 0o140_000;

const fn file_kind(argument: u8, kind: u64) -> Condition {
    masked(argument, 0o170_000, kind)
}

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const STREAM: Condition = masked(1, 0xf, 1);
const DATAGRAM: Condition = masked(1, 0xf, 2);
const TCP: u32 = 6;
const UDP: u32 = 17;

/// CUDA opens a socket of the first kind at its start. The others are for processes that talk over the loopback device,
/// as plain TCP and UDP: no raw sockets, and no protocol whose module the kernel would have to load.
const SOCKETS: &[Rule] = &[
    &[is(0, AF_UNIX)],
    &[is(0, AF_INET), STREAM, is(2, 0)],
    &[is(0, AF_INET), STREAM, is(2, TCP)],
    &[is(0, AF_INET), DATAGRAM, is(2, 0)],
    &[is(0, AF_INET), DATAGRAM, is(2, UDP)],
    &[is(0, AF_INET6), STREAM, is(2, 0)],
    &[is(0, AF_INET6), STREAM, is(2, TCP)],
    &[is(0, AF_INET6), DATAGRAM, is(2, 0)],
    &[is(0, AF_INET6), DATAGRAM, is(2, UDP)],
    // NETLINK_ROUTE and no other: libc lists the interfaces through it, and NCCL and gloo begin with that list.
    &[is(0, AF_NETLINK), is(2, 0)],
];

/// The requests that a program may make of a descriptor. Above all not: pushing input into a terminal (TIOCSTI,
/// TIOCLINUX), and leaving a disk quota or clearing the append-only flag (FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS and their
/// 32-bit numbers).
const REQUESTS: &[Rule] = &[
    // Terminals: what a program asks of its standard streams, and what pseudo-terminals need.
    &[is(1, 0x5401)],      // TCGETS
    &[is(1, 0x5402)],      // TCSETS
    &[is(1, 0x5403)],      // TCSETSW
    &[is(1, 0x5404)],      // TCSETSF
    &[is(1, 0x802c_542a)], // TCGETS2
    &[is(1, 0x402c_542b)], // TCSETS2
    &[is(1, 0x402c_542c)], // TCSETSW2
    &[is(1, 0x402c_542d)], // TCSETSF2
    &[is(1, 0x540e)],      // TIOCSCTTY
    &[is(1, 0x540f)],      // TIOCGPGRP
    &[is(1, 0x5410)],      // TIOCSPGRP
    &[is(1, 0x5411)],      // TIOCOUTQ
    &[is(1, 0x5413)],      // TIOCGWINSZ
    &[is(1, 0x5414)],      // TIOCSWINSZ
    &[is(1, 0x5422)],      // TIOCNOTTY
    &[is(1, 0x5429)],      // TIOCGSID
    &[is(1, 0x5441)],      // TIOCGPTPEER
    &[is(1, 0x8004_5430)], // TIOCGPTN
    &[is(1, 0x4004_5431)], // TIOCSPTLCK
    // Any descriptor.
    &[is(1, 0x541b)], // FIONREAD
    &[is(1, 0x5421)], // FIONBIO
    &[is(1, 0x5450)], // FIONCLEX
    &[is(1, 0x5451)], // FIOCLEX
    &[is(1, 0x5452)], // FIOASYNC
    // Files.
    &[is(1, 0x8008_6601)], // FS_IOC_GETFLAGS
    &[is(1, 0x4004_9409)], // FICLONE
    &[is(1, 0x4020_940d)], // FICLONERANGE
    &[is(1, 0xc020_660b)], // FS_IOC_FIEMAP
    // Interfaces, by libraries that do not ask through netlink.
    &[is(1, 0x8910)], // SIOCGIFNAME
    &[is(1, 0x8912)], // SIOCGIFCONF
    &[is(1, 0x8913)], // SIOCGIFFLAGS
    &[is(1, 0x8915)], // SIOCGIFADDR
    &[is(1, 0x8919)], // SIOCGIFBRDADDR
    &[is(1, 0x891b)], // SIOCGIFNETMASK
    &[is(1, 0x8921)], // SIOCGIFMTU
    &[is(1, 0x8927)], // SIOCGIFHWADDR
    &[is(1, 0x8933)], // SIOCGIFINDEX
    // NVIDIA: all requests of type 'F' to the GPU's nodes, and the plain numbers of the memory driver, of which the two
    // that begin and end lie apart.
    &[masked(1, 0xff00, 0x4600)],
    &[masked(1, 0xffff_ff00, 0)],
    &[masked(1, 0xffff_fffc, 0x3000_0000)],
];
