//! Files and folders in, names and images in the store, lending and removing.

use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
};

use kit::digest::Digest;

use super::{
    super::{Bounds, Committed, DataSetError, Removed, Replace, Shape, Store, add::Source},
    AddRequest, Scene, debugfs, request,
};

fn path(path: &Path) -> Source {
    Source::Path(path.to_owned())
}

#[tokio::test]
async fn a_folder_becomes_an_image_that_is_roots_and_readable_and_has_nothing_else_in_it() {
    let scene = Scene::new();
    let files: [(&str, &[u8]); 4] =
        [("a b é.txt", b"one"), ("sub/deep/b.bin", &[5; 10_000]), ("sub/c", b""), (".hidden", b"x")];
    let folder = scene.folder("in", &files);
    fs::create_dir(folder.join("empty")).unwrap();
    let (manifest, committed) = scene.add(request("mine", path(&folder))).await.unwrap();
    assert_eq!((committed, manifest.files, manifest.size_bytes), (Committed::New, 4, 10_004));
    assert_eq!((&manifest.shape, manifest.path_inside().as_str()), (&Shape::Folder, "/data/mine"));

    let lent = scene.store.lend("mine").unwrap();
    assert_eq!((lent.layer.target.as_str(), lent.path.as_str()), ("/data/mine", "/data/mine"));
    // "/INODE/MODE/UID/GID/NAME/SIZE/"
    let root = debugfs(&lent.layer.image, "ls -p /");
    let entries: Vec<Vec<&str>> = root.lines().map(|line| line.split('/').collect()).collect();
    let names: Vec<&str> = entries.iter().filter_map(|e| Some(*e.get(5)?)).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [".", "..", ".hidden", "a b é.txt", "sub"]);
    for entry in entries.iter().filter(|e| e.len() > 5) {
        assert_eq!((entry[3], entry[4]), ("0", "0"), "{entry:?}");
        assert!(matches!(entry[2], "040755" | "100444"), "{entry:?}");
    }
    assert_eq!(debugfs(&lent.layer.image, "cat \"a b é.txt\""), "one");
    assert_eq!(debugfs(&lent.layer.image, "cat sub/deep/b.bin").len(), 10_000);
    let again = scene.store.verify("mine", &|_, _, _| {}).unwrap();
    assert_eq!(again, manifest);
}

#[tokio::test]
async fn the_digest_of_a_folder_is_of_its_list_and_pins_it() {
    let scene = Scene::new();
    let folder = scene.folder("in", &[("b", b"2"), ("a/x", b"1"), ("a.b", b"3")]);
    let line = |size: u64, bytes: &[u8], name: &str| format!("{size} {} {name}\n", Digest::of(bytes).hex());
    let list = format!(
        "autoresearch-data-set-1\n{}{}{}",
        line(1, b"3", "a.b"),
        line(1, b"1", "a/x"),
        line(1, b"2", "b")
    );
    let right = Digest::of(list.as_bytes());
    let pinned = |digest| AddRequest { sha256: Some(digest), ..request("mine", path(&folder)) };
    let error = scene.add(pinned(Digest::of(b"other"))).await.unwrap_err();
    assert!(error.to_string().contains(&right.to_string()), "{error}");
    assert!(scene.left().is_empty());
    assert_eq!(scene.add(pinned(right)).await.unwrap().0.digest, right);
}

#[tokio::test]
async fn a_file_is_found_by_its_path_and_keeps_its_own_digest() {
    let scene = Scene::new();
    let folder = scene.folder("in", &[("table.csv", b"1,2\n")]);
    let (manifest, _) = scene.add(request("t", path(&folder.join("table.csv")))).await.unwrap();
    assert_eq!(
        (manifest.digest, manifest.path_inside().as_str()),
        (Digest::of(b"1,2\n"), "/data/t/table.csv")
    );
    let wire = manifest.wire();
    assert_eq!((wire.name.as_str(), wire.files, wire.size_bytes), ("t", 1, 4));
    assert!(wire.description.contains("one file, table.csv"), "{}", wire.description);
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_by_name_and_leaves_nothing() {
    let make: [(&str, &str, fn(&Path)); 9] = [
        ("link", "symbolic link", |f| symlink("/etc/shadow", f.join("link")).unwrap()),
        ("inside", "symbolic link", |f| symlink("good", f.join("inside")).unwrap()),
        ("up", "symbolic link", |f| symlink("/proc/self/root", f.join("up")).unwrap()),
        ("fifo", "FIFO", |f| nix::unistd::mkfifo(&f.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("socket", "socket", |f| drop(std::os::unix::net::UnixListener::bind(f.join("socket")).unwrap())),
        (r"a\nb", "control", |f| fs::write(f.join("a\nb"), b"x").unwrap()),
        (r"esc\u{1b}[2J", "control", |f| fs::write(f.join("esc\x1b[2J"), b"x").unwrap()),
        ("bad", "UTF-8", |f| fs::write(f.join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"x").unwrap()),
        ("lost+found", "rename", |f| fs::write(f.join("lost+found"), b"x").unwrap()),
    ];
    let scene = Scene::new();
    for (index, (name, why, make)) in make.into_iter().enumerate() {
        let folder = scene.folder(&format!("in{index}"), &[("good", b"yes")]);
        make(&folder);
        let error = scene.add(request("bad", path(&folder))).await.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(why), "{name}: {error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert!(scene.left().is_empty(), "{name}");
    }
    for (given, why) in [("/dev/null", "device"), ("/proc/self/nothing", "open")] {
        let error = scene.add(request("bad", path(Path::new(given)))).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let empty = scene.folder("empty", &[]);
    assert!(scene.add(request("bad", path(&empty))).await.is_err());
}

#[tokio::test]
async fn bytes_files_and_depth_have_bounds_and_a_sparse_file_costs_its_size() {
    let scene = Scene::new();
    let sparse = scene.folder("sparse", &[("small", b"x")]);
    File::create(sparse.join("huge")).unwrap().set_len(1 << 42).unwrap();
    for given in [sparse.clone(), sparse.join("huge")] {
        let error = scene.add(request("bad", path(&given))).await.unwrap_err();
        assert!(matches!(error, DataSetError::TooLarge { .. }), "{error}");
    }
    // The bound would allow it, the disk does not: told before a byte is written.
    let large = AddRequest { bounds: Bounds { bytes: u64::MAX, files: 9 }, ..request("bad", path(&sparse)) };
    let error = scene.add(large).await.unwrap_err();
    assert!(matches!(error, DataSetError::NoRoom { .. }), "{error}");
    let many = scene.folder("many", &[]);
    for index in 0..101 {
        fs::write(many.join(index.to_string()), b"").unwrap();
    }
    let error = scene.add(request("bad", path(&many))).await.unwrap_err();
    assert!(error.to_string().contains("100 files"), "{error}");
    let deep = format!("{}/x", vec!["d"; 40].join("/"));
    let deep = scene.folder("deep", &[(&deep, b"x")]);
    let error = scene.add(request("bad", path(&deep))).await.unwrap_err();
    assert!(error.to_string().contains("deep"), "{error}");
    assert!(scene.left().is_empty());
}

#[tokio::test]
async fn a_name_is_taken_once_unless_told_otherwise() {
    let scene = Scene::new();
    let one = scene.folder("one", &[("f", b"1")]);
    let two = scene.folder("two", &[("f", b"2")]);
    let first = scene.add(request("x", path(&one))).await.unwrap().0;
    assert_eq!(scene.add(request("x", path(&one))).await.unwrap().1, Committed::Same);
    let error = scene.add(request("x", path(&two))).await.unwrap_err();
    assert!(matches!(error, DataSetError::Taken { there, .. } if there == first.digest), "{error}");
    assert_eq!(scene.store.find("x").unwrap().digest, first.digest);
    let replaced = AddRequest { replace: Replace::Yes, ..request("x", path(&two)) };
    let (second, committed) = scene.add(replaced).await.unwrap();
    assert_eq!(committed, Committed::Replaced);
    assert_ne!(second.digest, first.digest);
    // One record and one image: nothing of the first one is left.
    assert_eq!(scene.left().len(), 2);
    for name in ["", "A", "../x", "a/b", "-x"] {
        let error = scene.add(request(name, path(&one))).await.unwrap_err();
        assert!(error.is_usage(), "{name}: {error}");
        assert!(scene.store.find(name).is_err() && scene.store.remove(name).is_err());
    }
}

#[tokio::test]
async fn what_is_lent_stays_until_it_is_given_back() {
    let scene = Scene::new();
    let folder = scene.folder("in", &[("f", b"1")]);
    scene.add(request("x", path(&folder))).await.unwrap();
    let (one, two) = (scene.store.lend("x").unwrap(), scene.store.lend("x").unwrap());
    assert_eq!(scene.store.remove("x").unwrap(), Removed::Kept);
    assert!(matches!(scene.store.lend("x"), Err(DataSetError::Unknown { .. })));
    assert!(matches!(scene.store.remove("x"), Err(DataSetError::Unknown { .. })));
    drop(one);
    scene.store.tidy().unwrap();
    assert!(two.layer.image.is_file());
    drop(two);
    scene.store.tidy().unwrap();
    assert!(scene.left().is_empty());
}

#[tokio::test]
async fn a_damaged_image_is_noticed_and_adding_again_mends_it() {
    let scene = Scene::new();
    let folder = scene.folder("in", &[("f", &[1; 5000])]);
    scene.add(request("x", path(&folder))).await.unwrap();
    let image = scene.store.lend("x").unwrap().layer.image;
    let mut bytes = fs::read(&image).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&image, &bytes).unwrap();
    let error = scene.store.verify("x", &|_, _, _| {}).unwrap_err();
    assert!(matches!(error, DataSetError::Damaged { .. }), "{error}");
    fs::write(&image, &bytes[..last]).unwrap();
    assert!(matches!(scene.store.lend("x"), Err(DataSetError::Damaged { .. })));
    assert_eq!(scene.add(request("x", path(&folder))).await.unwrap().1, Committed::Same);
    scene.store.verify("x", &|_, _, _| {}).unwrap();
    // A record that is no record is left out of the list, and no image is removed for want of a name.
    let record = scene.path("data/datasets/x.json");
    fs::write(&record, b"{}").unwrap();
    assert!(scene.names().is_empty());
    let images = fs::read_dir(scene.path("data/datasets/images")).unwrap().count();
    Store::open(&scene.path("data")).unwrap();
    assert_eq!(fs::read_dir(scene.path("data/datasets/images")).unwrap().count(), images);
}

#[tokio::test]
async fn what_a_killed_addition_left_goes_at_the_next_start() {
    let scene = Scene::new();
    let folder = scene.folder("in", &[("f", b"1")]);
    scene.add(request("x", path(&folder))).await.unwrap();
    let before = scene.left();
    let data = scene.path("data/datasets");
    // Before its image was in place; after, and before its name was; while its name was written.
    scene.folder("data/datasets/staging/dead/content", &[("half", b"h")]);
    fs::write(data.join("images").join("0".repeat(64)), b"image").unwrap();
    fs::write(data.join("y.new-123"), b"{").unwrap();
    // One that is under way stays.
    let live = scene.store.begin().unwrap();
    fs::write(live.folder.join("f"), b"1").unwrap();
    let store = Store::open(&scene.path("data")).unwrap();
    assert!(live.folder.join("f").is_file());
    drop(live);
    assert_eq!(scene.left(), before);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(data.join("staging")).unwrap().count(), 0);
}
