//! A connection to one worker that is opened anew when it breaks. Opening is a [`Dialer`]'s business, so that a
//! local worker can be started and a far one be reached by other means; a link only knows when to ask for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use proto::v1::{self, worker_service_client::WorkerServiceClient};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Channel;

use super::{FleetError, ImageChoice, ImageProgress, PreparedImage, WorkerView};

/// A client over one channel.
pub type Client = WorkerServiceClient<Channel>;

/// A stream without a message for so long is broken: the other side beats every 5 s.
pub(super) const SILENCE: Duration = Duration::from_secs(15);

/// Opens a channel to one worker.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// A new channel.
    ///
    /// # Errors
    /// [`FleetError::Unreachable`] with what was tried.
    async fn dial(&self) -> Result<Channel, FleetError>;

    /// Its name or address, for messages.
    fn name(&self) -> String;
}

/// A worker and the way to it.
pub struct Link {
    dialer: Box<dyn Dialer>,
    channel: tokio::sync::Mutex<Option<Channel>>,
    view: Mutex<WorkerView>,
    /// One permit for each slot: what this process believes to be free. The worker has the last word.
    pub(super) free: Semaphore,
    slots: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("worker", &self.dialer.name()).field("slots", &self.slots).finish()
    }
}

impl Link {
    /// Connects, asks the worker who it is, and checks the version.
    ///
    /// # Errors
    /// Unreachable, or another version.
    pub async fn open(dialer: Box<dyn Dialer>) -> Result<Arc<Self>, FleetError> {
        let channel = dialer.dial().await?;
        let info = describe(&dialer.name(), channel.clone()).await?;
        let slots = info.slots.iter().filter(|slot| slot.quarantined.is_empty()).count();
        Ok(Arc::new(Self {
            dialer,
            channel: tokio::sync::Mutex::new(Some(channel)),
            view: Mutex::new(view_of(info)),
            free: Semaphore::new(slots),
            slots,
        }))
    }

    /// What it said of itself when it was last connected.
    #[must_use]
    pub fn view(&self) -> WorkerView {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its places.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Its name or address.
    #[must_use]
    pub fn name(&self) -> String {
        self.dialer.name()
    }

    /// A client over the open channel, or over a new one.
    ///
    /// # Errors
    /// [`FleetError::Unreachable`], [`FleetError::Version`].
    pub async fn client(&self) -> Result<Client, FleetError> {
        let mut open = self.channel.lock().await;
        let channel = match &*open {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.dialer.dial().await?;
                let info = describe(&self.dialer.name(), channel.clone()).await?;
                *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view_of(info);
                *open = Some(channel.clone());
                channel
            }
        };
        Ok(client_over(channel))
    }

    /// The channel broke: the next call dials anew.
    pub async fn broken(&self) {
        *self.channel.lock().await = None;
    }

    /// Asks the worker anew who it is.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn refresh(&self) -> Result<WorkerView, FleetError> {
        let mut client = self.client().await?;
        let reply = client.get_worker(v1::GetWorkerRequest {}).await;
        let view = view_of(reply.map_err(|s| FleetError::call("GetWorker", &s))?.into_inner());
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(view)
    }

    pub(super) async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: &mpsc::Sender<ImageProgress>,
    ) -> Result<PreparedImage, FleetError> {
        let status = |s: tonic::Status| FleetError::call("PrepareImage", &s);
        let request =
            v1::PrepareImageRequest { name: image.name.to_owned(), backend: image.backend.to_owned() };
        let mut stream = self.client().await?.prepare_image(request).await.map_err(status)?.into_inner();
        loop {
            let silent = |_| FleetError::Unreachable {
                worker: self.name(),
                detail: format!("no word about image {} for {} s", image.name, SILENCE.as_secs()),
            };
            let message = tokio::time::timeout(SILENCE, stream.message()).await.map_err(silent)?;
            match message.map_err(status)?.and_then(|m| m.message) {
                Some(v1::prepare_image_response::Message::Step(step)) => {
                    let v1::ImageStep { name, done, total, line } = step;
                    // Progress that nobody has read yet is not worth waiting for.
                    progress.try_send(ImageProgress { name, done, total, line }).ok();
                }
                Some(v1::prepare_image_response::Message::Image(image)) => {
                    let packages = image.packages.iter().map(|p| format!("{} {}", p.name, p.version));
                    return Ok(PreparedImage { image_id: image.image_id, packages: packages.collect() });
                }
                None => {
                    return Err(FleetError::Unreachable {
                        worker: self.name(),
                        detail: format!("the stream about image {} ended early", image.name),
                    });
                }
            }
        }
    }
}

pub(super) fn client_over(channel: Channel) -> Client {
    WorkerServiceClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX)
}

fn view_of(info: v1::GetWorkerResponse) -> WorkerView {
    WorkerView { worker_id: info.worker_id.clone(), boot_id: info.boot_id.clone(), info }
}

async fn describe(worker: &str, channel: Channel) -> Result<v1::GetWorkerResponse, FleetError> {
    let reply = client_over(channel).get_worker(v1::GetWorkerRequest {}).await;
    let info = reply.map_err(|s| FleetError::call("GetWorker", &s))?.into_inner();
    let ours = proto::PROTOCOL_VERSION;
    if (info.protocol_min..=info.protocol_max).contains(&ours) {
        Ok(info)
    } else {
        let (min, max) = (info.protocol_min, info.protocol_max);
        Err(FleetError::Version { worker: worker.to_owned(), min, max, ours })
    }
}
