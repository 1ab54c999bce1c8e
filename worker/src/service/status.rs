//! The one place where errors become statuses. Each has a code, a reason for programs, a text that is safe to show, and
//! details that name the field, what is missing, or when to come again. Paths of this host stay in the log.

use std::{collections::HashMap, time::Duration};

use kit::identity::{PeerError, RedeemError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    blobs::BlobError,
    run::{
        registry::{LookupError, ReleaseError, StartError},
        seams::ImageError,
        spec::{SpecError, Violation},
        spool::SpoolError,
    },
};

/// Of all reasons.
pub const DOMAIN: &str = "autoresearch.worker";
/// When to ask for a slot or for disk again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// When to try a secret again.
const ATTEMPT_AFTER: Duration = Duration::from_secs(60);

/// Everything that a call can end with.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// See there.
    #[error(transparent)]
    Start(#[from] StartError),
    /// See there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// See there.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// See there.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// See there.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// See there.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Fields of the request.
    #[error(transparent)]
    Fields(#[from] SpecError),
    /// No such artifact of this run.
    #[error("run has no artifact `{0}`")]
    NoArtifact(String),
    /// What was asked for has not come to be yet.
    #[error("the run has not finished")]
    Unfinished,
    /// Bytes on the worker's disk are not what they were.
    #[error("{0} is damaged on the worker's disk")]
    Damaged(&'static str),
    /// The process ends.
    #[error("the worker is going down; the run goes on")]
    Stopping,
    /// Joining and leaving are of TLS.
    #[error("this connection needs no joining: it is the socket's or this machine's own")]
    NotTls,
    /// It lets nobody in.
    #[error(transparent)]
    Secret(RedeemError),
    /// From one place.
    #[error("too many wrong secrets from this address: try again in a minute")]
    TooManyAttempts,
    /// A key that may only join.
    #[error(transparent)]
    NotLetIn(PeerError),
    /// Of another journal.
    #[error(
        "`{0}` joined with another controller_id: a key sees the runs of its own controller alone; join again with this one"
    )]
    OtherController(String),
    /// A defect or the worker's disk; the log says which.
    #[error("{0}")]
    Internal(String),
}

impl CallError {
    /// One field that is wrong.
    pub fn field(field: &str, problem: impl ToString) -> Self {
        let violation = Violation { field: field.to_owned(), problem: problem.to_string() };
        Self::Fields(SpecError(vec![violation]))
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let status = status(&error);
        if matches!(status.code(), Code::Internal | Code::DataLoss) {
            tracing::error!(error = %chain(&error), "a call failed");
        } else {
            tracing::debug!(error = %chain(&error), code = ?status.code(), "a call was refused");
        }
        status
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn plain(code: Code, reason: &str, message: impl ToString) -> Status {
    with(code, reason, message, ErrorDetails::new())
}

fn with(code: Code, reason: &str, message: impl ToString, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message.to_string(), details)
}

fn fields(error: &SpecError) -> Status {
    let mut details = ErrorDetails::new();
    for violation in &error.0 {
        details.add_bad_request_violation(&violation.field, &violation.problem);
    }
    with(Code::InvalidArgument, "INVALID_FIELD", error, details)
}

fn later(code: Code, reason: &str, error: &dyn std::error::Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(RETRY_AFTER));
    with(code, reason, error, details)
}

fn missing(reason: &str, error: &dyn std::error::Error, kind: &str, subjects: &[String]) -> Status {
    let mut details = ErrorDetails::new();
    for subject in subjects {
        details.add_precondition_failure_violation(kind, subject, "is not there");
    }
    with(Code::FailedPrecondition, reason, error, details)
}

fn internal() -> Status {
    plain(Code::Internal, "WORKER_DISK", "the worker's own disk failed; its log says how")
}

fn status(error: &CallError) -> Status {
    match error {
        CallError::Start(error) => start(error),
        CallError::Lookup(error) => lookup(error),
        CallError::Release(error) => release(error),
        CallError::Blob(error) => blob(error),
        CallError::Spool(error) => spool(error),
        CallError::Image(error) => image(error),
        CallError::Fields(error) => fields(error),
        CallError::NoArtifact(_) => plain(Code::NotFound, "NO_SUCH_ARTIFACT", error),
        CallError::Unfinished => plain(Code::FailedPrecondition, "RUN_UNFINISHED", error),
        CallError::Damaged(_) => plain(Code::DataLoss, "DAMAGED", error),
        CallError::Stopping => later(Code::Unavailable, "STOPPING", error),
        CallError::NotTls => plain(Code::FailedPrecondition, "NOT_TLS", error),
        CallError::Secret(error) => secret(error),
        CallError::TooManyAttempts => {
            let mut details = ErrorDetails::new();
            details.set_retry_info(Some(ATTEMPT_AFTER));
            with(Code::ResourceExhausted, "TOO_MANY_ATTEMPTS", error, details)
        }
        CallError::NotLetIn(error) => not_let_in(error),
        CallError::OtherController(_) => plain(Code::PermissionDenied, "OTHER_CONTROLLER", error),
        CallError::Internal(_) => plain(Code::Internal, "INTERNAL", "the worker failed; its log says how"),
    }
}

fn secret(error: &RedeemError) -> Status {
    let reason = match error {
        RedeemError::Unknown => "SECRET_UNKNOWN",
        RedeemError::Used { .. } => "SECRET_USED",
        RedeemError::Expired { .. } => "SECRET_EXPIRED",
        RedeemError::Store(_) => return internal(),
    };
    plain(Code::Unauthenticated, reason, error)
}

fn not_let_in(error: &PeerError) -> Status {
    let reason = match error {
        PeerError::Unknown(_) => "NOT_JOINED",
        PeerError::Revoked { .. } => "REVOKED",
        PeerError::Expired { .. } => "ACCESS_EXPIRED",
        PeerError::Store(_) => return internal(),
    };
    plain(Code::Unauthenticated, reason, error)
}

fn start(error: &StartError) -> Status {
    match error {
        StartError::Spec(error) => fields(error),
        StartError::Exists(_) => plain(Code::AlreadyExists, "RUN_EXISTS", error),
        StartError::Forgotten(_) => plain(Code::FailedPrecondition, "RUN_FORGOTTEN", error),
        StartError::Draining => plain(Code::Unavailable, "DRAINING", error),
        StartError::Image(error) => image(error),
        StartError::ImageNotPrepared(name) => {
            missing("IMAGE_NOT_PREPARED", error, "IMAGE", std::slice::from_ref(name))
        }
        StartError::MissingBlobs(digests) => {
            let subjects: Vec<String> = digests.iter().map(ToString::to_string).collect();
            missing("BLOBS_MISSING", error, "BLOB", &subjects)
        }
        StartError::NoSlot => later(Code::ResourceExhausted, "NO_SLOT", error),
        StartError::NoDisk { .. } => later(Code::ResourceExhausted, "NO_DISK", error),
        StartError::TooMany => plain(Code::ResourceExhausted, "TOO_MANY_RUNS", error),
        StartError::Folder(_) | StartError::Record(_) | StartError::Spool(_) => internal(),
        StartError::Stopping => later(Code::Unavailable, "STOPPING", error),
    }
}

fn lookup(error: &LookupError) -> Status {
    match error {
        LookupError::Unknown(_) => plain(Code::NotFound, "NO_SUCH_RUN", error),
        LookupError::Forgotten(_) => plain(Code::FailedPrecondition, "RUN_FORGOTTEN", error),
    }
}

fn release(error: &ReleaseError) -> Status {
    match error {
        ReleaseError::Lookup(error) => lookup(error),
        ReleaseError::Unfinished(_) => plain(Code::FailedPrecondition, "RUN_UNFINISHED", error),
        ReleaseError::Sequence { .. } => plain(Code::FailedPrecondition, "WRONG_LAST_SEQUENCE", error),
        ReleaseError::Folder(_) => internal(),
    }
}

fn blob(error: &BlobError) -> Status {
    match error {
        BlobError::Busy(_) => later(Code::Aborted, "BLOB_BUSY", error),
        BlobError::Offset { received, .. } => {
            let mut details = ErrorDetails::new();
            let there = HashMap::from([("received_bytes".to_owned(), received.to_string())]);
            details.set_error_info("WRONG_OFFSET", DOMAIN, there);
            Status::with_error_details(Code::OutOfRange, error.to_string(), details)
        }
        BlobError::Size { .. } => plain(Code::InvalidArgument, "WRONG_SIZE", error),
        BlobError::Digest { .. } => plain(Code::InvalidArgument, "WRONG_DIGEST", error),
        BlobError::NoRoom { .. } => plain(Code::ResourceExhausted, "NO_ROOM", error),
        BlobError::Folder(error) if is_full(error) => {
            let mut details = ErrorDetails::new();
            details.set_retry_info(Some(RETRY_AFTER));
            with(Code::Unavailable, "DISK_FULL", "the worker's disk is full: make room on it", details)
        }
        BlobError::Folder(_) => internal(),
    }
}

/// Whether it is for want of room, which somebody may make: not the end of whoever waits for it.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
    };
    std::iter::successors(error.source(), |error| error.source()).any(io)
}

fn spool(error: &SpoolError) -> Status {
    match error {
        SpoolError::PastEnd { .. } => plain(Code::OutOfRange, "PAST_END", error),
        SpoolError::Damaged { .. } => {
            plain(Code::DataLoss, "SPOOL_DAMAGED", "the run's events on the worker's disk are damaged")
        }
        SpoolError::Io { .. } | SpoolError::TooLarge { .. } => internal(),
    }
}

fn image(error: &ImageError) -> Status {
    match error {
        ImageError::Unknown { .. } => plain(Code::NotFound, "NO_SUCH_IMAGE", error),
        ImageError::Engine { .. } => later(Code::Unavailable, "ENGINE", error),
        ImageError::Build { .. } => plain(Code::Internal, "IMAGE_BUILD", error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kit::digest::Digest;

    use super::*;
    use crate::run::RunId;

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        let id = RunId::new();
        let digest = Digest::of(b"x");
        let io = || {
            kit::folder::FolderError::io("write", &PathBuf::from("/secret/place"), std::io::Error::other("x"))
        };
        let bytes = kit::size::Bytes;
        let (now, key) = (jiff::Timestamp::UNIX_EPOCH, kit::identity::Fingerprint::of_key(b"key"));
        let table: Vec<(CallError, Code, &str)> = vec![
            (CallError::field("run_id", "x"), Code::InvalidArgument, "INVALID_FIELD"),
            (StartError::Spec(SpecError(Vec::new())).into(), Code::InvalidArgument, "INVALID_FIELD"),
            (StartError::Exists(id).into(), Code::AlreadyExists, "RUN_EXISTS"),
            (StartError::Forgotten(id).into(), Code::FailedPrecondition, "RUN_FORGOTTEN"),
            (StartError::Draining.into(), Code::Unavailable, "DRAINING"),
            (
                StartError::ImageNotPrepared("lite".into()).into(),
                Code::FailedPrecondition,
                "IMAGE_NOT_PREPARED",
            ),
            (StartError::MissingBlobs(vec![digest]).into(), Code::FailedPrecondition, "BLOBS_MISSING"),
            (StartError::NoSlot.into(), Code::ResourceExhausted, "NO_SLOT"),
            (
                StartError::NoDisk { wanted: bytes(2), free: bytes(1) }.into(),
                Code::ResourceExhausted,
                "NO_DISK",
            ),
            (StartError::TooMany.into(), Code::ResourceExhausted, "TOO_MANY_RUNS"),
            (StartError::Folder(io()).into(), Code::Internal, "WORKER_DISK"),
            (StartError::Stopping.into(), Code::Unavailable, "STOPPING"),
            (LookupError::Unknown(id).into(), Code::NotFound, "NO_SUCH_RUN"),
            (LookupError::Forgotten(id).into(), Code::FailedPrecondition, "RUN_FORGOTTEN"),
            (ReleaseError::Unfinished(id).into(), Code::FailedPrecondition, "RUN_UNFINISHED"),
            (
                ReleaseError::Sequence { id, last: 2, given: 1 }.into(),
                Code::FailedPrecondition,
                "WRONG_LAST_SEQUENCE",
            ),
            (ReleaseError::Folder(io()).into(), Code::Internal, "WORKER_DISK"),
            (BlobError::Busy(digest).into(), Code::Aborted, "BLOB_BUSY"),
            (BlobError::Offset { digest, asked: 1, received: 0 }.into(), Code::OutOfRange, "WRONG_OFFSET"),
            (BlobError::Size { digest, announced: 1, came: 0 }.into(), Code::InvalidArgument, "WRONG_SIZE"),
            (BlobError::Digest { digest, found: digest }.into(), Code::InvalidArgument, "WRONG_DIGEST"),
            (BlobError::NoRoom { digest, size: 1, total: 0 }.into(), Code::ResourceExhausted, "NO_ROOM"),
            (BlobError::Folder(io()).into(), Code::Internal, "WORKER_DISK"),
            (
                BlobError::Folder(kit::folder::FolderError::io(
                    "write",
                    std::path::Path::new("/secret/place"),
                    std::io::ErrorKind::StorageFull.into(),
                ))
                .into(),
                Code::Unavailable,
                "DISK_FULL",
            ),
            (SpoolError::PastEnd { asked: 2, last: 1 }.into(), Code::OutOfRange, "PAST_END"),
            (
                SpoolError::Damaged { path: "/secret/place".into(), offset: 0, detail: "x" }.into(),
                Code::DataLoss,
                "SPOOL_DAMAGED",
            ),
            (SpoolError::TooLarge { bytes: 1 }.into(), Code::Internal, "WORKER_DISK"),
            (
                ImageError::Unknown { name: "x".into(), known: String::new() }.into(),
                Code::NotFound,
                "NO_SUCH_IMAGE",
            ),
            (
                ImageError::Engine { name: "x".into(), detail: String::new() }.into(),
                Code::Unavailable,
                "ENGINE",
            ),
            (
                ImageError::Build { name: "x".into(), detail: String::new() }.into(),
                Code::Internal,
                "IMAGE_BUILD",
            ),
            (CallError::NoArtifact("x".into()), Code::NotFound, "NO_SUCH_ARTIFACT"),
            (CallError::Unfinished, Code::FailedPrecondition, "RUN_UNFINISHED"),
            (CallError::Damaged("x"), Code::DataLoss, "DAMAGED"),
            (CallError::Stopping, Code::Unavailable, "STOPPING"),
            (CallError::NotTls, Code::FailedPrecondition, "NOT_TLS"),
            (CallError::Secret(RedeemError::Unknown), Code::Unauthenticated, "SECRET_UNKNOWN"),
            (CallError::Secret(RedeemError::Used { at: now }), Code::Unauthenticated, "SECRET_USED"),
            (
                CallError::Secret(RedeemError::Expired { ended: now, now }),
                Code::Unauthenticated,
                "SECRET_EXPIRED",
            ),
            (CallError::TooManyAttempts, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"),
            (CallError::NotLetIn(PeerError::Unknown(key)), Code::Unauthenticated, "NOT_JOINED"),
            (
                CallError::NotLetIn(PeerError::Revoked { name: "x".into(), at: now }),
                Code::Unauthenticated,
                "REVOKED",
            ),
            (
                CallError::NotLetIn(PeerError::Expired { name: "x".into(), ended: now, now }),
                Code::Unauthenticated,
                "ACCESS_EXPIRED",
            ),
            (CallError::NotLetIn(PeerError::Store(io().into())), Code::Internal, "WORKER_DISK"),
            (CallError::OtherController("x".into()), Code::PermissionDenied, "OTHER_CONTROLLER"),
            (CallError::Internal("/secret/place".into()), Code::Internal, "INTERNAL"),
        ];
        for (error, code, reason) in table {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{text}");
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, reason, "{text}");
            assert!(!status.message().contains("/secret"), "{text}");
        }
    }

    #[test]
    fn details_name_field_subject_and_time() {
        let status = Status::from(CallError::field("spec.image", "is wrong"));
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!((violation.field.as_str(), violation.description.as_str()), ("spec.image", "is wrong"));
        let digest = Digest::of(b"x");
        let status = Status::from(CallError::from(StartError::MissingBlobs(vec![digest])));
        let details = status.get_error_details();
        let violation = &details.precondition_failure().unwrap().violations[0];
        assert_eq!((violation.r#type.as_str(), violation.subject.clone()), ("BLOB", digest.to_string()));
        let status = Status::from(CallError::from(StartError::NoSlot));
        assert_eq!(status.get_error_details().retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    }
}
