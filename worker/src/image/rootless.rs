//! What needs root inside a tree, for a worker that is not root: the same program again under a hidden verb, as uid 0 of a
//! user namespace that has the user's range of ids. It does the work as root would, and says how it goes on its standard
//! output, one JSON object a line. What it leaves belongs to uid 0 of the namespace, who is the user; what it is killed over
//! may belong to others of the range, and goes the same way with the next build.
//!
//! ```text
//! worker ─ unshare --user ─ sh: says "map PID", waits until it has its ids
//!                            └─ unshare --mount --pid … ─ sh (PID 1, watches standard input) ─ worker in-namespace ORDER
//! ```

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use kit::task::CancellationToken;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    ImageStep, NativeImages, Pruned,
    base::with_causes,
    namespace,
    process::{self, RunError},
    progress::STEP_NAMES,
};
use crate::sandbox::native::{Range, Rights};

/// The hidden verb.
pub(crate) const VERB: &str = "in-namespace";
/// Before an answer, to tell it from a line of the log.
const MARK: &str = "answer\t";

/// What is to be done there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Makes an image.
    Build { cache: PathBuf, name: String },
    /// Removes images that no recipe stands for.
    Prune { cache: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Step { name: String, done: u64, total: u64, line: String },
    Done,
    Pruned(Vec<(String, u64)>),
    Failed(String),
}

/// Why an order was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error("{0}")]
    Failed(String),
    #[error("it was stopped")]
    Stopped,
}

/// Waits for its ids, at most ten seconds: a worker that is killed before it gave them is not waited for.
const WAIT_FOR_IDS: &str = r#"
echo "map $$"
tries=0
until read -r first </proc/self/gid_map; do
  tries=$((tries + 1))
  [ "$tries" -lt 200 ] || exit 125
  sleep 0.05
done
exec "$@"
"#;

/// Has an order done; its steps go into `step`.
///
/// # Errors
/// What is missing on this host and how to mend it, or why the order failed.
pub(super) async fn order(
    order: &Order,
    mut step: impl FnMut(ImageStep),
    stop: &CancellationToken,
) -> Result<Answer, OrderError> {
    let failed = |e: String| OrderError::Failed(e);
    let rights = kit::task::blocking("rights", Rights::find).await.ok_or(OrderError::Stopped)?;
    let range = match rights.map_err(OrderError::Failed)? {
        Rights::Plain(range) => range,
        Rights::Root => return Err(failed("root needs no namespace".to_owned())),
    };
    let text = serde_json::to_string(order).map_err(|e| failed(e.to_string()))?;
    let this = std::env::current_exe().map_err(|e| failed(format!("cannot find this program: {e}")))?;
    let mut command = namespace::in_user_namespace(WAIT_FOR_IDS).map_err(|e| failed(e.to_string()))?;
    command.arg(this).args([VERB, &text]);

    let child = stop.child_token();
    let refused = Arc::new(Mutex::new(None));
    let mut answer = None;
    let line = |line: &str| {
        if let Some(pid) = line.strip_prefix("map ") {
            give_ids(range.clone(), pid.to_owned(), Arc::clone(&refused), child.clone());
        } else if let Some(text) = line.strip_prefix(MARK) {
            match serde_json::from_str(text) {
                Ok(Answer::Step { name, done, total, line }) => {
                    let name = STEP_NAMES.into_iter().find(|known| *known == name).unwrap_or("build");
                    step(ImageStep { name, done, total, line });
                }
                Ok(other) => answer = Some(other),
                Err(error) => tracing::warn!(%error, "an answer from the namespace cannot be read"),
            }
        }
    };
    let ended = process::run(command, "unshare", line, &child).await;
    if let Some(why) = refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(OrderError::Failed(why));
    }
    match (ended, answer) {
        (Err(RunError::Stopped), _) => Err(OrderError::Stopped),
        (Err(error), _) => Err(failed(with_causes(&error))),
        (_, Some(Answer::Failed(why))) => Err(OrderError::Failed(why)),
        (_, Some(answer)) => Ok(answer),
        (Ok(ended), None) => Err(failed(format!(
            "the work in a user namespace ended with {} and no answer:\n{}",
            ended.status, ended.output
        ))),
    }
}

/// Off the event loop; a refusal ends the program that waits.
fn give_ids(range: Range, pid: String, refused: Arc<Mutex<Option<String>>>, stop: CancellationToken) {
    kit::task::spawn("namespace ids", async move {
        let given = kit::task::blocking("give ids", move || range.give_to(&pid)).await;
        if let Some(Err(why)) = given {
            *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            stop.cancel();
        }
    });
}

/// The other side: does one order and says how it went.
///
/// # Errors
/// Where the order cannot be read or nobody listens. What went wrong with it is said in the answer.
pub(crate) async fn serve(order: &str, stop: CancellationToken) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("this is for the worker itself, in a user namespace of its own"));
    }
    let answer = match serde_json::from_str(order)? {
        Order::Build { cache, name } => build(cache, &name, stop).await,
        Order::Prune { cache } => match NativeImages::new(cache, stop).prune().await {
            Ok(pruned) => Answer::Pruned(
                pruned.into_iter().map(|Pruned { name, size_bytes }| (name, size_bytes)).collect(),
            ),
            Err(error) => Answer::Failed(with_causes(&error)),
        },
    };
    say(&answer)
}

async fn build(cache: PathBuf, name: &str, stop: CancellationToken) -> Answer {
    let images = NativeImages::new(cache, stop);
    let (steps, mut seen) = mpsc::channel(16);
    let told = async {
        while let Some(ImageStep { name, done, total, line }) = seen.recv().await {
            if let Err(error) = say(&Answer::Step { name: name.to_owned(), done, total, line }) {
                tracing::debug!(%error, "nobody hears the steps");
            }
        }
    };
    let (made, ()) = tokio::join!(images.prepare(name, steps), told);
    match made {
        Ok(_) => Answer::Done,
        Err(error) => Answer::Failed(error.without_name()),
    }
}

fn say(answer: &Answer) -> io::Result<()> {
    let text = serde_json::to_string(answer)?;
    let mut out = io::stdout().lock();
    out.write_all(format!("{MARK}{text}\n").as_bytes())?;
    out.flush()
}
