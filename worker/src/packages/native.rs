//! The tool where no engine is: in a root that the worker made itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kit::task::CancellationToken;
use tokio::sync::mpsc;

use super::{PackageTool, SHARED_FOLDER, ToolEnd, ToolError, ToolJob};
use crate::image::native::{self, NativeImages, Tool, run_inside};

/// Runs the tool in the roots of the `native` backend.
#[derive(Debug)]
pub struct NativeTool(NativeImages);

impl NativeTool {
    /// Of these images.
    #[must_use]
    pub fn new(images: NativeImages) -> Self {
        Self(images)
    }
}

#[async_trait]
impl PackageTool for NativeTool {
    async fn run(&self, job: &ToolJob, stop: &CancellationToken) -> Result<ToolEnd, ToolError> {
        let root = self.0.root_of(&job.image_id).map_err(|e| ToolError::Engine(e.to_string()))?;
        let tool = Tool {
            command: job.command.clone(),
            folders: vec![(job.folder.clone(), SHARED_FOLDER.to_owned())],
            environment: BTreeMap::new(),
        };
        // Nobody looks at the lines as they come: what counts is in the folder.
        let (lines, _) = mpsc::channel(1);
        match run_inside(&root, &tool, lines, stop).await {
            Ok(ended) => Ok(ToolEnd { code: ended.code.map(i64::from), output: ended.output }),
            Err(native::ToolError::Stopped) => Err(ToolError::Stopped),
            Err(error) => Err(ToolError::Engine(error.to_string())),
        }
    }
}
