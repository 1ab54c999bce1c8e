//! One document in three forms: JSON, Markdown, and one self-contained HTML page with SVG plots. It knows nothing of
//! campaigns, journals or statistics: whoever fills in the document has computed everything.

/// What a report holds.
pub mod document;

pub use document::Report;
