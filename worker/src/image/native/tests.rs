//! Builds `lite` for real where it is not built yet (minutes, once for each user), and looks at what was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptions,
    },
};
use futures_util::StreamExt as _;

use super::*;
use crate::{image::Images, sandbox::loops::mounts_of};

fn as_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("left out: making a root file system needs root");
    }
    root
}

async fn built(name: &str) -> (NativeImages, Image) {
    let images = NativeImages::new(kit::folder::cache().unwrap(), CancellationToken::new());
    let (sender, mut steps) = mpsc::channel(64);
    let looking = kit::task::spawn("steps", async move {
        let mut last = ImageStep::default();
        while let Some(step) = steps.recv().await {
            last = step;
        }
        last
    });
    let image = images.prepare(name, sender).await.unwrap();
    println!("{image:?}, last step {:?}", looking.await);
    (images, image)
}

/// Path, kind and mode, and size of a file, of everything below the folders.
const LIST: &str = r"import os, stat, sys
for top in sys.argv[1:]:
    for place, folders, files in os.walk(top):
        for name in folders + files:
            found = os.lstat(os.path.join(place, name))
            size = found.st_size if stat.S_ISREG(found.st_mode) else 0
            print(os.path.join(place, name), oct(found.st_mode), size)
";
const COMPARED: [&str; 3] = ["/opt/autoresearch", "/usr/local/lib/python3.11", "/usr/local/bin"];

fn list_command(folder: &str) -> Vec<String> {
    ["/usr/bin/python3", "-c", LIST].into_iter().chain([folder]).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_whole_and_says_nothing_of_the_host() {
    if !as_root() {
        return;
    }
    let (images, image) = built("lite").await;
    assert_eq!(images.find("lite").unwrap().as_ref(), Some(&image));
    let listed = images.list();
    assert_eq!(listed.iter().find(|i| i.name == "lite").unwrap().image.as_ref(), Some(&image));
    let root = images.root_of(&image.id).unwrap();
    assert!(image.size_bytes > 100 << 20, "{image:?}");

    // One owner, no setuid bit, nothing but files, folders and links.
    let find = std::process::Command::new("find")
        .arg(&root)
        .args(["!", "-uid", "0", "-o", "!", "-gid", "0", "-o", "!", "-type", "l", "-perm", "/6000"])
        .args(["-o", "!", "-type", "f", "!", "-type", "d", "!", "-type", "l"])
        .output()
        .unwrap();
    assert!(find.status.success() && find.stdout.is_empty(), "{}", String::from_utf8_lossy(&find.stdout));
    for name in ["", "opt/autoresearch", "opt/autoresearch/lib", "usr/local/lib", "work"] {
        assert_eq!(std::fs::metadata(root.join(name)).unwrap().mode() & 0o7777, 0o755, "{name}");
    }
    for name in ["resolv.conf", "apt/sources.list"] {
        assert_eq!(std::fs::read(root.join("etc").join(name)).unwrap(), b"", "{name}");
    }
    for name in ["tmp", "dev", "proc", "run", "mnt", "root", "var/log", "work", "packages"] {
        let inside: Vec<_> = std::fs::read_dir(root.join(name)).unwrap().flatten().collect();
        assert!(inside.is_empty(), "{name}: {inside:?}");
    }
    // Neither the address of the settings nor the host's name or certificates.
    let grep = std::process::Command::new("grep")
        .args(["-rl", r"http://127\.0\.0\.1:[0-9]"])
        .args(["etc", "opt", "usr/local", "var"])
        .current_dir(&root)
        .output()
        .unwrap();
    assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
    assert_eq!(std::fs::read_to_string(root.join("etc/hostname")).unwrap(), "sandbox\n");
    let bundle = std::fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    let debians = std::fs::read_dir(root.join("usr/share/ca-certificates/mozilla")).unwrap().count();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), debians);
    assert!(!mounts_of("self").unwrap().iter().any(|m| m.target.starts_with(images.rootfs_dir())));
}

async fn listed_in_container(docker: &Docker, image: &str, folder: &str) -> String {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(list_command(folder)),
        network_disabled: Some(true),
        ..ContainerCreateBody::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    let mut waiting = docker.wait_container(&made, None::<WaitContainerOptions>);
    docker.start_container(&made, None).await.unwrap();
    waiting.next().await.unwrap().unwrap();
    let logs = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let mut text = String::new();
    let mut pieces = docker.logs(&made, Some(logs));
    while let Some(piece) = pieces.next().await {
        text.push_str(&String::from_utf8_lossy(&piece.unwrap().into_bytes()));
    }
    let remove = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(&made, Some(remove)).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn both_roads_give_the_same_files() {
    let Some(docker) = crate::image::tests::engine().await else { return };
    if !as_root() {
        return;
    }
    let (native, image) = built("lite").await;
    let engines = Images::new(docker.clone(), kit::folder::cache().unwrap(), CancellationToken::new());
    let engines = engines.prepare("lite", mpsc::channel(1).0).await.unwrap();
    let root = native.root_of(&image.id).unwrap();
    for folder in COMPARED {
        let (sender, mut lines) = mpsc::channel(100_000);
        let tool = Tool { command: list_command(folder), ..Tool::default() };
        let ended = run_inside(&root, &tool, sender, &CancellationToken::new()).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        let mut ours = BTreeSet::new();
        while let Some(line) = lines.recv().await {
            ours.insert(line);
        }
        let theirs = listed_in_container(&docker, &engines.id, folder).await;
        let theirs: BTreeSet<String> = theirs.lines().map(|line| line.trim().to_owned()).collect();
        let difference: Vec<_> = ours.symmetric_difference(&theirs).take(20).collect();
        assert!(difference.is_empty(), "{folder}: {difference:#?}");
        assert!(ours.len() > 5 || folder != "/opt/autoresearch", "{ours:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_has_the_network_and_its_folders_and_nothing_else() {
    if !as_root() {
        return;
    }
    let (images, image) = built("lite").await;
    let root = images.root_of(&image.id).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "import os, socket
assert os.getuid() == os.getgid() == {TOOL_UID} and os.getgroups() == []
status = open('/proc/self/status').read()
assert 'CapEff:\\t0000000000000000' in status and 'CapBnd:\\t0000000000000000' in status, status
assert 'NoNewPrivs:\\t1' in status
socket.create_connection(('127.0.0.1', {port}), timeout=20)
open('/mnt/out/made', 'w').write(os.environ['GIVEN'])
open('/tmp/x', 'w')
for place in ('/opt/autoresearch/x', '/mnt/x', '/etc/resolv.conf', '/work/x'):
    try:
        open(place, 'a')
    except OSError as error:
        print('refused', place)
    else:
        print('WRITTEN', place)
print('processes', len([p for p in os.listdir('/proc') if p.isdigit()]))
try:
    os.listdir('/proc/1/root/')
except PermissionError:
    print('PID 1 is closed')
"
    );
    let tool = Tool {
        command: vec!["python3".to_owned(), "-c".to_owned(), script],
        folders: vec![(out.clone(), "/mnt/out".to_owned())],
        environment: BTreeMap::from([("GIVEN".to_owned(), "given".to_owned())]),
    };
    let stop = CancellationToken::new();
    let ended = run_inside(&root, &tool, mpsc::channel(1).0, &stop).await.unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert_eq!(ended.output.matches("refused").count(), 4, "{}", ended.output);
    assert!(ended.output.contains("PID 1 is closed"), "{}", ended.output);
    assert_eq!(std::fs::read_to_string(out.join("made")).unwrap(), "given");
    assert!(!mounts_of("self").unwrap().iter().any(|m| m.target.starts_with(folder.path())));

    let command = ["sh", "-c", "echo why >&2; exit 3"].map(str::to_owned).to_vec();
    let failing = Tool { command, ..Tool::default() };
    let ended = run_inside(&root, &failing, mpsc::channel(1).0, &stop).await.unwrap();
    assert_eq!(ended, ToolEnd { code: Some(3), output: "why".to_owned() });

    let wrong = Tool { folders: vec![(out, "/etc".to_owned())], ..tool };
    let error = run_inside(&root, &wrong, mpsc::channel(1).0, &stop).await.unwrap_err();
    assert!(matches!(&error, ToolError::Place(place) if place == "/etc"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_tool_is_gone_with_all_it_started() {
    if !as_root() {
        return;
    }
    let (images, image) = built("lite").await;
    let root = images.root_of(&image.id).unwrap();
    let mark = format!("{}.5", 100_000 + std::process::id());
    let script = format!("setsid sleep {mark} & echo begun; trap '' TERM INT HUP; sleep {mark}");
    let tool = Tool { command: ["sh", "-c", &script].map(str::to_owned).to_vec(), ..Tool::default() };
    let stop = CancellationToken::new();
    let (sender, mut lines) = mpsc::channel(8);
    let (of_root, token) = (root.clone(), stop.clone());
    let running = kit::task::spawn("tool", async move { run_inside(&of_root, &tool, sender, &token).await });
    assert_eq!(lines.recv().await.as_deref(), Some("begun"));
    while processes(&mark).len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    assert!(matches!(running.await.unwrap().unwrap(), Err(ToolError::Stopped)));
    for _ in 0..200 {
        if processes(&mark).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left: {:?}", processes(&mark));
}

fn processes(mark: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with("sleep") && line.contains(mark)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_stopped_leaves_nothing_and_a_lock_is_waited_for() {
    if !as_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let images = NativeImages::new(folder.path().to_owned(), stop.clone());
    let left = images.rootfs_dir().join("building-lite-1/root/proc");
    std::fs::create_dir_all(&left).unwrap();
    let (sender, mut steps) = mpsc::channel(1024);
    let of = images.clone();
    let building = kit::task::spawn("build", async move { of.prepare("lite", sender).await });
    // Debootstrap's own lines: it is in the middle of it.
    loop {
        let step = steps.recv().await.unwrap();
        if step.name == "base" && step.done > 0 {
            break;
        }
    }
    assert!(!left.exists(), "what an earlier build left is gone");
    let other = NativeImages::new(folder.path().to_owned(), stop.clone());
    let (sender, mut waits) = mpsc::channel(64);
    let waiting = kit::task::spawn("second", async move { other.prepare("lite", sender).await });
    loop {
        if waits.recv().await.unwrap().line.contains("process") {
            break;
        }
    }
    stop.cancel();
    for ended in [building.await, waiting.await] {
        assert!(matches!(ended.unwrap().unwrap(), Err(ImageError::Stopped { .. })));
    }
    let names: Vec<_> =
        std::fs::read_dir(images.rootfs_dir()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["lite.lock"]);
}

#[test]
fn a_root_without_a_readable_record_is_not_one() {
    let folder = tempfile::tempdir().unwrap();
    let lite = Recipe::named("lite").unwrap();
    let digest = root_digest(lite);
    assert_ne!(digest, root_digest(Recipe::named("torch").unwrap()));
    assert_ne!(digest, lite.digest());
    std::fs::create_dir(folder.path().join(digest.hex())).unwrap();
    assert_eq!(find(folder.path(), lite), None);
    let write = |text: &str| std::fs::write(record_path(folder.path(), &digest), text).unwrap();
    for wrong in [
        "",
        "{",
        r#"{"schema":2,"name":"lite","size_bytes":1}"#,
        r#"{"schema":1,"name":"lite","size_bytes":1,"x":1}"#,
    ] {
        write(wrong);
        assert_eq!(find(folder.path(), lite), None, "{wrong}");
    }
    write(r#"{"schema":1,"name":"lite","size_bytes":7}"#);
    let found = find(folder.path(), lite).unwrap();
    assert_eq!((found.size_bytes, found.id.as_str()), (7, digest.to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "downloads 2.5 GB and takes 5 GB of disk where it is not built yet"]
async fn torch_is_built() {
    if as_root() {
        built("torch").await;
    }
}
