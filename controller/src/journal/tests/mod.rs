//! Behaviour of the journal over real files.
