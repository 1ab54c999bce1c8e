//! Each rule with a tree that breaks it: the test fails when the rule is taken away.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{walk::*, *};

struct Tree {
    root: tempfile::TempDir,
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("work/artifacts")).unwrap();
        Self { root }
    }
    fn source(&self) -> PathBuf {
        self.root.path().join("work/artifacts")
    }
    fn target(&self) -> PathBuf {
        self.root.path().join("out")
    }
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fn rules(&self, bytes_max: u64, files_max: u32) -> ArtifactRules {
        ArtifactRules { uid: own_uid(), bytes_max, files_max, time_max: Duration::from_secs(600) }
    }
    fn collect(&self, bytes_max: u64, files_max: u32) -> Collected {
        collect(&self.source(), &self.target(), self.rules(bytes_max, files_max)).unwrap()
    }
    fn copy_of(&self, out: &Collected, name: &str) -> Vec<u8> {
        let artifact = out.artifacts.iter().find(|a| a.name == name).unwrap();
        fs::read(copy_path(&self.target(), &artifact.digest.parse().unwrap())).unwrap()
    }
}

fn names(out: &Collected) -> Vec<&str> {
    out.artifacts.iter().map(|a| a.name.as_str()).collect()
}

fn reason<'a>(out: &'a Collected, name: &str) -> &'a str {
    &out.left_out.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("{name} in {out:?}")).reason
}

#[test]
fn good_files_come_out_with_their_digests() {
    let tree = Tree::new();
    tree.write("model.pt", b"weights");
    tree.write("plots/a b é.svg", b"<svg/>");
    tree.write("plots/copy", b"weights");
    tree.write("empty", b"");
    let out = tree.collect(1000, 10);
    assert_eq!(names(&out), ["empty", "model.pt", "plots/a b é.svg", "plots/copy"]);
    assert_eq!((out.left_out.len(), out.exceeded.as_ref(), out.bytes), (0, None, 20));
    for artifact in &out.artifacts {
        let digest: Digest = artifact.digest.parse().unwrap();
        assert_eq!(Digest::of_file(&copy_path(&tree.target(), &digest)).unwrap(), digest);
    }
    // Two of the four have the same bytes, and nothing half-written stays.
    assert_eq!(fs::read_dir(tree.target()).unwrap().count(), 3);
}

#[test]
fn links_fifos_sockets_and_second_names_are_left_out() {
    let tree = Tree::new();
    let secret = tree.root.path().join("secret");
    fs::write(&secret, b"of the host").unwrap();
    fs::create_dir(tree.root.path().join("outside")).unwrap();
    fs::write(tree.root.path().join("outside/x"), b"x").unwrap();
    symlink(&secret, tree.source().join("link")).unwrap();
    symlink("../../secret", tree.source().join("relative")).unwrap();
    symlink(tree.root.path().join("outside"), tree.source().join("folder")).unwrap();
    symlink("/proc/self/root/etc", tree.source().join("magic")).unwrap();
    fs::hard_link(&secret, tree.source().join("hard")).unwrap();
    nix::unistd::mkfifo(&tree.source().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.source().join("socket")).unwrap();
    tree.write("good", b"yes");
    let out = tree.collect(1000, 10);
    assert_eq!(names(&out), ["good"]);
    for name in ["link", "relative", "folder", "magic"] {
        assert!(reason(&out, name).contains("symbolic link"), "{name}");
    }
    assert!(reason(&out, "hard").contains("hard links"));
    assert!(reason(&out, "fifo").contains("FIFO"));
    assert!(reason(&out, "socket").contains("socket"));
    assert_eq!(out.exceeded, None);
}

#[test]
fn a_device_is_left_out() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let tree = Tree::new();
    // /dev/zero: a reader that took it would never end. Making it needs root.
    let path = tree.source().join("zero");
    match mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 5)) {
        Ok(()) => assert!(reason(&tree.collect(1 << 20, 10), "zero").contains("device")),
        Err(error) => assert!(!rustix::process::getuid().is_root(), "{error}"),
    }
    // What counts is what was opened, whatever the name was before: the null device is no file of ours.
    let stat = rustix::fs::fstat(File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(file_rule(&stat, stat.st_uid), Err("is no regular file"));
}

#[test]
fn the_folder_itself_may_be_a_link_or_gone() {
    let tree = Tree::new();
    fs::remove_dir(tree.source()).unwrap();
    assert_eq!(tree.collect(10, 10), Collected::default());
    symlink("/etc", tree.source()).unwrap();
    let out = tree.collect(1 << 30, 1000);
    assert!(out.artifacts.is_empty() && out.left_out.len() == 1, "{out:?}");
}

#[test]
fn another_owner_is_left_out() {
    let tree = Tree::new();
    tree.write("theirs", b"x");
    let rules = ArtifactRules { uid: own_uid() + 1, ..tree.rules(10, 10) };
    let out = collect(&tree.source(), &tree.target(), rules).unwrap();
    assert!(out.artifacts.is_empty() && reason(&out, "theirs").contains("not owned"));
}

#[test]
fn bytes_and_files_are_limits() {
    let tree = Tree::new();
    tree.write("a", b"12345");
    tree.write("b", b"12345");
    tree.write("c", b"1");
    let out = tree.collect(9, 10);
    assert_eq!(names(&out), ["a"]);
    assert!(out.exceeded.as_ref().unwrap().contains("9B"));
    // The rest is named, also what would have fitted.
    assert!(reason(&out, "c").starts_with("after the limit"));
    let out = tree.collect(100, 2);
    assert_eq!(names(&out), ["a", "b"]);
    assert!(out.exceeded.unwrap().contains("2 files"));
}

#[test]
fn a_sparse_file_is_charged_what_it_claims() {
    let tree = Tree::new();
    let sparse = File::create(tree.source().join("sparse")).unwrap();
    // A PiB where the file system takes it; ext4 ends at 16 TiB.
    let size = [1_u64 << 50, 1 << 43, 1 << 40].into_iter().find(|size| sparse.set_len(*size).is_ok());
    assert!(size.is_some());
    let out = tree.collect(1 << 30, 10);
    assert!(reason(&out, "sparse").contains("1GiB"), "{out:?}");
    assert_eq!((out.bytes, fs::read_dir(tree.target()).unwrap().count()), (0, 0));
}

#[test]
fn a_sparse_file_within_the_limit_comes_out_whole() {
    let tree = Tree::new();
    File::create(tree.source().join("sparse")).unwrap().set_len(1 << 20).unwrap();
    let out = tree.collect(1 << 20, 10);
    assert_eq!((out.bytes, tree.copy_of(&out, "sparse")), (1 << 20, vec![0; 1 << 20]));
}

#[test]
fn deep_and_strange_names() {
    let tree = Tree::new();
    let deep = vec!["d"; DEPTH_MAX + 1].join("/");
    tree.write(&format!("{deep}/x"), b"deep");
    tree.write(&format!("{}/y", vec!["d"; DEPTH_MAX].join("/")), b"less deep");
    fs::write(tree.source().join("a\nb"), b"x").unwrap();
    fs::write(tree.source().join("esc\x1b[2J"), b"x").unwrap();
    fs::write(tree.source().join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"x").unwrap();
    let out = tree.collect(1000, 100);
    assert_eq!(out.artifacts.len(), 1);
    assert!(out.exceeded.unwrap().contains("deep"));
    assert!(out.left_out.iter().all(|l| !l.name.chars().any(char::is_control)));
    assert_eq!(out.left_out.len(), 4);
}

#[test]
fn names_that_are_too_long_together_are_left_out() {
    let tree = Tree::new();
    let long = "n".repeat(250);
    tree.write(&format!("{long}/{long}/{long}"), b"x");
    tree.write(&format!("{long}/short"), b"x");
    let out = tree.collect(1000, 10);
    assert_eq!(out.artifacts.len(), 1);
    assert!(out.left_out[0].reason.contains("512 bytes"), "{out:?}");
}

#[test]
fn ten_thousand_folders_deep_ends_at_the_sixteenth() {
    let tree = Tree::new();
    // No path is long enough to name the deepest, so each is made beneath the last.
    let mut at: std::os::fd::OwnedFd = File::open(tree.source()).unwrap().into();
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let out = tree.collect(1000, 10);
    assert!(out.exceeded.unwrap().contains("16 folders deep"));
    assert_eq!((out.artifacts.len(), out.left_out.len()), (0, 1));
    // The temporary folder's own removal would recurse ten thousand calls deep.
    let removed = std::process::Command::new("rm").arg("-rf").arg(tree.source()).status().unwrap();
    assert!(removed.success());
}

#[test]
fn a_hundred_thousand_entries_end_the_walk() {
    let tree = Tree::new();
    let many = tree.source().join("many");
    fs::create_dir(&many).unwrap();
    let first = many.join("0");
    fs::write(&first, b"").unwrap();
    // A link costs no inode; a folder and then folders after it show that nothing more is opened.
    let (mut made, mut farm) = (1, 0);
    while made <= ENTRIES_MAX {
        let source = many.join(format!("f{farm}"));
        fs::write(&source, b"").unwrap();
        made += 1;
        for index in 0..30_000.min(ENTRIES_MAX + 1 - made.min(ENTRIES_MAX + 1)) {
            fs::hard_link(&source, many.join(format!("{farm}-{index}"))).unwrap();
            made += 1;
        }
        farm += 1;
    }
    tree.write("zz/later", b"x");
    let out = tree.collect(1000, 10);
    assert!(out.exceeded.as_ref().unwrap().contains("100000 entries"), "{:?}", out.exceeded);
    assert_eq!((out.artifacts.len(), out.left_out.len()), (0, 1));
}

#[test]
fn the_list_of_artifacts_fits_into_one_event() {
    let rules = ArtifactRules {
        uid: own_uid(),
        bytes_max: 1 << 40,
        files_max: u32::MAX,
        time_max: Duration::from_secs(600),
    };
    let tree = Tree::new();
    // 4000 names of 505 bytes are 2 MB, and every one has a digest besides.
    let (folder, file) = ("p".repeat(250), "f".repeat(250));
    for index in 0..4000 {
        tree.write(&format!("{index:04}{folder}/{file}"), b"");
    }
    let out = collect(&tree.source(), &tree.target(), rules).unwrap();
    let kind = proto::v1::event::Kind::Finished(proto::v1::Finished {
        artifacts: out.artifacts,
        left_out: out.left_out,
        ..Default::default()
    });
    let event = proto::v1::Event { kind: Some(kind), ..Default::default() };
    assert!(prost::Message::encoded_len(&event) < crate::run::spool::format::PAYLOAD_BYTES_MAX);
    assert!(out.exceeded.unwrap().contains("2MiB of names"));
}

#[test]
fn many_that_are_left_out_are_counted() {
    let tree = Tree::new();
    for index in 0..LEFT_OUT_MAX + 50 {
        symlink("x", tree.source().join(format!("{index}"))).unwrap();
    }
    let out = tree.collect(1000, 100);
    assert_eq!(out.left_out.len(), LEFT_OUT_MAX + 1);
    assert_eq!(out.left_out.last().unwrap().reason, "and 50 more");
}

#[test]
fn modes_are_not_copied_and_mode_000_does_not_end_the_walk() {
    let tree = Tree::new();
    tree.write("setuid", b"set");
    tree.write("closed", b"closed");
    tree.write("folder/inside", b"inside");
    tree.write("z", b"last");
    let mode =
        |name: &str, mode| fs::set_permissions(tree.source().join(name), fs::Permissions::from_mode(mode));
    mode("setuid", 0o6777).unwrap();
    mode("closed", 0).unwrap();
    mode("folder", 0).unwrap();
    let out = tree.collect(1000, 10);
    mode("folder", 0o700).unwrap();
    assert!(names(&out).contains(&"setuid") && names(&out).contains(&"z"));
    if rustix::process::getuid().is_root() {
        assert_eq!(names(&out), ["closed", "folder/inside", "setuid", "z"]);
    } else {
        assert!(reason(&out, "closed").contains("cannot be opened"));
        assert!(reason(&out, "folder/").contains("cannot be opened"));
    }
    for entry in fs::read_dir(tree.target()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn attributes_are_not_copied() {
    let tree = Tree::new();
    tree.write("a", b"x");
    let path = tree.source().join("a");
    // A temporary folder without user attributes has nothing to lose here.
    if rustix::fs::setxattr(&path, "user.note", b"hi", rustix::fs::XattrFlags::empty()).is_ok() {
        let out = tree.collect(10, 10);
        let copy = copy_path(&tree.target(), &out.artifacts[0].digest.parse().unwrap());
        assert!(rustix::fs::getxattr(&copy, "user.note", &mut [0_u8; 8][..]).is_err());
    }
}

#[test]
fn the_time_is_a_limit() {
    let tree = Tree::new();
    tree.write("a", b"x");
    let rules = ArtifactRules { time_max: Duration::ZERO, ..tree.rules(10, 10) };
    let out = collect(&tree.source(), &tree.target(), rules).unwrap();
    assert!(out.artifacts.is_empty() && out.exceeded.unwrap().contains("took longer"));
    let file = File::open(tree.source().join("a")).unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let mut copier = copy::Copier::new(&tree.target(), std::time::Instant::now());
    assert!(copier.copy(file, &stat).unwrap().unwrap_err().contains("time"));
    assert!(ArtifactRules::time_for(1 << 30) > ArtifactRules::time_for(0));
}

/// Runs `hostile` over and over on a thread of its own until `work` is done.
fn beside(hostile: impl Fn() + Send + 'static, work: impl FnOnce()) {
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let thread = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            hostile();
        }
    });
    work();
    over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_left_out() {
    let tree = Tree::new();
    let path = tree.source().join("log");
    fs::create_dir_all(tree.target()).unwrap();
    let as_checked = || {
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        (file, stat)
    };
    let copy = |file, stat| {
        let mut copier =
            copy::Copier::new(&tree.target(), std::time::Instant::now() + Duration::from_secs(60));
        copier.copy(file, &stat).unwrap()
    };
    let (file, stat) = as_checked();
    assert!(copy(file, stat).is_ok());
    let append =
        |bytes: &[u8]| fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(bytes).unwrap();
    // Each between the check and the read.
    let (file, stat) = as_checked();
    append(b"more");
    assert!(copy(file, stat).unwrap_err().contains("size changed"));
    let (file, stat) = as_checked();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(copy(file, stat).unwrap_err().contains("size changed"));
    let (file, stat) = as_checked();
    std::thread::sleep(Duration::from_millis(20)); // the kernel's clock for files ticks every few ms
    std::os::unix::fs::FileExt::write_all_at(
        &fs::OpenOptions::new().write(true).open(&path).unwrap(),
        b"x",
        5,
    )
    .unwrap();
    assert_eq!(copy(file, stat).unwrap_err(), "it changed while it was copied");
    assert!(!tree.target().join(".partial").exists());
}

#[test]
fn a_file_that_grows_all_the_time_is_bounded_by_its_checked_size() {
    let tree = Tree::new();
    tree.write("growing", b"x");
    tree.write("good", b"good");
    let path = tree.source().join("growing");
    let grow = move || {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        if file.metadata().unwrap().len() < 1 << 20 {
            file.write_all(&[1; 4096]).unwrap();
        }
    };
    beside(grow, || {
        for _ in 0..60 {
            let out = tree.collect(64 << 20, 10);
            assert!(names(&out).contains(&"good"));
            for artifact in &out.artifacts {
                let copy = copy_path(&tree.target(), &artifact.digest.parse().unwrap());
                assert_eq!(fs::metadata(&copy).unwrap().len(), artifact.size_bytes);
                fs::remove_file(copy).unwrap();
            }
        }
    });
}

#[test]
fn a_file_and_a_folder_swapped_with_links_all_the_time_lead_nowhere() {
    let tree = Tree::new();
    fs::create_dir_all(tree.root.path().join("outside")).unwrap();
    fs::write(tree.root.path().join("outside/f"), b"of the host").unwrap();
    tree.write("file", b"own");
    tree.write("folder/f", b"own");
    // Not among the artifacts, so that the walk does not meet them under these names.
    let side = tree.root.path().join("side");
    fs::create_dir(&side).unwrap();
    symlink("../../outside/f", side.join("file")).unwrap();
    symlink("../../outside", side.join("folder")).unwrap();
    let (from, to) = (side, tree.source());
    let swap = move || {
        for name in ["file", "folder"] {
            let (one, other) = (from.join(name), to.join(name));
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &one,
                rustix::fs::CWD,
                &other,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    };
    let (mut taken, mut refused) = (0, 0);
    beside(swap, || {
        for _ in 0..2000 {
            let out = tree.collect(1000, 10);
            for artifact in &out.artifacts {
                assert_eq!(tree.copy_of(&out, &artifact.name), b"own", "{}", artifact.name);
            }
            taken += out.artifacts.len();
            refused += out.left_out.len();
        }
    });
    assert!(taken > 0 && refused > 0, "the swap was seen from both sides: {taken}, {refused}");
}
