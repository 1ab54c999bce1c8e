//! The images of a backend as runs ask for them: a store of images, put into the protocol's words. One adapter serves
//! every backend, because what differs is how an image is made and not how it is asked for.

use async_trait::async_trait;
use proto::v1::{Image, ImageStep, Package};
use tokio::sync::mpsc;

use crate::{
    image::{self, ImageInfo, ImageStore},
    run::seams::{ImageError, ImageSource},
};

/// The images of one backend.
#[derive(Debug)]
pub struct RealImages<T>(pub T);

fn wire(info: ImageInfo) -> Image {
    let package = |package: image::Package| Package { name: package.name, version: package.version };
    let described = Image {
        name: info.name,
        recipe_digest: info.recipe_digest.to_string(),
        packages: info.packages.into_iter().map(package).collect(),
        description: info.description,
        ..Image::default()
    };
    match info.image {
        Some(image) => {
            Image { prepared: true, image_id: image.id, size_bytes: image.size_bytes, ..described }
        }
        None => described,
    }
}

fn image_error(name: &str, error: image::ImageError) -> ImageError {
    let name = name.to_owned();
    // The cause holds the engine's own words.
    let detail = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    match error {
        image::ImageError::Unknown { name, known } => ImageError::Unknown { name, known },
        error if error.is_retryable() => ImageError::Engine { name, detail },
        _ => ImageError::Build { name, detail },
    }
}

#[async_trait]
impl<T: ImageStore> ImageSource for RealImages<T> {
    async fn list(&self) -> Vec<Image> {
        let mut all = self.0.list().await;
        for info in &mut all {
            if let Some(error) = info.problem.take() {
                tracing::warn!(%error, image = info.name, "this image cannot be used");
            }
        }
        all.into_iter().map(wire).collect()
    }

    async fn find(&self, name: &str) -> Result<Image, ImageError> {
        let mut info = self.0.find(name).await.map_err(|error| image_error(name, error))?;
        match info.problem.take() {
            Some(error) => Err(image_error(name, error)),
            None => Ok(wire(info)),
        }
    }

    async fn prepare(&self, name: &str, steps: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        let failed = |error| image_error(name, error);
        let (progress, mut seen) = mpsc::channel::<image::ImageStep>(16);
        let pass_on = async {
            while let Some(step) = seen.recv().await {
                let step = ImageStep {
                    name: step.name.to_owned(),
                    done: step.done,
                    total: step.total,
                    line: step.line,
                };
                // A caller that is gone stops nothing.
                steps.send(step).await.ok();
            }
        };
        let (image, ()) = tokio::join!(self.0.prepare(name, progress), pass_on);
        let image = image.map_err(failed)?;
        let info = self.0.find(name).await.map_err(failed)?;
        Ok(wire(ImageInfo { image: Some(image), problem: None, ..info }))
    }
}

/// Where a backend cannot be used: the names are known, and that is all.
#[derive(Debug)]
pub struct NoImages(pub String);

#[async_trait]
impl ImageSource for NoImages {
    async fn list(&self) -> Vec<Image> {
        image::RECIPES.iter().map(|recipe| wire(ImageInfo::of(recipe))).collect()
    }
    async fn find(&self, name: &str) -> Result<Image, ImageError> {
        image::recipe(name).map_err(|error| image_error(name, error))?;
        Err(ImageError::Engine { name: name.to_owned(), detail: self.0.clone() })
    }
    async fn prepare(&self, name: &str, _: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        self.find(name).await
    }
}
