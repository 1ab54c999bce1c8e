//! `autoresearch-worker image build` and `image list`.

use std::{fmt::Write as _, process::ExitCode, sync::Arc};

use kit::task::CancellationToken;
use tokio::sync::mpsc;

use super::{CommandResult, Common, Flags, Output, data_dir, print, stop_on_signals, worker_id_or_new};
use crate::{
    image::NativeImages,
    run::seams::ImageSource,
    serve::{images::RealImages, rooms},
};

/// Build or list the images that runs may name
#[derive(Debug, clap::Subcommand)]
pub(super) enum Image {
    /// Build an image, or find the one that is there
    Build {
        /// Like `lite` or `torch`
        name: String,
        /// For this backend [default: the one that runs get where none is named]
        #[arg(long, value_enum)]
        backend: Option<BackendName>,
    },
    /// List the images of the allow-list
    List {
        /// Print as
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// A way to make sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BackendName {
    /// The container engine
    Docker,
    /// Root file systems that the worker makes itself
    Native,
}

impl Image {
    /// `stop` ends a build.
    pub(super) async fn run(&self, common: &Common, stop: CancellationToken) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        stop_on_signals(stop.clone())?;
        let images = |backend: Option<BackendName>| {
            let stop = stop.clone();
            let (config, folder) = (&config, &folder);
            async move {
                if backend == Some(BackendName::Native) {
                    let cache = kit::folder::cache()?;
                    let images = RealImages(NativeImages::new(cache, stop));
                    return Ok(Arc::new(images) as Arc<dyn ImageSource>);
                }
                let rooms = rooms::connect(config, folder, &worker_id_or_new(folder), stop).await;
                Ok::<_, kit::folder::FolderError>(rooms.default_images())
            }
        };
        match self {
            Self::Build { name, backend } => build(images(*backend).await?, name).await,
            Self::List { output } => list(images(None).await?.list().await, *output),
        }
    }
}

async fn build(images: Arc<dyn ImageSource>, name: &str) -> CommandResult {
    let (steps, mut seen) = mpsc::channel::<proto::v1::ImageStep>(16);
    let told = async {
        let mut last = String::new();
        while let Some(step) = seen.recv().await {
            let line = kit::text::one_line(&step.line, 200);
            let now = format!("{} {line}", step.name);
            if now != last {
                tracing::info!(done = step.done, total = step.total, "{now}");
                last = now;
            }
        }
    };
    let (image, ()) = tokio::join!(images.prepare(name, steps), told);
    let image = image?;
    print(&format!("{} {}\n", image.name, image.image_id))?;
    Ok(ExitCode::SUCCESS)
}

fn list(images: Vec<proto::v1::Image>, output: Output) -> CommandResult {
    let text = match output {
        Output::Text => images.iter().fold(String::new(), |mut text, image| {
            let state = if image.prepared { "prepared" } else { "not built" };
            let size = if image.size_bytes > 0 {
                kit::size::Bytes(image.size_bytes).to_string()
            } else {
                "-".to_owned()
            };
            writeln!(text, "{:<10} {:<10} {:>10}  {}", image.name, state, size, image.description)
                .unwrap_or_default();
            text
        }),
        Output::Json => {
            let all: Vec<serde_json::Value> = images
                .iter()
                .map(|image| {
                    serde_json::json!({
                        "name": image.name,
                        "recipe_digest": image.recipe_digest,
                        "prepared": image.prepared,
                        "image_id": image.image_id,
                        "size_bytes": image.size_bytes,
                        "description": image.description,
                    })
                })
                .collect();
            format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "images": all }))?)
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
