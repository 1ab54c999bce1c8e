//! `autoresearch-worker dataset add|list|show|verify|remove`.

use std::{
    fmt::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kit::{
    clock::{SystemClock, wall_ns},
    digest::Digest,
    size::Bytes,
};
use serde_json::json;

use super::{CommandResult, Common, Flags, Output, data_dir, print};
use crate::datasets::{
    Bounds, Committed, DataSetError, FetchRules, Manifest, Removed, Replace, Store,
    add::{AddRequest, Source, add},
    catalogue::Catalogue,
};

/// Between two lines of progress.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// Keep data sets that runs read at /data/NAME
#[derive(Debug, clap::Subcommand)]
pub(super) enum Dataset {
    /// Take a data set in: a file, a folder, an address, or, with NAME alone, what the catalogue says
    ///
    /// It is verified while it is copied and kept read-only; runs name it and find it with ar.dataset(NAME). A folder may
    /// hold regular files and folders only. An archive is never unpacked: it stays a file, which the program opens
    /// itself.
    Add {
        /// What runs call it
        name: String,
        /// A file, a folder, or http(s)://…; without it, NAME is looked up in the catalogue
        source: Option<String>,
        /// Take nothing else: of a file its SHA-256, of a folder the digest that `dataset add` prints
        #[arg(long, value_name = "HEX", value_parser = digest)]
        sha256: Option<Digest>,
        /// What it is and how it is laid out, for the planner
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Let it take the place of another content of the same name
        #[arg(long)]
        replace: bool,
        /// Look NAME up in this catalogue instead of the one that ships
        #[arg(long, value_name = "FILE", conflicts_with = "source")]
        catalogue: Option<PathBuf>,
        /// Print as
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// List the data sets of this worker, and what the catalogue has besides
    List {
        /// Print as
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Tell all about one
    Show {
        /// Which one
        name: String,
        /// Print as
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Read every byte of one and compare it with its digest
    Verify {
        /// Which one
        name: String,
    },
    /// Forget one; runs that use it go on
    Remove {
        /// Which one
        name: String,
    },
}

fn digest(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{}", hex.to_ascii_lowercase())
        .parse()
        .map_err(|_| "64 hexadecimal digits are wanted".to_owned())
}

impl Dataset {
    pub(super) async fn run(&self, common: &Common) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        match self {
            Self::Add { name, source, sha256, description, replace, catalogue, output } => {
                let source = match source {
                    Some(text) => Source::of(text),
                    None => {
                        let known = catalogue.as_deref().map_or_else(Catalogue::shipped, Catalogue::read)?;
                        Source::Catalogue(known.find(name)?.clone())
                    }
                };
                let request = AddRequest {
                    name: name.clone(),
                    source,
                    sha256: *sha256,
                    description: description.clone(),
                    replace: if *replace { Replace::Yes } else { Replace::No },
                    bounds: Bounds::of(config.datasets.largest.0),
                    rules: FetchRules::default(),
                    wall_ns: wall_ns(SystemClock::shared().wall()),
                };
                let store = Store::open(&folder)?;
                let (manifest, committed) = add(&store, request, &teller()).await?;
                print(&added(&manifest, committed, *output)?)?;
            }
            Self::List { output } => print(&list(&Store::at(&folder).list()?, *output)?)?,
            Self::Show { name, output } => print(&show(&Store::at(&folder).find(name)?, *output)?)?,
            Self::Verify { name } => {
                let manifest = Store::at(&folder).verify(name, &teller())?;
                print(&format!("{name} is whole: {}\n", manifest.digest))?;
            }
            Self::Remove { name } => {
                let store = Store::at(&folder);
                match store.find(name) {
                    // A record that cannot be read can still be removed.
                    Ok(_) | Err(DataSetError::Damaged { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                let said = match store.remove(name)? {
                    Removed::Gone => "removed",
                    Removed::Kept => "removed; its files go when the runs that use them have ended",
                };
                print(&format!("{name} {said}\n"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Progress for a person, on standard error, now and then.
fn teller() -> impl Fn(&str, u64, Option<u64>) + Send + Sync {
    let clock = SystemClock::shared();
    let last = Mutex::new((String::new(), clock.monotonic()));
    move |what: &str, done: u64, total: Option<u64>| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.monotonic();
        if last.0 == what && now.saturating_sub(last.1) < TOLD_EVERY {
            return;
        }
        *last = (what.to_owned(), now);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        match total {
            Some(total) if total > 0 => {
                tracing::info!("{what}: {:.1} of {:.1} MiB", mib(done), mib(total));
            }
            _ => tracing::info!("{what}: {:.1} MiB", mib(done)),
        }
    }
}

fn json_of(manifest: &Manifest) -> Result<serde_json::Value, serde_json::Error> {
    let mut value = serde_json::to_value(manifest)?;
    value["path"] = json!(manifest.path_inside());
    Ok(value)
}

fn added(manifest: &Manifest, committed: Committed, output: Output) -> Result<String, serde_json::Error> {
    let word = match committed {
        Committed::New => "added",
        Committed::Same => "was there already",
        Committed::Replaced => "replaced",
    };
    Ok(match output {
        Output::Text => format!(
            "{} {word}: {} files, {}, at {}\n{}\n",
            manifest.name,
            manifest.files,
            Bytes(manifest.size_bytes),
            manifest.path_inside(),
            manifest.digest
        ),
        Output::Json => {
            let mut value = json_of(manifest)?;
            value["added"] = json!(word);
            format!("{value}\n")
        }
    })
}

fn list(all: &[Manifest], output: Output) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let catalogue = Catalogue::shipped()?;
    let more = catalogue.entries().iter().filter(|entry| !all.iter().any(|m| m.name == entry.name));
    if output == Output::Json {
        let all = all.iter().map(json_of).collect::<Result<Vec<_>, _>>()?;
        let more: Vec<_> =
            more.map(|entry| json!({ "name": entry.name, "description": entry.description })).collect();
        return Ok(format!("{}\n", json!({ "data_sets": all, "catalogue": more })));
    }
    let mut text = String::new();
    for manifest in all {
        let size = Bytes(manifest.size_bytes).to_string();
        let (name, files, digest) = (&manifest.name, manifest.files, manifest.digest.short());
        writeln!(text, "{name:<20} {size:>12} {files:>8} files  {digest}  {}", manifest.description)?;
    }
    for entry in more {
        writeln!(text, "{:<20} {:>12} {:>14}  {}", entry.name, "-", "not added", entry.description)?;
    }
    Ok(text)
}

fn show(manifest: &Manifest, output: Output) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    if output == Output::Json {
        return Ok(format!("{}\n", json_of(manifest)?));
    }
    let mut text = String::new();
    for (name, value) in [
        ("name", manifest.name.clone()),
        ("path in a run", manifest.path_inside()),
        ("digest", manifest.digest.to_string()),
        ("size", Bytes(manifest.size_bytes).to_string()),
        ("files", manifest.files.to_string()),
        ("description", manifest.description.clone()),
        ("licence", manifest.licence.clone()),
        ("source", manifest.source.clone()),
    ] {
        writeln!(text, "{name:<14} {value}")?;
    }
    for file in &manifest.first_files {
        writeln!(text, "  {} {:>12} {}", file.digest, file.size_bytes, file.path)?;
    }
    let more = u64::from(manifest.files).saturating_sub(manifest.first_files.len() as u64);
    if more > 0 {
        writeln!(text, "  and {more} more")?;
    }
    Ok(text)
}
