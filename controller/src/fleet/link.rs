//! The way to one worker, which outlives every connection. A task of its own dials, one attempt at a time however many
//! runs wait, with growing pauses, and at once after this machine slept. Each connection has a number, so that word of a
//! failure that comes late does not break the next one. What the worker says of itself is asked after each connection.
//! Which worker a run goes to is decided in `place`, not here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{awake::Awake, clock::SystemClock, task::CancellationToken};
use proto::v1;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;
use tonic::transport::Channel;

use crate::telemetry::METRICS;

use super::{
    Dialer, FleetError, WorkerView,
    dialer::{Client, client_over},
    line::{Fault, Line},
    orphans::Orphans,
    pace::Pace,
};

/// A worker and the way to it. Dropping it ends its connection.
pub struct Link {
    pub(super) core: Arc<Core>,
    _alive: DropGuard,
}

pub(super) struct Core {
    dialer: Box<dyn Dialer>,
    pub(super) pace: Pace,
    pub(super) awake: Arc<Awake>,
    life: watch::Sender<Life>,
    /// What it said last, also while it is away.
    view: Mutex<Option<Arc<WorkerView>>>,
    /// Runs that were given up while it was away.
    pub(super) orphans: Orphans,
}

/// Where the connection stands.
#[derive(Clone, Default)]
struct Life {
    /// The number of the connection that is open, or was last.
    generation: u64,
    open: Option<Channel>,
    /// Attempts that failed since it was last open.
    attempts: u32,
    /// Awake time at which it was opened or broke.
    since: Duration,
    /// Why the last attempt failed.
    error: Option<Arc<FleetError>>,
    /// Goes up when something was learnt of the worker without a new connection.
    news: u64,
    /// What the user wants of it.
    wish: Wish,
}

/// What the user wants of a worker, whatever the worker says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wish {
    /// To be used.
    #[default]
    Use,
    /// Nothing new; what runs there goes on.
    NothingNew,
    /// No connection any more, for this reason.
    Cut(String),
}

/// How the connection stands, for display and for placement.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// Not there: being dialled.
    Connecting {
        /// Since so long, awake time.
        since: Duration,
        /// Attempts that failed.
        attempts: u32,
        /// Why the last one failed.
        error: Option<String>,
    },
    /// Connected.
    Open,
    /// Connected, and takes nothing new.
    Draining,
    /// Not used, for a reason that trying again does not mend.
    SetAside {
        /// Why.
        reason: String,
    },
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => write!(f, "connected"),
            Self::Draining => write!(f, "draining: takes nothing new"),
            Self::SetAside { reason } => write!(f, "set aside: {reason}"),
            Self::Connecting { since, attempts, error } => {
                write!(f, "out of reach for {} s", since.as_secs())?;
                match error {
                    Some(error) => write!(f, ", {attempts} attempts: {error}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("worker", &self.name()).field("state", &self.state()).finish()
    }
}

impl Link {
    /// A link to a worker that need not be there yet: it is dialled from now on.
    #[must_use]
    pub fn unopened(dialer: Box<dyn Dialer>) -> Arc<Self> {
        Self::with(dialer, Pace::default(), Awake::start(SystemClock::shared()))
    }

    /// As [`Link::unopened`], with other times and another clock.
    #[must_use]
    pub fn with(dialer: Box<dyn Dialer>, pace: Pace, awake: Arc<Awake>) -> Arc<Self> {
        let life = watch::Sender::new(Life { since: awake.now(), ..Life::default() });
        let core = Core { dialer, pace, awake, life, view: Mutex::default(), orphans: Orphans::default() };
        let core = Arc::new(core);
        let alive = CancellationToken::new();
        kit::task::spawn("link", keep(core.clone(), alive.clone()));
        Arc::new(Self { core, _alive: alive.drop_guard() })
    }

    /// Connects, asks the worker who it is, and checks the version.
    ///
    /// # Errors
    /// Unreachable, or another version.
    pub async fn open(dialer: Box<dyn Dialer>) -> Result<Arc<Self>, FleetError> {
        let link = Self::unopened(dialer);
        link.line().await?;
        Ok(link)
    }

    /// What it said of itself when it was last asked; nothing but zeros where it was never reached.
    #[must_use]
    pub fn view(&self) -> WorkerView {
        self.known().map_or_else(WorkerView::default, |view| WorkerView::clone(&view))
    }

    /// What it said of itself when it was last asked, if it was ever reached.
    #[must_use]
    pub fn known(&self) -> Option<Arc<WorkerView>> {
        self.core.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its places, as far as it is known.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.known()
            .map_or(0, |view| view.info.slots.iter().filter(|slot| slot.quarantined.is_empty()).count())
    }

    /// Its name or address.
    #[must_use]
    pub fn name(&self) -> String {
        self.core.dialer.name()
    }

    /// How the connection stands.
    #[must_use]
    pub fn state(&self) -> LinkState {
        let life = self.core.life.borrow().clone();
        if let Wish::Cut(reason) = life.wish {
            return LinkState::SetAside { reason };
        }
        if life.open.is_some() {
            let draining =
                life.wish == Wish::NothingNew || self.known().is_some_and(|view| view.info.draining);
            return if draining { LinkState::Draining } else { LinkState::Open };
        }
        match life.error.as_deref() {
            Some(error) if !error.is_retryable() => LinkState::SetAside { reason: error.to_string() },
            error => LinkState::Connecting {
                since: self.core.awake.now().saturating_sub(life.since),
                attempts: life.attempts,
                error: error.map(ToString::to_string),
            },
        }
    }

    /// Says what the user wants of it from now on. One that is cut loses its connection at once.
    pub fn wish(&self, wish: Wish) {
        self.core.life.send_if_modified(|life| {
            if life.wish == wish {
                return false;
            }
            if matches!(wish, Wish::Cut(_)) {
                life.open = None;
            }
            life.wish = wish;
            true
        });
    }

    /// A client over the open connection, or over the next one.
    ///
    /// # Errors
    /// Why the attempt that was under way failed.
    pub async fn client(&self) -> Result<Client, FleetError> {
        Ok(self.line().await?.client)
    }

    /// Asks the worker anew who it is.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn refresh(&self) -> Result<WorkerView, FleetError> {
        self.core.refresh(&self.line().await?).await?;
        Ok(self.view())
    }

    /// The connection that is open now.
    pub(super) fn open_line(&self) -> Option<Line> {
        self.core.open_line()
    }

    /// The open connection, or the next one, or why the attempt under way failed.
    pub(super) async fn line(&self) -> Result<Line, FleetError> {
        let mut changes = self.core.life.subscribe();
        let before = changes.borrow_and_update().attempts;
        loop {
            if let Some(line) = self.open_line() {
                return Ok(line);
            }
            let (attempts, error) = {
                let life = changes.borrow_and_update();
                (life.attempts, life.error.clone())
            };
            if attempts != before
                && let Some(error) = error
            {
                return Err(error.copy());
            }
            if changes.changed().await.is_err() {
                return Err(self.gone("the link was dropped"));
            }
        }
    }

    /// Resolves when a connection opens or breaks, an attempt fails, or the worker says something new; `false` when the link
    /// is gone.
    pub(super) fn changes(&self) -> impl Future<Output = bool> + Send + use<> {
        let mut changes = self.core.life.subscribe();
        async move { changes.changed().await.is_ok() }
    }

    /// As [`Link::changes`], again and again, with none missed in between.
    pub(super) fn every_change(&self) -> Changes {
        Changes(self.core.life.subscribe())
    }

    /// Why the user wants no connection to it any more.
    pub(super) fn cut(&self) -> Option<String> {
        match &self.core.life.borrow().wish {
            Wish::Cut(reason) => Some(reason.clone()),
            Wish::Use | Wish::NothingNew => None,
        }
    }

    /// Whether trying again will not mend it.
    pub(super) fn stands_still(&self) -> bool {
        matches!(self.state(), LinkState::SetAside { .. })
    }

    fn gone(&self, detail: &str) -> FleetError {
        FleetError::Unreachable { worker: self.name(), detail: detail.to_owned() }
    }
}

/// See [`Link::every_change`].
pub(super) struct Changes(watch::Receiver<Life>);

impl Changes {
    /// `false` when the link is gone.
    pub(super) async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

impl Core {
    pub(super) fn name(&self) -> String {
        self.dialer.name()
    }

    fn open_line(self: &Arc<Self>) -> Option<Line> {
        let (channel, which) = {
            let now = self.life.borrow();
            (now.open.clone()?, (now.generation, now.since))
        };
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Line::new(client_over(channel), view, which, self.clone()))
    }

    fn remember(&self, info: v1::GetWorkerResponse) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(view_of(info)));
    }

    /// That connection broke. Word of an earlier one changes nothing.
    pub(super) fn broken(&self, generation: u64) {
        self.life.send_if_modified(|life| {
            let current = life.generation == generation && life.open.is_some();
            if current {
                METRICS.connections_broken.inc();
                life.open = None;
                (life.attempts, life.error, life.since) = (0, None, self.awake.now());
            }
            current
        });
    }

    /// Resolves when that connection is no longer the open one.
    pub(super) fn ended(&self, generation: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut life = self.life.subscribe();
        async move {
            life.wait_for(|life| life.generation != generation || life.open.is_none()).await.ok();
        }
    }

    async fn dial(&self) -> Result<(), FleetError> {
        let late = || FleetError::Unreachable {
            worker: self.name(),
            detail: format!("no answer in {} s", self.pace.dial.as_secs()),
        };
        let attempt = async {
            if let Wish::Cut(reason) = &self.life.borrow().wish {
                let status = tonic::Status::permission_denied(reason.as_str());
                return Err(FleetError::call("connect", &status));
            }
            let channel = self.dialer.dial().await?;
            let info = describe(&self.name(), channel.clone()).await?;
            Ok::<_, FleetError>((channel, info))
        };
        let (channel, info) = tokio::time::timeout(self.pace.dial, attempt).await.map_err(|_| late())??;
        self.remember(info);
        self.life.send_modify(|life| {
            life.generation += 1;
            // It may have been cut meanwhile.
            life.open = (!matches!(life.wish, Wish::Cut(_))).then_some(channel);
            (life.attempts, life.error, life.since) = (0, None, self.awake.now());
        });
        Ok(())
    }

    fn failed(&self, error: FleetError) -> u32 {
        self.life.send_modify(|life| {
            life.attempts = life.attempts.saturating_add(1);
            life.error = Some(Arc::new(error));
        });
        self.life.borrow().attempts
    }

    pub(super) async fn refresh(&self, line: &Line) -> Result<(), FleetError> {
        let mut client = line.client.clone();
        let info = line.ask("GetWorker", client.get_worker(v1::GetWorkerRequest {})).await;
        let info = info.map_err(|fault| fault.at(&self.name()))?;
        self.remember(info);
        self.life.send_modify(|life| life.news += 1);
        Ok(())
    }
}

fn view_of(info: v1::GetWorkerResponse) -> WorkerView {
    WorkerView { worker_id: info.worker_id.clone(), boot_id: info.boot_id.clone(), info }
}

/// Who is there, and whether it speaks our protocol.
async fn describe(worker: &str, channel: Channel) -> Result<v1::GetWorkerResponse, FleetError> {
    let reply = client_over(channel).get_worker(v1::GetWorkerRequest {}).await;
    let info = reply.map_err(|s| Fault::of("GetWorker", s).at(worker))?.into_inner();
    let ours = proto::PROTOCOL_VERSION;
    if (info.protocol_min..=info.protocol_max).contains(&ours) {
        Ok(info)
    } else {
        let (min, max) = (info.protocol_min, info.protocol_max);
        Err(FleetError::Version { worker: worker.to_owned(), min, max, ours })
    }
}

/// The link's task: dials until it is connected, and again when the connection has ended.
async fn keep(core: Arc<Core>, alive: CancellationToken) {
    let work = async {
        let mut sleeps = core.awake.sleeps();
        loop {
            connect(&core, &mut sleeps).await;
            hold(&core, &mut sleeps).await;
        }
    };
    alive.run_until_cancelled(work).await;
    // Whoever still has a line sees it end.
    core.life.send_modify(|life| life.open = None);
}

async fn connect(core: &Core, sleeps: &mut watch::Receiver<u64>) {
    loop {
        let dialled = tokio::select! {
            dialled = core.dial() => dialled,
            // What was asked before this machine slept is not answered any more.
            _ = sleeps.changed() => continue,
        };
        let Err(error) = dialled else { return };
        tracing::debug!(worker = %core.name(), %error, "a worker cannot be reached");
        let stands = !error.is_retryable();
        let attempts = core.failed(error);
        let policy = core.pace.redial;
        // What trying again does not mend is tried seldom.
        let pause = if stands { None } else { policy.next_delay(attempts, None) };
        tokio::select! {
            () = tokio::time::sleep(pause.unwrap_or(policy.longest)) => {}
            _ = sleeps.changed() => {}
        }
    }
}

/// Until the connection ends: ends what was given up, and asks now and then what is new.
async fn hold(core: &Arc<Core>, sleeps: &mut watch::Receiver<u64>) {
    let Some(line) = core.open_line() else { return };
    let news = async {
        loop {
            tokio::time::sleep(core.pace.refresh).await;
            if let Err(error) = core.refresh(&line).await {
                tracing::debug!(worker = %core.name(), %error, "a worker did not say how it is");
            }
        }
    };
    tokio::select! {
        () = line.ended() => {}
        _ = sleeps.changed() => line.broken(),
        () = core.orphans.end_all(&line) => {}
        () = news => {}
    }
}
