//! Removes root file systems that an earlier version made. One that a process of this machine has mounted is in use,
//! whichever worker's process that is.

use std::{ffi::OsStr, fs, io, path::Path};

use kit::digest::Digest;

use super::{NativeImages, RECIPES, Record, record_path, root_digest, tree};
use crate::{
    image::{
        Pruned,
        error::ImageError,
        rootless::{self, Answer, Order},
    },
    sandbox::loops::mounts_of,
};

impl NativeImages {
    /// Removes the roots that no recipe stands for any more and that nothing uses.
    ///
    /// # Errors
    /// Where the folder or the processes of this machine cannot be read.
    pub async fn prune(&self) -> Result<Vec<Pruned>, ImageError> {
        let folder = self.shared.folder.clone();
        if !nix::unistd::geteuid().is_root() && folder.exists() {
            return self.prune_without_root().await;
        }
        let failed = |e| ImageError::io("clear", &self.shared.folder, e);
        let current: Vec<Digest> = RECIPES.iter().map(root_digest).collect();
        match kit::task::blocking("prune", move || prune(&folder, &current)).await {
            Some(done) => done.map_err(failed),
            None => Err(failed(io::Error::other("it broke off"))),
        }
    }

    async fn prune_without_root(&self) -> Result<Vec<Pruned>, ImageError> {
        let folder = &self.shared.folder;
        let cache = folder.parent().unwrap_or(folder).to_owned();
        match rootless::order(&Order::Prune { cache }, |_| {}, &self.shared.stop).await {
            Ok(Answer::Pruned(pruned)) => {
                Ok(pruned.into_iter().map(|(name, size_bytes)| Pruned { name, size_bytes }).collect())
            }
            Ok(_) => Err(ImageError::io("clear", folder, io::Error::other("it gave another answer"))),
            Err(error) => Err(ImageError::io("clear", folder, io::Error::other(error))),
        }
    }
}

fn prune(folder: &Path, current: &[Digest]) -> io::Result<Vec<Pruned>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut pruned = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>() else { continue };
        if current.contains(&digest) {
            continue;
        }
        if in_use(name)? {
            tracing::info!(%digest, "kept: it is in use");
            continue;
        }
        let record = record_path(folder, &digest);
        let size_bytes = fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            .map_or(0, |record| record.size_bytes);
        // Without its record it is not found, so nobody begins to use what is half gone.
        match fs::remove_file(&record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => tree::remove(&path)?,
        }
        pruned.push(Pruned { name: digest.to_string(), size_bytes });
    }
    Ok(pruned)
}

/// Whether a process has this folder, or one below it, mounted or as its root.
fn in_use(name: &OsStr) -> io::Result<bool> {
    let named = |path: &Path| path.components().any(|part| part.as_os_str() == name);
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name();
        let process = process.to_string_lossy();
        if !process.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process that ended meanwhile uses nothing.
        let mounts = mounts_of(&process).unwrap_or_default();
        if mounts.iter().any(|mount| named(&mount.root) || named(&mount.target)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use kit::task::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn an_old_root_goes_and_one_in_use_or_current_stays() {
        if !nix::unistd::geteuid().is_root() {
            println!("left out: needs root");
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let images = NativeImages::new(cache.path().to_owned(), CancellationToken::new());
        assert_eq!(images.prune().await.unwrap(), []);
        let folder = images.rootfs_dir().to_owned();
        let (old, used) = (Digest::of(b"old"), Digest::of(cache.path().as_os_str().as_encoded_bytes()));
        let current = root_digest(&RECIPES[0]);
        for digest in [old, used, current] {
            fs::create_dir_all(folder.join(digest.hex()).join("usr")).unwrap();
            fs::write(record_path(&folder, &digest), r#"{"schema":1,"name":"x","size_bytes":9}"#).unwrap();
        }
        fs::create_dir(folder.join("building-lite-1")).unwrap();
        let script = r#"mount --bind "$1" "$1"; echo ready; exec sleep 600"#;
        let mut user = Command::new("unshare")
            .args(["--mount", "--", "sh", "-c", script, "sh"])
            .arg(folder.join(used.hex()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        io::Read::read_exact(&mut user.stdout.take().unwrap(), &mut ready).unwrap();
        let pruned = images.prune().await.unwrap();
        assert_eq!(pruned, [Pruned { name: old.to_string(), size_bytes: 9 }]);
        user.kill().unwrap();
        user.wait().unwrap();
        assert_eq!(images.prune().await.unwrap()[0].name, used.to_string());
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|e| e.file_name()).collect();
        left.sort();
        let record = record_path(&folder, &current);
        let mut expected =
            [current.hex().into(), record.file_name().unwrap().to_owned(), "building-lite-1".into()];
        expected.sort();
        assert_eq!(left, expected);
    }
}
