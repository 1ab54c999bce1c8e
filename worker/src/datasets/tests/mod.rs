//! The room against real files, a real file system and a real, misbehaving server.

mod adding;
mod fetching;
mod lending;
mod server;

use std::path::Path;

use kit::retry::Policy;

use super::{
    Bounds, Committed, DataSetError, FetchRules, Manifest, Replace, Store,
    add::{AddRequest, Source, add},
};

/// A store in a folder of its own.
struct Scene {
    root: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("data")).unwrap();
        Self { root, store }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    /// A folder with these files.
    fn folder(&self, name: &str, files: &[(&str, &[u8])]) -> std::path::PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    async fn add(&self, request: AddRequest) -> Result<(Manifest, Committed), DataSetError> {
        add(&self.store, request, &|_, _, _| {}).await
    }

    /// Everything below the store's folder, without the lock.
    fn left(&self) -> Vec<String> {
        fn walk(folder: &Path, all: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), all);
                } else if entry.file_name() != "lock" {
                    all.push(entry.path().display().to_string());
                }
            }
        }
        let mut all = Vec::new();
        walk(&self.path("data/datasets"), &mut all);
        all
    }

    fn names(&self) -> Vec<String> {
        self.store.list().unwrap().into_iter().map(|manifest| manifest.name).collect()
    }
}

fn request(name: &str, source: Source) -> AddRequest {
    AddRequest {
        name: name.into(),
        source,
        sha256: None,
        description: None,
        replace: Replace::No,
        bounds: Bounds { bytes: 8 << 20, files: 100 },
        rules: FetchRules {
            connect: std::time::Duration::from_secs(20),
            silence: std::time::Duration::from_secs(20),
            again: Policy {
                attempts: 3,
                base: std::time::Duration::from_millis(1),
                longest: std::time::Duration::from_millis(2),
            },
        },
        wall_ns: 1,
    }
}

/// The image's own word, without mounting it.
fn debugfs(image: &Path, command: &str) -> String {
    let output = std::process::Command::new("debugfs")
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["-R", command])
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
