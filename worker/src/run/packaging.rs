//! A run's packages, before its sandbox is made: what comes of the request, as the machine's events see it. How packages are
//! resolved and kept is `packages`'.

use proto::v1::LostCause;

use super::{
    driver::Driver,
    state::{Reason, RunEvent},
};
use crate::{
    packages::{PackageError, Provided, TARGET},
    sandbox::Layer,
};

impl Driver {
    /// Adds the layer to what the sandbox will see; the event where the run ends here instead.
    pub(super) async fn provide_packages(&mut self) -> Option<RunEvent> {
        let parts = &self.parts;
        if parts.spec.packages.is_empty() {
            return None;
        }
        let (tool, image, wanted) = (&parts.package_tool, &parts.record.image_id, &parts.spec.packages);
        match parts.packages.provide(tool.as_ref(), image, wanted, &parts.cancel).await {
            Ok(Provided { packages, layer, .. }) => {
                self.parts.record.packages = packages;
                if let Some(layer) = &layer {
                    let image = layer.image().to_owned();
                    self.parts.layers.push(Layer { target: TARGET.to_owned(), image });
                }
                self.parts.held_packages = layer;
                None
            }
            Err(PackageError::Stopped) => Some(RunEvent::StopWanted(Reason::Cancelled)),
            Err(error) if error.is_conflict() => {
                Some(RunEvent::StopWanted(Reason::DependencyConflict { detail: error.to_string() }))
            }
            Err(error) => {
                let cause = match &error {
                    PackageError::DiskFull(_) => LostCause::HostDisk,
                    PackageError::Engine(_) => LostCause::Engine,
                    // An index out of reach and a tool that is missing are the host's, as with a build.
                    _ => LostCause::Image,
                };
                tracing::warn!(run = %self.parts.record.run_id, %error, "the run is lost");
                Some(self.lose(cause, error.to_string()))
            }
        }
    }
}
