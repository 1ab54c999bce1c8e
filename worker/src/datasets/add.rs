//! Taking a data set in: copied or fetched into a staging folder, compared with what was named, made into an image, and only
//! then given its name. A kill at any moment before that leaves the store as it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{digest::Digest, size::Bytes};
use md5::{Digest as _, Md5};
use reqwest::Url;
use rustix::fs::FileType;

use super::{
    Bounds, Committed, DataSetError, FetchRules, FileEntry, Manifest, Progress, Replace, Shape, Store,
    catalogue::{CatalogueFile, Entry},
    extract,
    fetch::{self, Fetcher},
    image,
    manifest::{DESCRIPTION_MAX, NAMED_MAX, VERSION, folder_digest},
    store, walk,
};

/// Where it comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file or a folder of this machine.
    Path(PathBuf),
    /// One file, http or https.
    Url(String),
    /// By the catalogue's word.
    Catalogue(Entry),
}

impl Source {
    /// `http://` and `https://` are addresses, everything else is a path.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme {
            // Also another scheme: a path with these letters is none that anybody has.
            Some(scheme) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => Self::Url(text.to_owned()),
            _ => Self::Path(PathBuf::from(text)),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct AddRequest {
    /// What it will be called.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Of a file its SHA-256; of a folder the digest that an addition prints.
    pub sha256: Option<Digest>,
    /// For a planner. `None`: the catalogue's, or nothing.
    pub description: Option<String>,
    /// Whether another content may give way.
    pub replace: Replace,
    /// How large it may be.
    pub bounds: Bounds,
    /// How patient a fetch is.
    pub rules: FetchRules,
    /// Now.
    pub wall_ns: i64,
}

/// What is in the staging folder.
struct Staged {
    shape: Shape,
    files: Vec<FileEntry>,
    source: String,
}

/// Takes a data set in.
///
/// # Errors
/// [`DataSetError`]; then the store is as it was.
pub async fn add(
    store: &Store,
    request: AddRequest,
    progress: Progress<'_>,
) -> Result<(Manifest, Committed), DataSetError> {
    store::check_name(&request.name)?;
    let staging = store.begin()?;
    let content = staging.folder.join("content");
    fs::create_dir(&content).map_err(|e| DataSetError::io("create", &content, e))?;
    let staged = match &request.source {
        Source::Path(path) => from_path(path, &content, request.bounds, progress)?,
        Source::Url(text) => {
            let url = fetch::parse(text)?;
            if url.scheme() == "http" && request.sha256.is_none() {
                tracing::warn!("nobody vouches for what comes over http: name its digest with --sha256");
            }
            from_url(&url, &content, &request, progress).await?
        }
        Source::Catalogue(entry) => {
            from_catalogue(entry, &staging.folder, &content, &request, progress).await?
        }
    };
    let digest = match (&staged.shape, staged.files.as_slice()) {
        (Shape::File(_), [file]) => file.digest,
        (_, []) => return Err(DataSetError::entry(&staged.source, "there is no file in it")),
        (_, files) => folder_digest(files),
    };
    if let Some(wanted) = request.sha256.filter(|wanted| *wanted != digest) {
        return Err(other(&format!("what came from {}", staged.source), "SHA-256", wanted, digest));
    }
    let target = staging.folder.join("image");
    let (image_digest, image_bytes) = image::build(&content, &target, &staged.files, progress)?;
    let (described, licence) = match &request.source {
        Source::Catalogue(entry) => (entry.description.as_str(), entry.licence.as_str()),
        _ => ("", ""),
    };
    let description = request.description.as_deref().unwrap_or(described);
    let manifest = Manifest {
        version: VERSION,
        name: request.name,
        digest,
        size_bytes: staged.files.iter().map(|file| file.size_bytes).sum(),
        files: u32::try_from(staged.files.len()).unwrap_or(u32::MAX),
        first_files: staged.files.into_iter().take(NAMED_MAX).collect(),
        shape: staged.shape,
        description: kit::text::one_line(description, DESCRIPTION_MAX),
        licence: kit::text::one_line(licence, DESCRIPTION_MAX),
        source: kit::text::one_line(&staged.source, DESCRIPTION_MAX),
        added_wall_ns: request.wall_ns,
        image_digest,
        image_bytes,
    };
    let committed = store.commit(&manifest, &target, request.replace)?;
    Ok((manifest, committed))
}

fn other(what: &str, kind: &'static str, wanted: impl ToString, found: impl ToString) -> DataSetError {
    DataSetError::Digest { what: what.to_owned(), kind, wanted: wanted.to_string(), found: found.to_string() }
}

fn from_path(
    path: &Path,
    content: &Path,
    bounds: Bounds,
    progress: Progress<'_>,
) -> Result<Staged, DataSetError> {
    let shown = path.display().to_string();
    let source = fs::canonicalize(path).map_err(|e| DataSetError::io("open", path, e))?;
    let (mut file, kind, size) = walk::open_given(&source)?;
    match kind {
        FileType::Directory => {
            let files = walk::copy_folder(&file, content, bounds, progress)?;
            Ok(Staged { shape: Shape::Folder, files, source: shown })
        }
        FileType::RegularFile => {
            if size > bounds.bytes {
                return Err(DataSetError::TooLarge { what: shown, limit: Bytes(bounds.bytes) });
            }
            image::check_room(content, size)?;
            let name = source.file_name().unwrap_or_default().as_encoded_bytes();
            let name = walk::check_file_name(name).map_err(|problem| DataSetError::entry(&shown, problem))?;
            let mut done = 0;
            let copied = walk::copy(&mut file, size, &content.join(name), |count| {
                done += count;
                progress("copying", done, Some(size));
            })?;
            let digest = copied.map_err(|problem| DataSetError::entry(&shown, problem))?;
            let files = vec![FileEntry { path: name.to_owned(), size_bytes: size, digest }];
            Ok(Staged { shape: Shape::File(name.to_owned()), files, source: shown })
        }
        other => Err(DataSetError::entry(&shown, walk::kind(other))),
    }
}

async fn from_url(
    url: &Url,
    content: &Path,
    request: &AddRequest,
    progress: Progress<'_>,
) -> Result<Staged, DataSetError> {
    let name = file_name(url).unwrap_or_else(|| request.name.clone());
    let target = content.join(&name);
    let fetcher = Fetcher::new(request.rules)?;
    let size = fetcher.fetch(std::slice::from_ref(url), &target, request.bounds.bytes, progress).await?;
    let digest = image::hash(&target, "hashing", progress)?;
    walk::readable(&target, 0o444)?;
    let files = vec![FileEntry { path: name.clone(), size_bytes: size, digest }];
    Ok(Staged { shape: Shape::File(name), files, source: fetch::shown(url) })
}

/// The last part of an address, where it is a plain name.
fn file_name(url: &Url) -> Option<String> {
    let name = url.path_segments()?.next_back()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
    let good = (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.');
    good.then(|| name.to_owned())
}

async fn from_catalogue(
    entry: &Entry,
    staging: &Path,
    content: &Path,
    request: &AddRequest,
    progress: Progress<'_>,
) -> Result<Staged, DataSetError> {
    let fetcher = Fetcher::new(request.rules)?;
    let mut left = request.bounds.bytes;
    let mut files: Vec<FileEntry> = Vec::new();
    // What was fetched in this addition already: several files may be members of one archive.
    let mut archives: Vec<(Vec<String>, PathBuf)> = Vec::new();
    for file in &entry.file {
        let target = content.join(&file.name);
        let (size_bytes, digest) = match &file.member {
            None => pinned(&fetcher, file, &target, left, progress).await?,
            Some(member) => {
                let there =
                    archives.iter().find(|(urls, _)| *urls == file.urls).map(|(_, path)| path.clone());
                let archive = match there {
                    Some(archive) => archive,
                    None => {
                        let archive = staging.join(format!("archive-{}", archives.len()));
                        pinned(&fetcher, file, &archive, request.bounds.bytes, progress).await?;
                        archives.push((file.urls.clone(), archive.clone()));
                        archive
                    }
                };
                extract::member(&archive, member, file.first_bytes, &target, left, progress)?
            }
        };
        walk::readable(&target, 0o444)?;
        left = left.saturating_sub(size_bytes);
        files.push(FileEntry { path: file.name.clone(), size_bytes, digest });
    }
    files.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let shape = match files.as_slice() {
        [file] => Shape::File(file.path.clone()),
        _ => Shape::Folder,
    };
    let urls: Vec<&str> = entry.file.iter().filter_map(|file| Some(file.urls.first()?.as_str())).collect();
    Ok(Staged { shape, files, source: format!("catalogue: {}", urls.first().unwrap_or(&"")) })
}

/// Fetches a file of the catalogue and compares it with every checksum that the catalogue has for it.
async fn pinned(
    fetcher: &Fetcher,
    file: &CatalogueFile,
    target: &Path,
    limit: u64,
    progress: Progress<'_>,
) -> Result<(u64, Digest), DataSetError> {
    let urls = file.addresses()?;
    let limit = if file.size_bytes > 0 { limit.min(file.size_bytes) } else { limit };
    let size = fetcher.fetch(&urls, target, limit, progress).await?;
    let digest = image::hash(target, "hashing", progress)?;
    let what = format!("the file at {}", urls.first().map(fetch::shown).unwrap_or_default());
    if file.size_bytes > 0 && file.size_bytes != size {
        return Err(other(&what, "size", file.size_bytes, size));
    }
    match file.pin()? {
        Some(wanted) if wanted != digest => return Err(other(&what, "SHA-256", wanted, digest)),
        Some(_) => {}
        None if file.md5.is_empty() => tracing::warn!(%digest, "{what} is not pinned yet: this is what came"),
        None => tracing::info!(%digest, "{what} is pinned by its MD5 only"),
    }
    if !file.md5.is_empty() {
        let found = md5_of(target)?;
        if !found.eq_ignore_ascii_case(&file.md5) {
            return Err(other(&what, "MD5", &file.md5, found));
        }
    }
    Ok((size, digest))
}

/// Some publishers give nothing better. It tells a broken copy, not a forged one.
fn md5_of(path: &Path) -> Result<String, DataSetError> {
    use std::io::Read as _;
    let failed = |e| DataSetError::io("read", path, e);
    let mut file = fs::File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer) = (Md5::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
