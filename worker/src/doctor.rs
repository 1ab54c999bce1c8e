//! What works on this host.
