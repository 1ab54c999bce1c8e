//! The other side of the walls: what ordinary programs do goes on working inside them. Over the real binary, the real
//! engine and the real images; the hostile side is in `hostile.rs` and in the worker's own tests.

use std::process::Command;

use e2e::{Home, home::binary};

#[test]
fn threads_processes_sockets_files_and_terminals_work() {
    let home = Home::new();
    let told = home.exec(include_str!("../programs/ordinary.py"), &["--memory", "2GiB"]);
    let json = &told.1;
    assert_eq!(json["outcome"], "succeeded", "{json:#}");
    assert_eq!(
        json["stdout"],
        "threads\nsubprocess\nfork\nspawn\nforkserver\nqueues\nshared memory\nsockets\nfiles\nterminal\nnumbers\n"
    );
}

#[test]
fn a_training_with_data_loaders_and_shared_tensors_works() {
    let home = Home::new();
    // Building it takes gigabytes from a registry, which is not this test's subject.
    if !is_built(&home, "torch") {
        eprintln!(
            "NOT TRIED: the image `torch` is not built here: run `autoresearch-worker image build torch`"
        );
        return;
    }
    let program = home.file("training.py", include_str!("../programs/training.py"));
    let program = program.to_string_lossy();
    let ran =
        home.run(&["exec", &program, "--image", "torch", "--memory", "4GiB", "--output", "json"]).expect(0);
    let json = ran.json();
    assert_eq!(json["stdout"], "file_descriptor\nfile_system\ngloo\nfiles\n", "{json:#}");
}

fn is_built(home: &Home, image: &str) -> bool {
    let mut doctor = Command::new(binary("autoresearch-worker"));
    doctor.args(["doctor", "--output", "json"]);
    home.dress(&mut doctor);
    let out = doctor.output().expect("the worker's doctor");
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let name = format!("image {image}");
    let mut checks = told["checks"].as_array().expect("checks").iter();
    checks.any(|check| check["name"] == name.as_str() && check["state"] == "ok")
}
