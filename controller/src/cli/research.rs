//! From settings to the end of a campaign, for the command line and for the library: who thinks, what data travel, and
//! the loop. Nothing here prints.

use std::sync::Arc;

use kit::task::CancellationToken;

use super::{
    error::{CliError, chain},
    session::Session,
};
use crate::{
    campaign::{
        self, CampaignEnd, CampaignError, CampaignSettings, DataSet, Deps, ModelResearcher, Watchers,
        lab::data_set_names,
        offline::{self, Offline},
        researcher::{Researcher, Wishes},
    },
    journal::{CampaignId, CampaignRow},
    llm,
};

/// One campaign, to its end.
///
/// # Errors
/// Where it ended without a report.
pub(crate) async fn research(
    session: &Session,
    thinking: Thinking,
    id: CampaignId,
    settings: CampaignSettings,
    watchers: Watchers,
    cancel: CancellationToken,
) -> Result<CampaignEnd, CliError> {
    if let Some(name) = &settings.data_set {
        there(name, session)?;
    }
    let researcher = thinking.researcher(session, id, &settings)?;
    let ended = campaign::run_campaign(deps(session, researcher, watchers), id, settings, cancel).await;
    ended.map_err(failed)
}

/// A campaign that nobody runs, from where it was left to its end.
///
/// # Errors
/// Where it ended without a report, or somebody runs it after all.
pub(crate) async fn resume(
    session: &Session,
    thinking: Thinking,
    id: CampaignId,
    settings: &CampaignSettings,
    watchers: Watchers,
    cancel: CancellationToken,
) -> Result<CampaignEnd, CliError> {
    let researcher = thinking.researcher(session, id, settings)?;
    campaign::resume_campaign(deps(session, researcher, watchers), id, cancel).await.map_err(failed)
}

/// The end of a campaign that nobody runs, with the report of what it has. Nobody thinks for that.
///
/// # Errors
/// As [`resume`].
pub(crate) async fn cancel(
    session: &Session,
    row: &CampaignRow,
    watchers: Watchers,
) -> Result<CampaignEnd, CliError> {
    let researcher = Arc::new(campaign::researcher::Absent(row.researcher.clone()));
    campaign::cancel_campaign(deps(session, researcher, watchers), row.id).await.map_err(failed)
}

fn deps(session: &Session, researcher: Arc<dyn Researcher>, watchers: Watchers) -> Deps {
    Deps {
        journal: session.journal.clone(),
        fleet: Arc::new(session.fleet.clone()),
        researcher,
        clock: session.clock.clone(),
        progress: watchers,
        data_sets: data_sets(),
    }
}

fn failed(error: CampaignError) -> CliError {
    match error.is_usage() {
        true => CliError::Usage(chain(&error)),
        false => CliError::Failed(chain(&error)),
    }
}

/// Whether anybody has this data set: it ships with the program, or a worker keeps it.
///
/// # Errors
/// What there is, and how to add one.
pub(super) fn there(name: &str, session: &Session) -> Result<(), CliError> {
    let names = data_set_names(&session.fleet.workers(), &data_sets());
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let problem = format!(
        "there is no `{name}`; there are {} (a worker takes others in with `autoresearch-worker dataset add`)",
        names.join(", ")
    );
    Err(CliError::field("--dataset", problem))
}

/// The data that ships with the program.
pub(super) fn data_sets() -> Vec<DataSet> {
    let shipped = offline::data_sets().iter().flat_map(|set| {
        set.files.iter().take(1).map(|(_, bytes)| DataSet {
            name: set.name.to_owned(),
            description: set.description.to_owned(),
            smallest_effect: set.metrics.first().map(|metric| metric.smallest_effect),
            bytes: bytes::Bytes::from_static(bytes),
        })
    });
    shipped.collect()
}

/// Who thinks, before there is a journal.
pub(crate) enum Thinking {
    Rules,
    Model(Arc<dyn llm::Model>),
}

impl Thinking {
    /// Opens whoever the spec names; nothing is sent.
    ///
    /// # Errors
    /// Names `--llm` and what is wrong: the prefix, the address, the key's variable.
    pub(crate) fn open(spec: &str, url: Option<String>, keys: llm::Keys) -> Result<Self, CliError> {
        if spec == "offline" {
            return Ok(Self::Rules);
        }
        let spec = spec.parse().map_err(|e: llm::ParseSpecError| CliError::field("--llm", e))?;
        let options = llm::OpenOptions { url, ..llm::OpenOptions::new(spec, keys) };
        llm::open(options).map(Self::Model).map_err(|e| CliError::field("--llm", e))
    }

    /// Whether it can take the question, before anything is built or started.
    ///
    /// # Errors
    /// What it covers, or the option at fault.
    pub(crate) fn accepts(&self, settings: &CampaignSettings) -> Result<(), CliError> {
        let wishes = Wishes {
            seeds: settings.seeds,
            smallest_effect: settings.smallest_effect.clone(),
            data_set: settings.data_set.clone(),
        };
        match self {
            Self::Rules => {
                Offline.accepts_with(&settings.question, &wishes).map_err(|e| CliError::Usage(e.to_string()))
            }
            // A model takes any data set; whether a worker has it is known once one is connected.
            Self::Model(model) => ModelResearcher::check_budget(model.as_ref(), settings.cost_budget)
                .map_err(|e| CliError::Usage(e.to_string())),
        }
    }

    fn researcher(
        self,
        session: &Session,
        id: CampaignId,
        settings: &CampaignSettings,
    ) -> Result<Arc<dyn Researcher>, CliError> {
        match self {
            Self::Rules => Ok(Arc::new(Offline)),
            Self::Model(model) => {
                let researcher =
                    ModelResearcher::new(model, session.journal.clone(), id, settings.cost_budget);
                Ok(Arc::new(researcher.map_err(|e| CliError::Usage(e.to_string()))?))
            }
        }
    }
}
