//! `--detach`: the campaign goes on in a process of its own, in a session of its own, so that neither Ctrl-C nor a closed
//! terminal reaches it. It is this same command once more, with a hidden flag that gives it the campaign's id; what it says
//! goes into `detached.log` in the campaign's folder. The one that started it waits until the campaign is in the journal and
//! owned, or tells what it died of.

use std::{
    ffi::OsString,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use kit::clock::SystemClock;

use super::{Global, config::Config, error::CliError, local_worker, out::Printer};
use crate::journal::{CampaignId, CampaignState, Journal};

/// What it says, in the campaign's folder.
pub const LOG: &str = "detached.log";
const LOOK: Duration = Duration::from_millis(100);

/// The child's first act. It fails only where it leads a session already.
pub(super) fn leave_the_terminal() {
    nix::unistd::setsid().ok();
}

/// Starts this command again as the campaign's owner, and waits until it is one. `question` goes to its standard input,
/// where the command line says `-`.
///
/// # Errors
/// What it died of.
pub(super) async fn detach(
    id: CampaignId,
    question: &str,
    global: &Global,
    printer: Printer,
) -> Result<ExitCode, CliError> {
    let data_dir = Config::load(global)?.data_dir()?;
    kit::folder::create_private(&data_dir)?;
    // Made here, so that a folder of a campaign never lies beside a journal that is not there.
    let journal =
        Journal::open(&data_dir, SystemClock::shared()).map_err(|e| super::session::open_failed(&e))?;
    let folder = journal.campaign_folder(id);
    let was_there = folder.exists();
    kit::folder::create_private(&folder)?;
    let log = folder.join(LOG);
    let from = std::fs::metadata(&log).map_or(0, |found| found.len());
    let mut child = start(id, question, &log)?;
    let owned = owned(&journal, id, &mut child).await;
    if let Err(status) = owned {
        let said = last_words(&log, from);
        if !was_there {
            std::fs::remove_dir_all(&folder)
                .map_err(|e| kit::folder::FolderError::io("remove", &folder, e))?;
        }
        return Err(match status {
            Some(2) => CliError::Usage(said),
            _ => CliError::Failed(said),
        });
    }
    let json = serde_json::json!({
        "id": id.to_string(), "state": CampaignState::Running, "process": child.id(), "log": log,
    });
    printer.say(&format!(
        "it goes on without this terminal (autoresearch attach {id} shows it; what it says is in {})",
        log.display()
    ));
    printer.result(&json, &id.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn start(id: CampaignId, question: &str, log: &Path) -> Result<Child, CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("cannot go on in the background: {e}"));
    let program = local_worker::program().map_err(CliError::Failed)?;
    let open = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    let out = open.map_err(failed)?;
    let mut child = Command::new(program)
        .args(arguments(std::env::args_os().skip(1), id))
        .stdin(Stdio::piped())
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(out)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(question.as_bytes()) {
            // It does not read what it does not need.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(child)
}

/// The command line of this process with the order to detach replaced.
fn arguments(given: impl Iterator<Item = OsString>, id: CampaignId) -> Vec<OsString> {
    let mut replaced = false;
    given
        .map(|argument| {
            if argument == "--detach" && !replaced {
                replaced = true;
                return format!("--detached-as={id}").into();
            }
            argument
        })
        .collect()
}

/// `Err` with its exit code where it ends before.
async fn owned(journal: &Journal, id: CampaignId, child: &mut Child) -> Result<(), Option<i32>> {
    loop {
        let ours = journal.is_owned(id).ok().flatten() == Some(child.id());
        if ours && journal.campaign(id).await.is_ok_and(|row| row.state == CampaignState::Running) {
            return Ok(());
        }
        match child.try_wait() {
            Ok(None) => tokio::time::sleep(LOOK).await,
            // It may have been so quick that it has its end.
            Ok(Some(status)) => {
                let ended = status.success() && journal.campaign(id).await.is_ok();
                return if ended { Ok(()) } else { Err(status.code()) };
            }
            Err(error) => {
                tracing::error!(%error, "the process in the background cannot be looked at");
                return Err(None);
            }
        }
    }
}

fn last_words(log: &PathBuf, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let new = bytes.get(usize::try_from(from).unwrap_or_default()..).unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it ended without a word");
    let last = last.strip_prefix("error: ").unwrap_or(last);
    kit::text::one_line(last, 600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_to_detach_is_replaced_and_nothing_else() {
        let id: CampaignId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let given = ["--output", "json", "run", "q", "--detach", "--seeds", "3"].map(OsString::from);
        let told: Vec<String> =
            arguments(given.into_iter(), id).into_iter().map(|a| a.into_string().unwrap()).collect();
        let as_id = format!("--detached-as={id}");
        assert_eq!(told, ["--output", "json", "run", "q", as_id.as_str(), "--seeds", "3"]);
    }
}
