//! Every call is checked against who calls, whatever service it is of: an owner may call all, a key that was let in too,
//! and any other may only join. The list is asked with each call, so that what was taken back is so at once.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use kit::identity::PeerError;
use tonic::{Status, body::Body, codegen::http};

use super::Caller;
use crate::service::{SERVICE_NAME, status::CallError};

/// Puts the check before a server's services.
#[derive(Debug, Clone, Copy)]
pub struct GuardLayer;

impl<S> tower::Layer<S> for GuardLayer {
    type Service = Guard<S>;
    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner }
    }
}

/// The check.
#[derive(Debug, Clone)]
pub struct Guard<S> {
    inner: S,
}

impl<S> tower::Service<http::Request<Body>> for Guard<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match check(&mut request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Ok(Status::from(error).into_http()))),
        }
    }
}

fn check(request: &mut http::Request<Body>) -> Result<(), CallError> {
    let remote = match request.extensions().get::<Caller>() {
        Some(Caller::Owner) => return Ok(()),
        Some(Caller::Remote(remote)) => remote,
        None => return Err(CallError::Internal("a connection that no door let in".to_owned())),
    };
    let joins = request
        .uri()
        .path()
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .is_some_and(|(service, method)| service == SERVICE_NAME && method == "Join");
    match remote.access.peers().check(&remote.certificate.fingerprint) {
        Ok(peer) => {
            request.extensions_mut().insert(peer);
            Ok(())
        }
        Err(_) if joins => Ok(()),
        Err(PeerError::Store(error)) => Err(CallError::Internal(kit::text::chain(&error, 500))),
        Err(error) => Err(CallError::NotLetIn(error)),
    }
}
