//! The builds that run in this process, one for each name, which any number of callers share. A build belongs to none
//! of them: a caller that goes away stops nothing, the worker's token does.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, watch};

use super::{
    Image,
    error::ImageError,
    progress::{ImageStep, Progress, Stage},
};

/// A clone is the same table.
#[derive(Debug, Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<String, Progress>>>);

impl Jobs {
    /// The job of this name: the running one, or the one that `build` begins.
    pub(super) fn join<F>(&self, name: &str, build: impl FnOnce(Progress) -> F) -> watch::Receiver<Stage>
    where
        F: Future<Output = Result<Image, ImageError>> + Send + 'static,
    {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get(name) {
            return job.subscribe();
        }
        let job = Progress::new();
        let stages = job.subscribe();
        jobs.insert(name.to_owned(), job.clone());
        let leave = Leave { jobs: self.clone(), name: name.to_owned() };
        let building = build(job.clone());
        kit::task::spawn("image build", async move {
            let result = building.await;
            if let Err(error) = &result {
                tracing::warn!(image = leave.name, %error, "an image could not be prepared");
            }
            // Out of the table first: who comes now finds the image, or tries again.
            drop(leave);
            job.end(result);
        });
        stages
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Takes a job out of the table however its task ends, so that a panic does not block the name for ever.
struct Leave {
    jobs: Jobs,
    name: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.jobs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// Passes the steps of a job on until it ends. A full or closed channel loses steps and stops nothing.
pub(super) async fn follow(
    name: &str,
    mut stages: watch::Receiver<Stage>,
    progress: mpsc::Sender<ImageStep>,
) -> Result<Image, ImageError> {
    loop {
        // Copied out at once: a borrow of a watch channel holds up the builder.
        let stage = stages.borrow_and_update().clone();
        match stage {
            Stage::Ended(result) => return result,
            Stage::Step(step) => {
                if progress.try_send(step).is_err() {
                    tracing::trace!(image = name, "a step was not taken");
                }
            }
        }
        if stages.changed().await.is_err() {
            // The builder is gone without a word: it panicked, which is in the log.
            return Err(ImageError::Stopped { name: name.to_owned() });
        }
    }
}
