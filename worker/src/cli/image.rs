//! `autoresearch-worker image …`: the allow-list, and what is built of it.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use kit::{clock::SystemClock, size::Bytes, task::CancellationToken};
use tokio::sync::mpsc;

use super::{CommandResult, Common, Flags, Output, data_dir, print, stop_on_signals, worker_id_or_new};
use crate::{
    config::{BackendName, WorkerConfig},
    image::{Image as Built, ImageError, ImageInfo, ImageStep, ImageStore, Images, NativeImages, Pruned},
    sandbox::{
        SandboxError,
        docker::{DockerBackend, DockerOptions},
    },
};

/// Build, list and choose the images that runs may name
#[derive(Debug, clap::Subcommand)]
pub(super) enum Image {
    /// Build an image, or find the one that is there
    Build {
        /// Like `lite` or `torch`
        name: String,
        /// For this backend [default: docker where an engine answers, else native]
        #[arg(long, value_enum)]
        backend: Option<BackendName>,
    },
    /// List the images of the allow-list
    List {
        /// Of this backend alone
        #[arg(long, value_enum)]
        backend: Option<BackendName>,
        /// Print as; JSON has one object a line
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Put an image of the engine on the allow-list
    ///
    /// It must have /usr/bin/python3, no VOLUME, and no variable that begins with LD_ or NVIDIA_. Where the engine does
    /// not have it, its registry is asked. What it is now is used from then on, whatever its tag is put on later.
    Add {
        /// What runs name it by
        name: String,
        /// Like `python:3.12` or `house.example/lab@sha256:…`
        reference: String,
        /// One line for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Take an added image off the allow-list
    Remove {
        /// As it was added
        name: String,
    },
    /// Remove images of ours that an earlier version built or that are off the allow-list
    ///
    /// What a run uses stays.
    Prune {
        /// Of this backend alone
        #[arg(long, value_enum)]
        backend: Option<BackendName>,
    },
}

/// What the verbs need of this machine.
struct Scene {
    config: WorkerConfig,
    data_dir: PathBuf,
    cache: PathBuf,
    stop: CancellationToken,
}

impl Image {
    /// `stop` ends a build.
    pub(super) async fn run(&self, common: &Common, stop: CancellationToken) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let data_dir = data_dir(&config)?;
        stop_on_signals(stop.clone())?;
        let scene = Scene { config, data_dir, cache: kit::folder::cache()?, stop };
        match self {
            Self::Build { name, backend } => {
                let store = scene.store(*backend).await?;
                let (steps, seen) = mpsc::channel(16);
                ready(store.prepare(name, steps), seen).await
            }
            Self::List { backend, output } => list(&scene.stores(*backend).await?, *output).await,
            Self::Add { name, reference, description } => {
                let images = scene.docker().await?;
                let (steps, seen) = mpsc::channel(16);
                ready(images.add(name, reference, description, steps), seen).await
            }
            Self::Remove { name } => {
                scene.docker().await?.remove(name)?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Prune { backend } => prune(&scene, *backend).await,
        }
    }
}

type Stores = Vec<(BackendName, Arc<dyn ImageStore>)>;

impl Scene {
    async fn docker(&self) -> Result<Images, SandboxError> {
        let options = DockerOptions {
            worker_id: worker_id_or_new(&self.data_dir),
            sandboxes_dir: self.data_dir.join("sandboxes"),
            docker_host: self.config.docker.host.clone(),
            runtime: self.config.docker.runtime.clone(),
            clock: SystemClock::shared(),
        };
        let docker = DockerBackend::connect(options).await?.docker();
        Ok(Images::of_worker(docker, self.cache.clone(), &self.data_dir, self.stop.clone()))
    }

    fn native(&self) -> NativeImages {
        NativeImages::new(self.cache.clone(), self.stop.clone())
    }

    async fn store(&self, backend: Option<BackendName>) -> Result<Arc<dyn ImageStore>, SandboxError> {
        Ok(match backend {
            Some(BackendName::Docker) => Arc::new(self.docker().await?),
            Some(BackendName::Native) => Arc::new(self.native()),
            None => match self.docker().await {
                Ok(images) => Arc::new(images),
                Err(error) => {
                    tracing::info!(%error, "no engine: for the native backend");
                    Arc::new(self.native())
                }
            },
        })
    }

    /// Of one backend, or of all that are here.
    async fn stores(&self, backend: Option<BackendName>) -> Result<Stores, SandboxError> {
        let mut stores: Stores = Vec::with_capacity(2);
        if backend != Some(BackendName::Native) {
            match self.docker().await {
                Ok(images) => stores.push((BackendName::Docker, Arc::new(images))),
                Err(error) if backend.is_none() => tracing::warn!(%error, "no engine, so none of its images"),
                Err(error) => return Err(error),
            }
        }
        if backend != Some(BackendName::Docker) {
            stores.push((BackendName::Native, Arc::new(self.native())));
        }
        Ok(stores)
    }
}

/// Tells the steps of a build as they come, then the image.
async fn ready(
    image: impl Future<Output = Result<Built, ImageError>>,
    mut seen: mpsc::Receiver<ImageStep>,
) -> CommandResult {
    let told = async {
        let mut last = String::new();
        while let Some(step) = seen.recv().await {
            let now = format!("{} {}", step.name, step.line);
            if now != last {
                tracing::info!(done = step.done, total = step.total, "{now}");
                last = now;
            }
        }
    };
    let (image, ()) = tokio::join!(image, told);
    let image = image?;
    print(&format!("{} {}\n", image.name, image.id))?;
    Ok(ExitCode::SUCCESS)
}

async fn list(stores: &Stores, output: Output) -> CommandResult {
    let mut text = String::new();
    for (backend, store) in stores {
        for info in store.list().await {
            match output {
                Output::Text => text.push_str(&row(*backend, &info)),
                Output::Json => writeln!(text, "{}", object(*backend, &info)).unwrap_or_default(),
            }
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(backend: BackendName, info: &ImageInfo) -> String {
    let digest = info.recipe_digest.short();
    let (state, size) = match (&info.image, &info.problem) {
        (Some(image), _) => ("prepared", Bytes(image.size_bytes).to_string()),
        (None, Some(_)) => ("REFUSED", "-".to_owned()),
        (None, None) => ("not built", "-".to_owned()),
    };
    let why = info.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
    let backend = backend.word();
    format!("{:<12} {backend:<7} {digest} {state:<10} {size:>10}  {}{why}\n", info.name, info.description)
}

fn object(backend: BackendName, info: &ImageInfo) -> serde_json::Value {
    serde_json::json!({
        "name": info.name,
        "backend": backend.word(),
        "digest": info.recipe_digest.to_string(),
        "image_id": info.image.as_ref().map(|image| image.id.as_str()),
        "size_bytes": info.image.as_ref().map(|image| image.size_bytes),
        "prepared": info.image.is_some(),
        "problem": info.problem.as_ref().map(ToString::to_string),
        "description": info.description,
    })
}

async fn prune(scene: &Scene, backend: Option<BackendName>) -> CommandResult {
    let mut pruned: Vec<Pruned> = Vec::new();
    if backend != Some(BackendName::Native) {
        match scene.docker().await {
            Ok(images) => pruned.extend(images.prune().await?),
            Err(error) if backend.is_none() => tracing::warn!(%error, "no engine, so none of its images"),
            Err(error) => return Err(error.into()),
        }
    }
    if backend != Some(BackendName::Docker) {
        pruned.extend(scene.native().prune().await?);
    }
    let mut text = String::new();
    for each in &pruned {
        writeln!(text, "removed {} {}", each.name, Bytes(each.size_bytes)).unwrap_or_default();
    }
    if pruned.is_empty() {
        text.push_str("nothing to remove\n");
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
