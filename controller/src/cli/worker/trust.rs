//! The two calls by which a worker that is reached over TLS comes to trust our key, and forgets it.

use std::time::Duration;

use kit::identity::Secret;
use proto::v1;

use crate::{cli::error::CliError, fleet::Client};

const ANSWER: Duration = Duration::from_secs(15);

/// Shows the secret of a join string. The connection is of no more use afterwards.
///
/// # Errors
/// The worker's own words: used, ended, unknown.
pub(super) async fn join(
    name: &str,
    mut client: Client,
    controller_id: &str,
    secret: &Secret,
) -> Result<(), CliError> {
    let failed = |problem: String| CliError::Failed(format!("worker {name}: {problem}"));
    let request = v1::JoinRequest {
        controller_id: controller_id.to_owned(),
        name: our_name(),
        secret: secret.bytes().to_vec(),
    };
    let joined = tokio::time::timeout(ANSWER, client.join(request)).await;
    let joined = joined.map_err(|_| failed(format!("no answer to Join in {} s", ANSWER.as_secs())))?;
    joined.map(|_| ()).map_err(|status| {
        let words = match std::error::Error::source(&status) {
            Some(cause) => kit::text::chain(cause, 400),
            None => kit::text::one_line(status.message(), 400),
        };
        failed(format!("it does not take the join string: {words}"))
    })
}

/// Asks it to forget our key; whether it did.
pub(super) async fn leave(mut client: Client) -> bool {
    matches!(tokio::time::timeout(ANSWER, client.leave(v1::LeaveRequest {})).await, Ok(Ok(_)))
}

/// How the worker's owner reads of us in its list.
fn our_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
    let host: String = host.to_lowercase().chars().map(plain).take(63).collect();
    if kit::name::check_name(&host).is_ok() { host } else { "controller".to_owned() }
}
