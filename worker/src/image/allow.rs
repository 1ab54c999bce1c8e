//! The images that the user of this worker has added to its allow-list: one small file in the data folder, read at
//! every use, so that what a command adds counts at once and after every restart. What makes an image fit for a sandbox
//! is not here.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kit::{
    digest::Digest,
    folder::{self, FolderError, Lock},
};
use serde::{Deserialize, Serialize};

use super::{Recipe, error::ImageError};

/// An image that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    /// What runs name it by; none of the recipes'.
    pub name: String,
    /// What the user called it, for people: it is never looked up again.
    pub reference: String,
    /// The engine's content id of that at the time.
    pub content_id: Digest,
    /// One line.
    pub description: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: u32,
    images: Vec<Added>,
}

const SCHEMA: u32 = 1;
const IMAGES_MAX: usize = 64;
const FILE_BYTES_MAX: u64 = 256 << 10;
pub(super) const DESCRIPTION_CHARS_MAX: usize = 200;
pub(super) const REFERENCE_BYTES_MAX: usize = 300;

/// The file.
#[derive(Debug, Clone)]
pub(super) struct AllowList {
    path: PathBuf,
}

impl AllowList {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("images.json") }
    }

    fn wrong(&self, reason: impl Into<String>) -> ImageError {
        ImageError::AllowList { path: self.path.clone(), reason: reason.into() }
    }

    /// All of them; none where there is no file.
    pub(super) fn read(&self) -> Result<Vec<Added>, ImageError> {
        let text = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Ok(found) if found.len() > FILE_BYTES_MAX => return Err(self.wrong("it is too large to be ours")),
            Ok(_) => fs::read(&self.path),
            Err(error) => Err(error),
        };
        let text = text.map_err(|e| ImageError::io("read", &self.path, e))?;
        let stored: Stored = serde_json::from_slice(&text).map_err(|e| self.wrong(e.to_string()))?;
        if stored.schema != SCHEMA {
            return Err(self.wrong(format!("schema: {} is not this program's {SCHEMA}", stored.schema)));
        }
        self.check(&stored.images)?;
        Ok(stored.images)
    }

    fn check(&self, images: &[Added]) -> Result<(), ImageError> {
        if images.len() > IMAGES_MAX {
            return Err(self.wrong(format!("images: more than {IMAGES_MAX}: remove one first")));
        }
        for (number, image) in images.iter().enumerate() {
            check_entry(image).map_err(|reason| self.wrong(format!("images[{number}].{reason}")))?;
            if images[..number].iter().any(|other| other.name == image.name) {
                return Err(self.wrong(format!("images[{number}].name: `{}` is there twice", image.name)));
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<Added>, ImageError> {
        Ok(self.read()?.into_iter().find(|image| image.name == name))
    }

    /// Adds one; the same one again is no error.
    pub(super) fn add(&self, added: Added) -> Result<(), ImageError> {
        self.change(|images| {
            match images.iter_mut().find(|image| image.name == added.name) {
                None => images.push(added),
                Some(there) if there.content_id == added.content_id => *there = added,
                Some(there) => {
                    return Err(ImageError::Taken { name: added.name, reference: there.reference.clone() });
                }
            }
            Ok(())
        })
    }

    /// Takes one off; whether it was there.
    pub(super) fn remove(&self, name: &str) -> Result<bool, ImageError> {
        self.change(|images| {
            let before = images.len();
            images.retain(|image| image.name != name);
            Ok(images.len() < before)
        })
    }

    /// Read, changed, checked and replaced whole; two that change it at the same time do so one after the other.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Added>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        if let Some(folder) = self.path.parent() {
            folder::create_private(folder)?;
        }
        let _held = match Lock::take(&self.path.with_extension("lock")) {
            Err(FolderError::Locked { pid, .. }) => {
                return Err(self.wrong(format!("process {pid} is changing it: try again")));
            }
            other => other?,
        };
        let mut images = self.read()?;
        let done = change(&mut images)?;
        self.check(&images)?;
        let text = serde_json::to_vec_pretty(&Stored { schema: SCHEMA, images })
            .map_err(|e| self.wrong(e.to_string()))?;
        folder::replace(&self.path, &text)?;
        Ok(done)
    }
}

/// What is wrong with an entry, the field first.
pub(super) fn check_entry(image: &Added) -> Result<(), String> {
    kit::name::check_name(&image.name).map_err(|e| format!("name: {e}"))?;
    if Recipe::named(&image.name).is_some() {
        return Err(format!("name: `{}` is one of this program's own images", image.name));
    }
    let reference = &image.reference;
    let plain = reference.bytes().all(|b| b.is_ascii_graphic()) && !reference.starts_with('-');
    if reference.is_empty() || reference.len() > REFERENCE_BYTES_MAX || !plain {
        return Err(format!(
            "reference: 1 to {REFERENCE_BYTES_MAX} letters without spaces, like `python:3.12`"
        ));
    }
    let description = &image.description;
    if description.chars().count() > DESCRIPTION_CHARS_MAX || description.chars().any(char::is_control) {
        return Err(format!("description: one line of at most {DESCRIPTION_CHARS_MAX} letters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str) -> Added {
        Added {
            name: name.to_owned(),
            reference: "python:3.12".to_owned(),
            content_id: Digest::of(b"content"),
            description: "mine".to_owned(),
        }
    }

    #[test]
    fn what_is_added_is_there_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let list = AllowList::new(&data);
        assert_eq!(list.read().unwrap(), []);
        assert!(!data.exists(), "looking leaves nothing");
        list.add(added("one")).unwrap();
        list.add(added("two")).unwrap();
        list.add(Added { description: "again".to_owned(), ..added("one") }).unwrap();
        assert_eq!(AllowList::new(&data).find("one").unwrap().unwrap().description, "again");
        let other = Added { content_id: Digest::of(b"other"), ..added("one") };
        let refused = list.add(other).unwrap_err().to_string();
        assert!(refused.contains("`one`") && refused.contains("image remove one"), "{refused}");
        assert!(list.remove("one").unwrap() && !list.remove("one").unwrap());
        assert_eq!(list.read().unwrap(), [added("two")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let list = AllowList::new(folder.path());
        let entry = |name: &str, more: &str| {
            let id = Digest::of(b"");
            format!(r#"{{"name":"{name}","reference":"x","content_id":"{id}","description":""{more}}}"#)
        };
        let file = |schema: u32, images: &str| format!(r#"{{"schema":{schema},"images":[{images}]}}"#);
        for (text, word) in [
            (file(2, ""), "schema"),
            (file(1, &entry("a", r#","colour":1"#)), "colour"),
            (file(1, &entry("A", "")), "images[0].name"),
            (file(1, &entry("lite", "")), "lite"),
            (file(1, &[entry("a", ""), entry("a", "")].join(",")), "images[1].name"),
            (file(1, &(0..65).map(|n| entry(&format!("n{n}"), "")).collect::<Vec<_>>().join(",")), "64"),
            ("{".to_owned(), "images.json"),
            (" ".repeat(300 << 10), "too large"),
        ] {
            fs::write(folder.path().join("images.json"), &text).unwrap();
            let error = list.read().unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("images.json"), "{word}: {error}");
            // A file that is not understood is not written over.
            assert!(list.add(added("b")).is_err());
        }
        for wrong in [
            Added { description: "two\nlines".to_owned(), ..added("a") },
            Added { description: "x".repeat(201), ..added("a") },
            Added { reference: "a b".to_owned(), ..added("a") },
            Added { reference: "--all".to_owned(), ..added("a") },
            Added { reference: String::new(), ..added("a") },
        ] {
            assert!(check_entry(&wrong).is_err(), "{wrong:?}");
        }
    }
}
