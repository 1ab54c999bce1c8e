//! The catalogue: where well-known data sets come from, as data (`worker/datasets/catalogue.toml`, in the program). A
//! checksum there is one that was published; an empty one says that none was found, and then the first addition prints
//! what came, for everybody else to pin.

use std::path::Path;

use figment::{
    Figment,
    providers::{Format as _, Toml},
};
use kit::digest::Digest;
use reqwest::Url;
use serde::Deserialize;

use super::{DataSetError, fetch, store, walk};

const SHIPPED: &str = include_str!("../../datasets/catalogue.toml");
const FILES_MAX: usize = 64;

/// Of a whole catalogue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the file's order.
    data_set: Vec<Entry>,
}

/// One data set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is called, unless the user says otherwise.
    pub name: String,
    /// As its publisher says.
    pub licence: String,
    /// For a planner.
    pub description: String,
    /// What it consists of; one file alone is a data set of one file.
    pub file: Vec<CatalogueFile>,
}

/// One file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// In the data set.
    pub name: String,
    /// Where it lies: the first one that answers is taken.
    pub urls: Vec<String>,
    /// Of what is fetched; empty where none was published.
    pub sha256: String,
    /// The same, where a publisher gives this one.
    #[serde(default)]
    pub md5: String,
    /// Of what is fetched; 0 where it is not known.
    pub size_bytes: u64,
    /// What is fetched is a zip, and this member of it is the file.
    #[serde(default)]
    pub member: Option<String>,
    /// Only so many bytes of the member, up to the end of their last whole line.
    #[serde(default)]
    pub first_bytes: Option<u64>,
}

impl CatalogueFile {
    pub(super) fn addresses(&self) -> Result<Vec<Url>, DataSetError> {
        self.urls.iter().map(|url| fetch::parse(url)).collect()
    }

    pub(super) fn pin(&self) -> Result<Option<Digest>, DataSetError> {
        let wrong =
            |e: kit::digest::ParseDigestError| DataSetError::Catalogue(format!("{}: sha256: {e}", self.name));
        if self.sha256.is_empty() {
            return Ok(None);
        }
        format!("sha256:{}", self.sha256).parse().map(Some).map_err(wrong)
    }
}

impl Catalogue {
    /// The one in the program.
    ///
    /// # Errors
    /// None, as a test sees to.
    pub fn shipped() -> Result<Self, DataSetError> {
        Self::parse(SHIPPED)
    }

    /// One of the user's own.
    ///
    /// # Errors
    /// Names the file, or the entry and field at fault.
    pub fn read(path: &Path) -> Result<Self, DataSetError> {
        Self::parse(&std::fs::read_to_string(path).map_err(|e| DataSetError::io("read", path, e))?)
    }

    /// From its text.
    ///
    /// # Errors
    /// Names the entry and field at fault.
    pub fn parse(text: &str) -> Result<Self, DataSetError> {
        let catalogue: Self = Figment::from(Toml::string(text))
            .extract()
            .map_err(|e| DataSetError::Catalogue(kit::text::one_line(&e.to_string(), 300)))?;
        let mut names = std::collections::BTreeSet::new();
        for entry in &catalogue.data_set {
            store::check_name(&entry.name)?;
            let wrong = |what: String| Err(DataSetError::Catalogue(format!("{}: {what}", entry.name)));
            if !names.insert(&entry.name) {
                return wrong("comes twice".to_owned());
            }
            if !(1..=FILES_MAX).contains(&entry.file.len()) {
                return wrong(format!("must have 1 to {FILES_MAX} files"));
            }
            for file in &entry.file {
                if file.name.contains('/') || walk::check_file_name(file.name.as_bytes()).is_err() {
                    return wrong(format!("`{}` is no file's name", kit::text::one_line(&file.name, 80)));
                }
                if file.urls.is_empty() || (file.first_bytes.is_some() && file.member.is_none()) {
                    return wrong(format!("{} needs `urls`, and `member` for `first_bytes`", file.name));
                }
                file.addresses()?;
                file.pin()?;
                let md5 = file.md5.len() == 32 && file.md5.bytes().all(|b| b.is_ascii_hexdigit());
                if !file.md5.is_empty() && !md5 {
                    return wrong(format!("{}: md5 must be 32 hexadecimal digits", file.name));
                }
            }
        }
        Ok(catalogue)
    }

    /// All of them.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.data_set
    }

    /// One of them.
    ///
    /// # Errors
    /// [`DataSetError::Unknown`] with the names that there are.
    pub fn find(&self, name: &str) -> Result<&Entry, DataSetError> {
        let known = || {
            let names: Vec<&str> = self.data_set.iter().map(|entry| entry.name.as_str()).collect();
            format!("{} (in the catalogue; for another one give its path or address)", names.join(", "))
        };
        let found = self.data_set.iter().find(|entry| entry.name == name);
        found.ok_or_else(|| DataSetError::Unknown { name: name.to_owned(), known: known() })
    }
}
