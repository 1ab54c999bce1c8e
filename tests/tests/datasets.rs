//! Data sets of a worker, over the real binaries, the real engine and the `lite` image: what `dataset add` takes in is what
//! a run reads, and a run can neither change it nor learn from it where it lies.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Home, home::binary, wait_for};

/// `autoresearch-worker` on the folder of this home's own worker.
fn worker(home: &Home, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary("autoresearch-worker"));
    command.args(arguments).arg("--data-dir").arg(home.data_dir().join("worker")).stdin(Stdio::null());
    home.dress(&mut command);
    let output = command.output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn add(home: &Home, name: &str, source: &Path) {
    let (code, _, said) = worker(home, &["dataset", "add", name, source.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "{said}");
}

fn folder(home: &Home) -> std::path::PathBuf {
    let folder = home.path().join("given");
    fs::create_dir_all(folder.join("sub")).expect("a folder");
    fs::write(folder.join("a.txt"), "hello\n").expect("a file");
    fs::write(folder.join("sub/b.bin"), vec![7; 3_000_000]).expect("a file");
    folder
}

const READER: &str = r#"
import errno, os
import autoresearch as ar
mine, table, digits = ar.dataset("mine"), ar.dataset("table"), ar.dataset("digits")
assert (mine, table) == ("/data/mine", "/data/table/t.csv"), (mine, table)
assert sorted(os.listdir(mine)) == ["a.txt", "sub"], os.listdir(mine)
assert open(mine + "/a.txt").read() == "hello\n" and open(table).read() == "1,2\n"
assert open(mine + "/sub/b.bin", "rb").read() == b"\7" * 3_000_000
assert len(open(digits).readlines()) == 1797
about = os.stat(mine + "/a.txt")
assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (0, 0, 0o444), about
tries = {
    "write": lambda: open(mine + "/a.txt", "r+"),
    "make": lambda: open(mine + "/new", "w"),
    "folder": lambda: os.mkdir(mine + "/new"),
    "remove": lambda: os.unlink(mine + "/a.txt"),
    "rename": lambda: os.rename(mine + "/a.txt", mine + "/b.txt"),
    "link": lambda: os.link(mine + "/a.txt", "/work/a.txt"),
    "mode": lambda: os.chmod(mine + "/a.txt", 0o777),
    "times": lambda: os.utime(mine + "/a.txt"),
    "beside": lambda: os.mkdir("/data/other"),
}
for name, attempt in tries.items():
    try:
        attempt()
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV), (name, error)
    else:
        raise SystemExit(name + " was allowed")
try:
    ar.dataset("other")
except KeyError as error:
    assert "digits, mine, table" in str(error), error
print(open("/proc/self/mountinfo").read())
"#;

#[test]
fn a_run_reads_its_data_sets_changes_nothing_and_sees_nothing_of_the_host() {
    let home = Home::new();
    let given = folder(&home);
    add(&home, "mine", &given);
    add(&home, "table", &home.file("t.csv", "1,2\n"));
    let flags = ["--dataset", "mine", "--dataset", "table", "--dataset", "digits"];
    let (code, told) = home.exec(READER, &flags);
    assert_eq!((code, told["outcome"].as_str()), (0, Some("succeeded")), "{told:#}");
    let mounts = told["stdout"].as_str().expect("text");
    let data: Vec<&str> = mounts.lines().filter(|line| line.contains(" /data/")).collect();
    assert_eq!(data.len(), 2, "{mounts}");
    for line in data {
        let fields: Vec<&str> = line.split(' ').collect();
        // The root of the mount, its options, the kind, and a device that says nothing.
        assert_eq!(fields[3], "/", "{line}");
        assert!(fields[5].split(',').any(|option| option == "ro"), "{line}");
        assert!(line.contains(" - ext4 /dev/loop"), "{line}");
    }
    let here = home.path().to_str().expect("UTF-8");
    assert!(!mounts.contains(here) && !mounts.contains("/datasets/"), "{mounts}");
    // What lies in the store is what it was.
    let (code, said, _) = worker(&home, &["dataset", "verify", "mine"]);
    assert!(code == 0 && said.contains("whole"), "{said}");

    // One that is not there is told with those that are, before anything runs.
    let program = home.file("program.py", "print(1)\n");
    let program = program.to_str().expect("UTF-8");
    let ran = home.run(&["exec", program, "--image", "lite", "--dataset", "nothing"]).expect(2);
    assert!(
        ["--dataset", "nothing", "mine", "table", "digits"].iter().all(|word| ran.stderr.contains(word)),
        "{ran:?}"
    );
    let ran = home.run(&["exec", program, "--dataset", "mine", "--dataset", "mine"]).expect(2);
    assert!(ran.stderr.contains("twice"), "{ran:?}");
    home.assert_nothing_left(Duration::from_secs(30));
}

const HOLDER: &str = r#"
import time, hashlib
import autoresearch as ar
def read():
    return hashlib.sha256(open(ar.dataset("mine") + "/sub/b.bin", "rb").read()).hexdigest()
first = read()
# So long that both runs and the removal meet also on a busy machine.
time.sleep(40)
# Its name is gone by now.
assert read() == first
assert open(ar.dataset("mine") + "/a.txt").read() == "hello\n"
"#;

#[test]
fn two_runs_share_one_and_removing_it_takes_it_from_neither() {
    let home = Home::new();
    add(&home, "mine", &folder(&home));
    let program = home.file("holder.py", HOLDER);
    let program = program.to_str().expect("UTF-8");
    let arguments = ["exec", program, "--image", "lite", "--dataset", "mine", "--output", "json"];
    // Builds the image, where it has to be built, before the clock of the two runs.
    drop(home.exec("print(1)", &[]));
    let runs = [home.spawn(&arguments), home.spawn(&arguments)];
    let data = home.data_dir().display().to_string();
    let mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().filter(|line| line.contains(&data) && line.contains("/layer-0 ")).count()
    };
    let count = mounted;
    wait_for("both runs have it mounted", Duration::from_secs(180), || match count() {
        2 => Ok(()),
        other => Err(format!("{other} mounts")),
    });
    let (code, said, _) = worker(&home, &["dataset", "remove", "mine"]);
    let still = mounted();
    assert!(code == 0 && said.contains("removed"), "{said}");
    assert_eq!(still, 2, "it was to be removed while both runs use it");
    let (_, listed, _) = worker(&home, &["dataset", "list", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["data_sets"], serde_json::json!([]));
    for run in runs {
        let ran = home.finish(run, Duration::from_secs(180)).expect(0);
        assert_eq!(ran.json()["outcome"], "succeeded", "{ran:?}");
    }
    home.assert_nothing_left(Duration::from_secs(30));
    // The next change of the store takes its files away.
    add(&home, "other", &home.file("t.csv", "1,2\n"));
    let images = fs::read_dir(home.data_dir().join("worker/datasets/images")).expect("the store");
    assert_eq!(images.count(), 1, "only the other one's image is left");
}
