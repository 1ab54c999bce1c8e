//! A tool that plays a script, for tests.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kit::task::CancellationToken;

use super::{PackageTool, ToolEnd, ToolError, ToolJob};

/// What the tool does when it is asked to resolve, and to fetch.
#[derive(Debug, Clone)]
pub enum Play {
    /// These, by name and version; each becomes a module.
    Packages(Vec<(&'static str, &'static str)>),
    /// Answers this text.
    Answer(&'static str),
    /// Runs until it is stopped.
    Hang,
    /// Writes so many bytes, then hangs.
    Fill(usize),
    /// Ends with this code and says why.
    Break(i64, &'static str),
    /// Does not run.
    Missing,
}

#[derive(Debug)]
pub struct FakeTool {
    pub play: Mutex<Play>,
    pub calls: Mutex<Vec<String>>,
    pub takes: Duration,
}

impl FakeTool {
    pub fn new(play: Play) -> Self {
        Self { play: Mutex::new(play), calls: Mutex::default(), takes: Duration::ZERO }
    }
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl PackageTool for FakeTool {
    async fn run(&self, job: &ToolJob, stop: &CancellationToken) -> Result<ToolEnd, ToolError> {
        let what = job.command[4].clone();
        self.calls.lock().unwrap().push(what.clone());
        tokio::time::sleep(self.takes).await;
        let play = self.play.lock().unwrap().clone();
        let answer = job.folder.join("answer.json");
        match play {
            Play::Packages(packages) => {
                let hash = "0".repeat(64);
                let list: Vec<_> = packages
                    .iter()
                    .map(|(name, version)| serde_json::json!({"name": name, "version": version, "sha256": hash}))
                    .collect();
                if what == "fetch" {
                    for (name, version) in packages {
                        let module = job.folder.join("site").join(name);
                        fs::create_dir_all(&module).unwrap();
                        fs::write(module.join("__init__.py"), format!("__version__ = {version:?}\n"))
                            .unwrap();
                    }
                    fs::create_dir_all(job.folder.join("cache/http")).unwrap();
                }
                fs::write(answer, serde_json::json!({"kind": "ok", "packages": list}).to_string()).unwrap();
            }
            Play::Answer(text) => fs::write(answer, text).unwrap(),
            Play::Hang => {
                stop.cancelled().await;
                return Err(ToolError::Stopped);
            }
            Play::Fill(bytes) => {
                fs::write(job.folder.join("big"), vec![1; bytes]).unwrap();
                stop.cancelled().await;
                return Err(ToolError::Stopped);
            }
            Play::Break(code, words) => return Ok(ToolEnd { code: Some(code), output: words.to_owned() }),
            Play::Missing => return Err(ToolError::Engine("no engine answers".to_owned())),
        }
        Ok(ToolEnd { code: Some(0), output: String::new() })
    }
}
