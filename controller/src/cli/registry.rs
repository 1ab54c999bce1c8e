//! From the registry's rows to the ways to those workers: our own key, where each is, and who may dial in. What is
//! registered stands in the journal; how a way is opened is `fleet::dial`'s.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use kit::{
    clock::Clock,
    identity::{Certificate, Fingerprint, Identity, IdentityOptions, Invitations, LIFETIME, preface::Hello},
};

use tonic::transport::Channel;

use super::error::{CliError, chain};
use crate::{
    fleet::{
        Dialer, FleetError,
        address::Address,
        dial::{Arrivals, Door, Ssh, Tls, Unix},
    },
    journal::{FleetState, FleetWorkerRow, Journal},
};

/// Our key and what belongs to it lies here.
#[must_use]
pub fn keys_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// Our own key, made where there is none yet.
///
/// # Errors
/// What is wrong with the file.
pub fn identity(data_dir: &Path, clock: &Arc<dyn Clock>) -> Result<Arc<Identity>, CliError> {
    let options =
        IdentityOptions { folder: keys_folder(data_dir), lifetime: LIFETIME, clock: Arc::clone(clock) };
    Identity::open(options).map_err(|e| CliError::Usage(chain(&e)))
}

/// The ways to registered workers, for one process.
pub struct Registry {
    data_dir: PathBuf,
    journal: Journal,
    clock: Arc<dyn Clock>,
    /// Where the workers that dial in arrive, or why nowhere.
    arrivals: Result<Arc<Arrivals>, String>,
}

impl Registry {
    /// Nothing is dialled and nothing listens yet.
    #[must_use]
    pub fn new(data_dir: &Path, journal: &Journal, clock: &Arc<dyn Clock>) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            journal: journal.clone(),
            clock: Arc::clone(clock),
            arrivals: Err("this command does not listen for it".to_owned()),
        }
    }

    /// Listens for those of `rows` that dial in, at `listen` or where they were invited to. Without any it does nothing.
    ///
    /// # Errors
    /// Where the port cannot be opened: other workers may be used all the same.
    pub async fn listen(
        &mut self,
        rows: &[FleetWorkerRow],
        listen: Option<SocketAddr>,
    ) -> Result<(), CliError> {
        let invited_to = rows.iter().find_map(|row| match address_of(row) {
            Ok(Address::Dialled(at)) => Some(at),
            _ => None,
        });
        let Some(at) = invited_to.map(|at| listen.unwrap_or(at)) else { return Ok(()) };
        let opened = self.open_port(at).await;
        let result = match &opened {
            Ok(_) => Ok(()),
            Err(problem) => Err(CliError::Failed(problem.clone())),
        };
        self.arrivals = opened;
        result
    }

    async fn open_port(&self, at: SocketAddr) -> Result<Arc<Arrivals>, String> {
        let identity = identity(&self.data_dir, &self.clock).map_err(|e| e.to_string())?;
        let invitations = Invitations::new(&keys_folder(&self.data_dir), Arc::clone(&self.clock));
        let guest_list = GuestList { journal: self.journal.clone(), invitations: Arc::new(invitations) };
        let ours = self.journal.controller_id().to_string();
        Arrivals::listen(at, identity, Arc::new(guest_list), ours).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => " (another campaign of yours listens there: workers that dial in serve one process at a time)",
                _ => "",
            };
            format!("cannot listen on {at} for workers that dial in: {error}{hint}")
        })
    }

    /// The way to one worker.
    ///
    /// # Errors
    /// A row that makes no sense, or our key.
    pub fn dialer(&self, row: &FleetWorkerRow) -> Result<Box<dyn Dialer>, CliError> {
        Ok(match address_of(row)? {
            Address::Unix(path) => Box::new(Unix::new(&row.name, path)),
            Address::Ssh(to) => Box::new(Ssh::new(&row.name, to)),
            Address::Tls(to) => {
                let pinned = row.fingerprint.as_deref().unwrap_or_default().parse::<Fingerprint>();
                let pinned = pinned.map_err(|e| CliError::field(&row.name, e))?;
                Box::new(Tls::new(&row.name, to, pinned, identity(&self.data_dir, &self.clock)?))
            }
            Address::Dialled(_) => match &self.arrivals {
                Ok(arrivals) => Box::new(arrivals.dialer(&row.name)),
                Err(problem) => {
                    return Err(CliError::Failed(format!(
                        "worker {} cannot be reached: {problem}",
                        row.name
                    )));
                }
            },
        })
    }
}

/// Where a registered worker is.
///
/// # Errors
/// Where another program wrote into the journal.
pub fn address_of(row: &FleetWorkerRow) -> Result<Address, CliError> {
    row.address.parse().map_err(|e| CliError::Failed(format!("worker {}: {e}", row.name)))
}

/// The way to a worker that this process has none to: it stays out of reach, and is one that may have runs.
#[must_use]
pub fn absent(row: &FleetWorkerRow, why: &CliError) -> Box<dyn Dialer> {
    Box::new(Absent { name: row.name.clone(), why: why.to_string() })
}

struct Absent {
    name: String,
    why: String,
}

#[async_trait]
impl Dialer for Absent {
    async fn dial(&self) -> Result<Channel, FleetError> {
        Err(FleetError::Unreachable { worker: self.name.clone(), detail: self.why.clone() })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Who may dial in: keys of the registry, and those that show the secret of an invitation.
struct GuestList {
    journal: Journal,
    invitations: Arc<Invitations>,
}

#[async_trait]
impl Door for GuestList {
    async fn admit(&self, certificate: &Certificate, hello: &Hello) -> Result<String, String> {
        let rows = self.journal.fleet_workers().await.map_err(|e| chain(&e))?;
        let key = certificate.fingerprint.to_string();
        let known = rows.iter().find(|row| row.fingerprint.as_deref() == Some(key.as_str()));
        if let Some(row) = known {
            // One that gets no new runs may still have old ones.
            return match row.state {
                FleetState::Revoked => Err(format!("`{}` was revoked here", row.name)),
                _ => Ok(row.name.clone()),
            };
        }
        let Some(secret) = hello.secret.clone() else {
            return Err(
                "this key is not known here: use a new invitation (`autoresearch worker invite NAME`)"
                    .to_owned(),
            );
        };
        let awaited = rows.iter().find(|row| row.name == hello.name);
        match awaited.map(|row| row.state) {
            Some(FleetState::Invited) => {}
            Some(_) => return Err(format!("the invitation of `{}` was used already", hello.name)),
            None => return Err(format!("no worker `{}` is awaited here", hello.name)),
        }
        let (invitations, by) = (Arc::clone(&self.invitations), certificate.fingerprint);
        let redeemed =
            kit::task::blocking("redeem an invitation", move || invitations.redeem(&secret, &by)).await;
        let redeemed = redeemed.ok_or("the invitation could not be looked up")?.map_err(|e| chain(&e))?;
        if redeemed.invitation().name.as_deref() != Some(hello.name.as_str()) {
            return Err("the secret was given out under another name".to_owned());
        }
        self.journal.fleet_worker_arrived(&hello.name, &key).await.map_err(|e| chain(&e))?;
        Ok(hello.name.clone())
    }
}
