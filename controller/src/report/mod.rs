//! One document in three forms: JSON, Markdown, and one self-contained HTML page with SVG plots. It knows nothing of
//! campaigns, journals or statistics: whoever fills in the document has computed everything.

use std::path::{Path, PathBuf};

/// What a report holds.
pub mod document;
/// One page.
mod html;
/// Plain text with tables.
mod markdown;
/// SVG.
mod plot;
/// How numbers are printed.
pub mod shown;

pub use document::Report;
pub use html::{HtmlError, html};
pub use markdown::markdown;

/// Where the three forms lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// For programs.
    pub json: PathBuf,
    /// For terminals.
    pub markdown: PathBuf,
    /// For people.
    pub html: PathBuf,
}

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A fault in the template.
    #[error(transparent)]
    Html(#[from] HtmlError),
    /// A fault in the document.
    #[error("the report could not be serialised: {0}")]
    Json(#[from] serde_json::Error),
    /// The disk.
    #[error(transparent)]
    Folder(#[from] kit::folder::FolderError),
}

/// Where the forms of a campaign's report lie, whether or not they are there.
#[must_use]
pub fn files(folder: &Path) -> Files {
    let file = |name| folder.join(name);
    Files { json: file("report.json"), markdown: file("report.md"), html: file("report.html") }
}

/// Writes the three forms into a folder, each replaced whole.
///
/// # Errors
/// The first that could not be written; what stood there before stays.
pub fn write(report: &Report, folder: &Path) -> Result<Files, WriteError> {
    let files = files(folder);
    let page = html(report)?;
    kit::folder::replace(&files.json, &serde_json::to_vec_pretty(report)?)?;
    kit::halt::at("controller.report");
    kit::folder::replace(&files.markdown, markdown(report).as_bytes())?;
    kit::folder::replace(&files.html, page.as_bytes())?;
    Ok(files)
}

#[cfg(test)]
mod tests;
