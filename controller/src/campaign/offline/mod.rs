//! The rule-based researcher.
