//! Who the other end of a connection between machines is: keys, self-signed certificates that are known by their
//! fingerprint, TLS over them, the two texts that are copied from one machine to the other, and the files that
//! remember who was let in.
//!
//! There is no authority and no name is checked: each side trusts the keys that it was told of, and nothing else. A
//! [`JoinString`] (made by a worker that listens) or an [`InviteString`] (made by a controller that a worker dials)
//! carries address, fingerprint and a secret that works once; after that both sides know each other's key.
//!
//! What does not belong here: who may do what (the worker's service), and when to dial again (its caller).

/// Host and port, as both texts carry them.
mod address;
/// A certificate of the other side, read and held against our clock.
mod certificate;
/// Why the other side is not trusted.
mod error;
/// The name of a key.
mod fingerprint;
/// One-time secrets that were given out, by their hash.
mod invitations;
/// Our own key and certificate.
mod own;
/// Whom we let in.
mod peers;
/// The first line on a connection that a worker dialled.
pub mod preface;
/// One-time secrets.
mod secret;
/// A small file that several processes change.
mod shared_file;
/// The two texts that people copy.
mod strings;
/// TLS 1.3 by pinned keys.
pub mod tls;

pub use self::{
    address::{Address, AddressError},
    certificate::Certificate,
    error::TrustError,
    fingerprint::{Fingerprint, ParseFingerprintError},
    invitations::{INVITATION_LIFETIME, Invitation, Invitations, RedeemError, Redeemed},
    own::{Identity, IdentityError, IdentityOptions, LIFETIME},
    peers::{Peer, PeerError, Peers, Revoked},
    secret::Secret,
    shared_file::{SharedFile, Stamp, StoreError},
    strings::{InviteString, JoinString, TextError},
};
