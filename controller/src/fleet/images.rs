//! An image made ready on one worker, with its steps passed on.

use proto::v1;
use tokio::sync::mpsc;

use super::{
    FleetError, ImageChoice, ImageProgress, PreparedImage,
    line::{Fault, Line},
};

/// Builds or finds it over this connection.
pub(super) async fn prepare(
    line: &Line,
    image: ImageChoice<'_>,
    progress: Option<&mpsc::Sender<ImageProgress>>,
) -> Result<PreparedImage, FleetError> {
    const CALL: &str = "PrepareImage";
    let at = |fault: Fault| fault.at(&line.name());
    let request = v1::PrepareImageRequest { name: image.name.to_owned(), backend: image.backend.to_owned() };
    let mut client = line.client.clone();
    let mut stream = line.ask(CALL, client.prepare_image(request)).await.map_err(at)?;
    while let Some(message) = line.next(CALL, &mut stream).await.map_err(at)? {
        match message.message {
            Some(v1::prepare_image_response::Message::Step(step)) => {
                let v1::ImageStep { name, done, total, line } = step;
                if let Some(progress) = progress {
                    // Progress that nobody has read yet is not worth waiting for.
                    progress.try_send(ImageProgress { name, done, total, line }).ok();
                }
            }
            Some(v1::prepare_image_response::Message::Image(image)) => {
                let packages = image.packages.iter().map(|p| format!("{} {}", p.name, p.version));
                return Ok(PreparedImage { image_id: image.image_id, packages: packages.collect() });
            }
            None => break,
        }
    }
    let detail = format!("the stream about image {} ended early", image.name);
    Err(FleetError::Unreachable { worker: line.name(), detail })
}
