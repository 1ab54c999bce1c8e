//! Reads back from the kernel that every wall stands, before the start gate opens: what an engine says it has done
//! is not evidence. `/proc/PID` here is PID 1 of the sandbox as the host sees it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::statvfs;

use super::{
    Layer, SandboxClass, SandboxError,
    cgroup::Cgroup,
    layout::{BINDS, INIT_PATH},
    loops::{self, MountLine},
    volume::Volume,
};

/// KILL, SETGID and SETUID: bits 5, 6 and 7 of linux/capability.h.
const CAPABILITIES: u64 = 0b1110_0000;
const PAGE: u64 = 4096;

type Finding = Result<(), (&'static str, String)>;

/// Everything, in the order in which it matters.
pub(crate) fn verify(
    class: &SandboxClass,
    pid: i32,
    cgroup: &Cgroup,
    volume: &Volume,
) -> Result<(), SandboxError> {
    limits(class, cgroup, volume)
        .and_then(|()| privileges(pid))
        .and_then(|()| mounts(class, pid, volume))
        .and_then(|()| shared_memory(class, pid))
        .and_then(|()| network(pid))
        .and_then(|()| gpus(class, pid))
        .map_err(|(rule, detail)| SandboxError::NotInForce { id: class.id, rule, detail })
}

fn limits(class: &SandboxClass, cgroup: &Cgroup, volume: &Volume) -> Finding {
    let found = cgroup.limits().map_err(|e| ("memory", e.to_string()))?;
    let wanted = &class.limits;
    // The kernel counts memory in pages.
    let memory = wanted.memory_bytes / PAGE * PAGE;
    same("memory", Some(memory), found.memory_bytes)?;
    same("swap", Some(0), found.swap_bytes)?;
    same("processes", Some(u64::from(wanted.pids)), found.pids)?;
    same("cpu", Some(u64::from(wanted.cpu_millis)), found.cpu_millis)?;
    match &class.slot.cpuset {
        // systemd gives no set of CPUs to a user's services unless it is told to: `describe` says so, and the quota holds.
        Some(_) if found.cpuset.is_empty() && volume.holder().is_some() => Ok(()),
        Some(set) => same("cpu", cpu_list(set), cpu_list(&found.cpuset)),
        None => Ok(()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(rule: &'static str, wanted: T, found: T) -> Finding {
    if wanted == found { Ok(()) } else { Err((rule, format!("wanted {wanted:?}, the kernel has {found:?}"))) }
}

/// "0-2,5" as its numbers; `None` where it is none.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

fn privileges(pid: i32) -> Finding {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| ("identity", format!("{path}: {e}")))?;
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_default()
    };
    let set = |name| u64::from_str_radix(value(name), 16).ok();
    same("capabilities", Some(CAPABILITIES), set("CapBnd"))?;
    same("capabilities", Some(CAPABILITIES), set("CapPrm"))?;
    same("capabilities", Some(0), set("CapInh"))?;
    same("capabilities", Some(0), set("CapAmb"))?;
    same("no-new-privileges", "1", value("NoNewPrivs"))?;
    // 2: a filter, as opposed to none (0).
    same("seccomp", "2", value("Seccomp"))
}

fn mounts(class: &SandboxClass, pid: i32, volume: &Volume) -> Finding {
    let fail = |e: io::Error| ("files", e.to_string());
    if volume.holder().is_some() {
        let inside = loops::mounts_of(&pid.to_string()).map_err(fail)?;
        check_mounts(&inside, HELD)?;
        return held(class, pid, &inside, volume);
    }
    let host = loops::mounts_of("self").map_err(fail)?;
    let device_at = |place: PathBuf| {
        let device = host.iter().find(|m| m.target == place).map(|m| m.source.clone());
        let device = device.ok_or_else(|| ("disk", format!("{} is not mounted", place.display())))?;
        if device.starts_with("/dev/loop") {
            return Ok(device);
        }
        Err(("disk", format!("{} is on {device}, not on a loop device", place.display())))
    };
    let inside = loops::mounts_of(&pid.to_string()).map_err(fail)?;
    check_mounts(&inside, Source { name: &device_at(volume.path())?, kind: "ext4" })?;
    for (number, layer) in class.layers.iter().enumerate() {
        check_layer(&inside, layer, &device_at(volume.layer(number))?)?;
    }
    Ok(())
}

fn check_layer(inside: &[MountLine], layer: &Layer, device: &str) -> Finding {
    let mount = inside.iter().rev().find(|m| m.target == Path::new(&layer.target));
    let mount = mount.ok_or_else(|| ("files", format!("nothing is mounted at {}", layer.target)))?;
    if mount.source != device || mount.kind != "ext4" || mount.root != Path::new("/") {
        return Err(("files", format!("{} is {} of {}", layer.target, mount.root.display(), mount.source)));
    }
    if !mount.options.split(',').any(|option| option == "ro") {
        return Err(("files", format!("{} can be written", layer.target)));
    }
    Ok(())
}

/// What a volume is mounted from.
#[derive(Clone, Copy)]
struct Source<'a> {
    name: &'a str,
    kind: &'a str,
}

/// As `sandbox-init/hold.rs` mounts it.
const HELD: Source<'_> = Source { name: "sandbox", kind: "tmpfs" };

/// A name says little of a tmpfs: that what is inside is what this worker sees is told by the kernel's own numbers, and
/// its size by the mount.
fn held(class: &SandboxClass, pid: i32, inside: &[MountLine], volume: &Volume) -> Finding {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let numbers = |path: PathBuf| match rustix::fs::stat(&path) {
        Ok(found) => Ok((found.st_dev, found.st_ino)),
        Err(e) => Err(("disk", format!("{}: {e}", path.display()))),
    };
    for (name, target, _) in BINDS {
        let wanted = numbers(volume.path().join(name))?;
        let found = numbers(root.join(target.trim_start_matches('/')))?;
        if wanted != found {
            return Err(("disk", format!("{target} is not on the sandbox's volume")));
        }
    }
    let size = |target: &str| {
        let mount = inside.iter().rev().find(|m| m.target == Path::new(target));
        mount.and_then(|m| tmpfs_size(&m.of_system))
    };
    let wanted = Some(class.limits.disk_bytes.div_ceil(PAGE) * PAGE);
    same("disk", wanted, size("/work"))?;
    same("disk", wanted, size("/tmp"))
}

fn check_mounts(inside: &[MountLine], source: Source<'_>) -> Finding {
    // The last one at a place is the one that is seen.
    let at = |target: &str| {
        let mount = inside.iter().rev().find(|m| m.target == Path::new(target));
        mount.ok_or_else(|| ("files", format!("nothing is mounted at {target}")))
    };
    let has = |mount: &MountLine, option: &str| mount.options.split(',').any(|o| o == option);
    if !has(at("/")?, "ro") {
        return Err(("files", "the root can be written".to_owned()));
    }
    let program = ("init/sandbox-init", INIT_PATH, true);
    for (name, target, read_only) in BINDS.into_iter().chain([program]) {
        let mount = at(target)?;
        let same = mount.source == source.name && mount.kind == source.kind;
        if !same || mount.root != PathBuf::from("/").join(name) {
            return Err(("disk", format!("{target} is {} of {}", mount.root.display(), mount.source)));
        }
        // Older runtimes lose the other options of a bind that they make read-only; nothing on it is setuid.
        let wanted: &[&str] = if read_only { &["ro"] } else { &["rw", "nosuid", "nodev"] };
        if let Some(option) = wanted.iter().find(|option| !has(mount, option)) {
            return Err(("files", format!("{target} is not mounted {option}")));
        }
    }
    Ok(())
}

fn shm_path(pid: i32) -> String {
    format!("/proc/{pid}/root/dev/shm")
}

/// By the mount's own options: to look at the file system itself takes root.
fn shared_memory(class: &SandboxClass, pid: i32) -> Finding {
    let fail = |words: String| ("shared-memory", words);
    let inside = loops::mounts_of(&pid.to_string()).map_err(|e| fail(e.to_string()))?;
    let mount = inside.iter().rev().find(|m| m.target == Path::new("/dev/shm") && m.kind == "tmpfs");
    let mount = mount.ok_or_else(|| fail("no tmpfs is mounted at /dev/shm".to_owned()))?;
    let wanted = class.limits.shm_bytes.div_ceil(PAGE) * PAGE;
    same("shared-memory", Some(wanted), tmpfs_size(&mount.of_system))
}

/// "rw,size=8192k": the kernel tells it in KiB.
fn tmpfs_size(options: &str) -> Option<u64> {
    let size = options.split(',').find_map(|option| option.strip_prefix("size="))?;
    size.strip_suffix('k')?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether /dev/shm is full now; false where it cannot be seen. `/dev` is root's there, so the path is what it says.
pub(crate) fn shm_is_full(pid: i32) -> bool {
    statvfs(shm_path(pid)).is_ok_and(|stat| stat.f_blocks > 0 && (stat.f_bfree == 0 || stat.f_ffree == 0))
}

/// What a kernel with tunnels built in puts into every network namespace, down and without an address.
const KERNELS_OWN: [&str; 9] =
    ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];

fn network(pid: i32) -> Finding {
    let fail = |e: io::Error| ("network", e.to_string());
    let space = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).map_err(fail)?;
    match (space(&pid.to_string()), space("self").map_err(fail)?) {
        (Ok(its), own) if its == own => return Err(("network", "it is in the host's network".to_owned())),
        (Ok(_), _) => {}
        // Only root may look. In a name space of its own nothing has used the loopback device before the gate.
        (Err(e), _) if e.kind() == io::ErrorKind::PermissionDenied => unused_loopback(&text)?,
        (Err(e), _) => return Err(fail(e)),
    }
    // Two lines of headings, then "name: counters".
    let mut names = text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    match names.find(|name| *name != "lo" && !KERNELS_OWN.contains(name)) {
        Some(name) => Err(("network", format!("it has the interface {name}"))),
        None => Ok(()),
    }
}

fn unused_loopback(devices: &str) -> Finding {
    let counters = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    let counters = counters.ok_or_else(|| ("network", "there is no loopback device".to_owned()))?;
    match counters.split_whitespace().all(|counter| counter == "0") {
        true => Ok(()),
        false => {
            Err(("network", "its loopback device was used before it began: it may be the host's".to_owned()))
        }
    }
}

fn gpus(class: &SandboxClass, pid: i32) -> Finding {
    let entries = match fs::read_dir(format!("/proc/{pid}/root/dev")) {
        Ok(entries) => entries,
        // Only root may look: `describe` says that the engine's word is taken.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => {
            return Ok(());
        }
        Err(e) => return Err(("devices", e.to_string())),
    };
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let found = entries.flatten().filter(|entry| is_gpu(&entry.file_name().to_string_lossy())).count();
    // Instances of one divided GPU share its node.
    let wanted = class.slot.gpu_uuids.len();
    let divided = class.slot.gpu_uuids.iter().any(|uuid| uuid.starts_with("MIG-"));
    if found == wanted || (divided && (1..=wanted).contains(&found)) {
        return Ok(());
    }
    Err(("devices", format!("{wanted} GPUs were given and {found} are seen")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str, root: &str, options: &str) -> MountLine {
        MountLine {
            root: root.into(),
            target: target.into(),
            options: options.into(),
            kind: "ext4".into(),
            source: "/dev/loop3".into(),
            shared: false,
            of_system: "rw".into(),
        }
    }

    fn loop3() -> Source<'static> {
        Source { name: "/dev/loop3", kind: "ext4" }
    }

    fn good() -> Vec<MountLine> {
        vec![
            mount("/", "/", "ro,relatime"),
            mount("/work", "/work", "rw,nosuid,nodev,noatime"),
            mount("/tmp", "/tmp", "rw,nosuid,nodev,noatime"),
            mount("/logs", "/logs", "rw,nosuid,nodev,noatime"),
            mount("/in", "/in", "ro,nosuid,nodev,noatime"),
            mount("/sandbox-init", "/init/sandbox-init", "ro,nosuid,nodev,noatime"),
        ]
    }

    #[test]
    fn a_wall_that_is_missing_is_named() {
        assert_eq!(check_mounts(&good(), loop3()), Ok(()));
        let with = |at: usize, line: MountLine| {
            let mut lines = good();
            lines[at] = line;
            check_mounts(&lines, loop3()).unwrap_err()
        };
        assert!(with(0, mount("/", "/", "rw")).1.contains("root"));
        assert!(with(4, mount("/in", "/in", "rw,nosuid,nodev")).1.contains("/in is not mounted ro"));
        assert!(with(1, mount("/work", "/work", "rw,nodev")).1.contains("nosuid"));
        assert_eq!(with(1, mount("/work", "/other", "rw,nosuid,nodev")).0, "disk");
        assert!(check_mounts(&good(), Source { name: "/dev/loop4", kind: "ext4" }).is_err());
        let mut over = good();
        over.push(mount("/work", "/elsewhere", "rw,nosuid,nodev"));
        assert!(check_mounts(&over, loop3()).is_err(), "what is mounted over it counts");
    }

    #[test]
    fn a_layer_is_read_only_and_its_own_device() {
        let layer = Layer { target: "/data/x".into(), image: "/blob".into() };
        let with = |options| vec![mount("/data/x", "/", options)];
        assert_eq!(check_layer(&with("ro,nosuid,nodev"), &layer, "/dev/loop3"), Ok(()));
        assert!(check_layer(&with("rw,nosuid,nodev"), &layer, "/dev/loop3").is_err());
        assert!(check_layer(&with("ro"), &layer, "/dev/loop4").is_err());
        assert!(check_layer(&[], &layer, "/dev/loop3").is_err());
    }

    #[test]
    fn what_only_root_may_look_at_is_read_from_what_all_may() {
        assert_eq!(tmpfs_size("rw,size=8192k,mode=1777"), Some(8 << 20));
        assert_eq!(tmpfs_size("rw"), None);
        let devices = |line: &str| format!("Inter-| Receive\n face |bytes\n{line}\n");
        assert_eq!(unused_loopback(&devices("    lo:       0       0    0")), Ok(()));
        assert!(unused_loopback(&devices("    lo:     120       2    0")).is_err());
        assert!(unused_loopback(&devices("  eth0: 0 0")).is_err());
    }

    #[test]
    fn cpu_lists_are_compared_as_sets() {
        assert_eq!(cpu_list("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpu_list("1,0"), cpu_list("0-1"));
        assert_eq!(cpu_list(""), None);
    }
}
