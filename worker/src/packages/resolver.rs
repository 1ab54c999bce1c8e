//! One request from nothing to a layer: the tool resolves, the tool fetches, the tree becomes a file system. Size and time
//! are watched from here, because neither an engine nor a root of ours bounds a folder of the host.

use std::{fs, path::Path, pin::pin, time::Duration};

use kit::{digest::Digest, task::CancellationToken};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    HeldLayer, Package, PackageError, PackageRules, PackageTool, SHARED_FOLDER, ToolError, ToolJob,
    cache::Cache,
    layer,
    lock::{self, Lock, Locked},
};

/// The program that speaks to pip. It is no part of an image: a change to it makes no image anew.
const TOOL: &str = include_str!("tool.py");
/// Between two looks at a folder's size, at least.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// The tool's answer names at most a few hundred packages.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The resolver's words: `tool.py` keeps within it.
const WORDS_CHARS_MAX: usize = 6000;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Answer {
    Ok { packages: Vec<Locked> },
    Conflict { words: String },
    Unreachable { words: String },
    NoSpace { words: String },
}

/// Where one request is worked on.
struct Job<'a> {
    rules: PackageRules,
    tool: &'a dyn PackageTool,
    image_id: &'a str,
    folder: &'a Path,
    deadline: Instant,
    stop: &'a CancellationToken,
}

/// Resolves, fetches and keeps.
pub(super) async fn make(
    cache: &Cache,
    rules: PackageRules,
    tool: &dyn PackageTool,
    image_id: &str,
    requirements: &[String],
    stop: &CancellationToken,
) -> Result<(Vec<Package>, Option<HeldLayer>), PackageError> {
    let place = cache.workplace().map_err(|e| PackageError::of_io(&e, "make a folder"))?;
    // The engine sees this one only; the layer lies beside it, where the tool cannot reach.
    let folder = place.path().join("shared");
    fs::create_dir(&folder).map_err(|e| PackageError::of_io(&e, "make a folder"))?;
    let deadline = Instant::now() + rules.time;
    let job = Job { rules, tool, image_id, folder: &folder, deadline, stop };
    let made = async {
        let lock = job.resolve(requirements).await?;
        let request = lock::request(image_id, requirements);
        let digest = lock.digest(image_id);
        if !lock.0.is_empty() && cache.hold(&digest).is_none() {
            job.fetch(&lock).await?;
            let image = place.path().join("layer.ext4");
            let site = folder.join("site");
            stop.run_until_cancelled(layer::make(&site, &image)).await.ok_or(PackageError::Stopped)??;
            cache.keep(&digest, &image)?;
        }
        cache.remember(&request, image_id, requirements, &lock)?;
        held(cache, &lock, &digest)
    }
    .await;
    // A tree of many files: not on the event loop.
    kit::task::blocking("remove packages' workplace", move || {
        if let Err(error) = place.close() {
            tracing::warn!(%error, "a workplace of packages stays until the next start");
        }
    })
    .await;
    let made = made?;
    // Held already, so that it is not the one to go.
    if let Err(error) = cache.evict() {
        tracing::warn!(%error, "packages that are not used cannot be removed");
    }
    Ok(made)
}

fn held(
    cache: &Cache,
    lock: &Lock,
    digest: &Digest,
) -> Result<(Vec<Package>, Option<HeldLayer>), PackageError> {
    if lock.0.is_empty() {
        return Ok((Vec::new(), None));
    }
    let layer = cache.hold(digest);
    layer
        .map(|layer| (lock.packages(), Some(layer)))
        .ok_or_else(|| PackageError::Host("the layer was removed while it was made".to_owned()))
}

impl Job<'_> {
    async fn resolve(&self, requirements: &[String]) -> Result<Lock, PackageError> {
        let request = serde_json::json!({ "requirements": requirements }).to_string();
        self.write("request.json", &request)?;
        let packages = self.run("resolve").await?;
        Lock::check(packages).map_err(PackageError::Refused)
    }

    async fn fetch(&self, lock: &Lock) -> Result<(), PackageError> {
        self.write("lock.txt", &lock.text())?;
        self.run("fetch").await?;
        // Downloads make no part of the layer, and room is wanted for it.
        for name in ["cache", "tmp"] {
            match fs::remove_dir_all(self.folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(PackageError::of_io(&error, "remove the downloads"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), PackageError> {
        fs::write(self.folder.join(name), text).map_err(|e| PackageError::of_io(&e, "write the request"))
    }

    async fn run(&self, what: &str) -> Result<Vec<Locked>, PackageError> {
        let answer = self.folder.join("answer.json");
        match fs::remove_file(&answer) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PackageError::of_io(&error, "remove the last answer"));
            }
            _ => {}
        }
        let command = ["/usr/bin/python3", "-I", "-c", TOOL, what, SHARED_FOLDER].map(str::to_owned);
        let job = ToolJob {
            image_id: self.image_id.to_owned(),
            command: command.to_vec(),
            folder: self.folder.to_owned(),
        };
        let end = self.watched(&job).await?;
        if end.code != Some(0) {
            let words = kit::text::one_line(&end.output, 600);
            return Err(if words.contains("No space left on device") {
                PackageError::DiskFull(words)
            } else {
                let code = end.code.map_or("a signal".to_owned(), |code| code.to_string());
                PackageError::Engine(format!("the resolver ended with {code}: {words}"))
            });
        }
        let words = |text: &str| {
            let kept: String = kit::text::printable(text).chars().take(WORDS_CHARS_MAX).collect();
            kept.trim().to_owned()
        };
        match read(&answer)? {
            Answer::Ok { packages } => Ok(packages),
            Answer::Conflict { words: text } => Err(PackageError::Refused(words(&text))),
            Answer::Unreachable { words: text } => Err(PackageError::Unreachable(words(&text))),
            Answer::NoSpace { words: text } => Err(PackageError::DiskFull(words(&text))),
        }
    }

    /// Runs the tool until it ends, or one of the bounds is passed, or it is no longer wanted.
    async fn watched(&self, job: &ToolJob) -> Result<super::ToolEnd, PackageError> {
        let child = self.stop.child_token();
        let mut running = pin!(self.tool.run(job, &child));
        let mut passed = None;
        let mut next = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                end = &mut running => {
                    if let Some(bound) = passed {
                        return Err(bound);
                    }
                    if self.stop.is_cancelled() {
                        return Err(PackageError::Stopped);
                    }
                    if self.size().await > self.rules.size {
                        return Err(PackageError::TooLarge(self.rules.size));
                    }
                    return end.map_err(|error| match error {
                        ToolError::Stopped => PackageError::Stopped,
                        ToolError::Engine(words) => PackageError::Engine(words),
                    });
                }
                () = tokio::time::sleep_until(next), if passed.is_none() => {
                    let begun = Instant::now();
                    if self.size().await > self.rules.size {
                        passed = Some(PackageError::TooLarge(self.rules.size));
                    } else if begun >= self.deadline {
                        passed = Some(PackageError::TooSlow(self.rules.time));
                    }
                    if passed.is_some() {
                        child.cancel();
                    }
                    // A large tree takes a while to be measured: at most a tenth of the time goes into it.
                    next = Instant::now() + LOOK_EVERY.max(begun.elapsed() * 10);
                }
            }
        }
    }

    async fn size(&self) -> u64 {
        let folder = self.folder.to_owned();
        kit::task::blocking("measure packages", move || layer::measure(&folder).bytes).await.unwrap_or(0)
    }
}

/// The file is the tool's, and what stands in it came from an index.
fn read(path: &Path) -> Result<Answer, PackageError> {
    use std::{io::Read as _, os::unix::fs::OpenOptionsExt as _};
    let wrong = |detail: String| PackageError::Engine(format!("the resolver gave no answer: {detail}"));
    let mut options = fs::OpenOptions::new();
    // No link and no pipe in its place.
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| wrong(e.to_string()))?;
    let mut bytes = Vec::new();
    file.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > ANSWER_BYTES_MAX {
        return Err(wrong(format!("more than {ANSWER_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
}
