//! An image of the user's on the allow-list: runs may name it, what is on the list survives the worker, and what the
//! engine has lost is said. Over the real binaries and the real engine.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Home, Ran, home::binary, wait_for};
use serde_json::Value;

/// Removes the images of a test, also where it fails.
struct Engine {
    reference: String,
    made: Vec<String>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        for name in self.made.iter().chain([&self.reference]) {
            docker(&["rmi", name]);
        }
    }
}

fn docker(arguments: &[&str]) -> bool {
    let done = Command::new("docker").args(arguments).stdin(Stdio::null()).output().expect("docker starts");
    done.status.success()
}

fn worker(home: &Home, arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary("autoresearch-worker"));
    command.arg("image").args(arguments).arg("--data-dir").arg(home.data_dir().join("worker"));
    home.dress(&mut command);
    let output = command.stdin(Stdio::null()).output().expect("the worker starts");
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn build(reference: &str, recipe: &str) {
    let mut child = Command::new("docker")
        .args(["build", "--quiet", "--tag", reference, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker starts");
    child.stdin.take().expect("a pipe").write_all(recipe.as_bytes()).expect("docker reads");
    assert!(child.wait().expect("docker ends").success(), "{recipe}");
}

/// `lite` with a variable of its own, under a name that only this test has.
fn make(home: &Home) -> Engine {
    let lite = worker(home, &["build", "lite", "--backend", "docker"]).expect(0).stdout;
    let lite = lite.split_whitespace().nth(1).expect("an id").to_owned();
    let reference = format!("ar-test-{}:mine", kit::id::new_uuid().simple());
    build(&reference, &format!("FROM {lite}\nENV MINE={reference}\n"));
    Engine { reference, made: Vec::new() }
}

fn listed(home: &Home) -> Vec<Value> {
    let list = worker(home, &["list", "--backend", "docker", "--output", "json"]).expect(0).stdout;
    list.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

#[test]
fn an_added_image_is_used_by_runs_of_every_later_worker() {
    let home = Home::new();
    let mut engine = make(&home);
    let reference = engine.reference.clone();
    let exec = || {
        let program = home.file("program.py", "import os, autoresearch\nprint(os.environ['MINE'])\n");
        let program = program.to_str().expect("UTF-8");
        home.run(&["exec", program, "--image", "mine", "--memory", "256MiB", "--output", "json"])
    };
    let unknown = exec();
    assert_ne!(unknown.code, 0);
    assert!(unknown.stderr.contains("mine") && unknown.stderr.contains("lite"), "{unknown:?}");

    drop(worker(&home, &["add", "mine", &reference, "--description", "with a variable"]).expect(0));
    let images = listed(&home);
    let mine = images.iter().find(|image| image["name"] == "mine").expect("it is listed");
    assert_eq!((&mine["prepared"], &mine["backend"]), (&Value::from(true), &Value::from("docker")));
    assert_eq!(mine["description"], "with a variable");
    engine.made.push(mine["image_id"].as_str().expect("an id").to_owned());

    for _ in 0..2 {
        let told = exec().expect(0).json();
        assert_eq!(told["stdout"], format!("{reference}\n"), "{told:#}");
        // Between the two the worker goes, and another one starts.
        home.assert_nothing_left(Duration::from_secs(60));
    }

    // The engine loses it, with what it was made of.
    wait_for("the engine lets go", Duration::from_secs(60), || {
        for name in engine.made.iter().chain([&reference]) {
            docker(&["rmi", name]);
        }
        let there = docker(&["image", "inspect", &reference]);
        if there { Err("it is there".to_owned()) } else { Ok(()) }
    });
    let gone = exec();
    assert_ne!(gone.code, 0, "{gone:?}");
    let said = format!("{}{}", gone.stdout, gone.stderr);
    assert!(said.contains(&reference) && said.contains("image add mine"), "{gone:?}");

    drop(worker(&home, &["remove", "mine"]).expect(0));
    assert!(!listed(&home).iter().any(|image| image["name"] == "mine"));
    let again = worker(&home, &["remove", "mine"]).expect(1);
    assert!(again.stderr.contains("mine"), "{again:?}");
}

#[test]
fn an_image_with_a_door_is_not_added() {
    let home = Home::new();
    let engine = make(&home);
    let worse = format!("{}-volume", engine.reference);
    build(&worse, &format!("FROM {}\nVOLUME /data\n", engine.reference));
    let _volume = Engine { reference: worse.clone(), made: Vec::new() };
    let refused = worker(&home, &["add", "mine", &worse]).expect(1);
    assert!(refused.stderr.contains("/data") && refused.stderr.contains("VOLUME"), "{refused:?}");
    let own = worker(&home, &["add", "lite", &engine.reference]).expect(1);
    assert!(own.stderr.contains("`lite`"), "{own:?}");
}
