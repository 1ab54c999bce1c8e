//! The recipes: what goes into each image, embedded, so that a worker is one file. A recipe's digest is over every
//! byte of it; an image is found by that digest, so a changed recipe is another image and an old one is never used.

use kit::{
    digest::{Digest, Hasher},
    size::Bytes,
};

/// A package in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// As its index spells it, in lower case.
    pub name: String,
    /// The one that is installed.
    pub version: String,
}

/// What an image is made from.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// On the allow-list.
    pub name: &'static str,
    /// One line for people and for the planner.
    pub description: &'static str,
    /// Free space that building takes: the image, and what pip unpacks beside it.
    pub disk_needed: Bytes,
    dockerfile: &'static str,
    lock: &'static str,
}

macro_rules! sandbox_image {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox-images/", $path))
    };
}

/// Every image there is, the default last.
pub const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "lite",
        description: "Python with numpy and scikit-learn",
        disk_needed: Bytes(2 << 30),
        dockerfile: sandbox_image!("lite/Dockerfile"),
        lock: sandbox_image!("lite/requirements.lock"),
    },
    Recipe {
        name: "torch",
        description: "PyTorch with its CUDA libraries, numpy, scikit-learn, tokenizers and matplotlib",
        disk_needed: Bytes(12 << 30),
        dockerfile: sandbox_image!("torch/Dockerfile"),
        lock: sandbox_image!("torch/requirements.lock"),
    },
];

/// In every image: the Python side of a run.
pub(super) const RUNNER_FILES: [(&str, &str); 5] = [
    ("runner/runner.py", sandbox_image!("runner/runner.py")),
    ("runner/lib/autoresearch/__init__.py", sandbox_image!("runner/lib/autoresearch/__init__.py")),
    ("runner/lib/autoresearch/_metrics.py", sandbox_image!("runner/lib/autoresearch/_metrics.py")),
    ("runner/lib/autoresearch/_run.py", sandbox_image!("runner/lib/autoresearch/_run.py")),
    ("runner/lib/autoresearch/_streams.py", sandbox_image!("runner/lib/autoresearch/_streams.py")),
];
/// In every image of a recipe.
const INSTALLER: (&str, &str) = ("build/install.py", sandbox_image!("build/install.py"));

/// What is done on the base, the same for every recipe and on both roads: the Dockerfiles say it to an engine, and
/// [`super::native`] does it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The recipe's files below `from` become files below `to`.
    Copy { from: &'static str, to: &'static str },
    /// A program, looked for in the usual places.
    Run(&'static [&'static str]),
}

pub(super) const STEPS: [Step; 4] = [
    Step::Copy { from: "build/", to: "/opt/autoresearch/build/" },
    Step::Run(&["python3", "/opt/autoresearch/build/install.py"]),
    Step::Copy { from: "runner/", to: "/opt/autoresearch/" },
    Step::Run(&[
        "python3",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        "/opt/autoresearch",
    ]),
];

impl std::fmt::Display for Step {
    /// As a Dockerfile has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy { from, to } => write!(f, "COPY {from} {to}"),
            Self::Run(words) => write!(f, "RUN {}", words.join(" ")),
        }
    }
}

impl Recipe {
    /// By name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        RECIPES.iter().find(|recipe| recipe.name == name)
    }

    fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let own = [("Dockerfile", self.dockerfile), ("build/requirements.lock", self.lock), INSTALLER];
        own.into_iter().chain(RUNNER_FILES)
    }

    /// The files below a folder of the context, named from there.
    pub(super) fn files_below(&self, folder: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.files().filter_map(move |(name, text)| Some((name.strip_prefix(folder)?, text)))
    }

    /// Of every file, with its name and length, so that no two recipes run together into one.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (name, text) in self.files() {
            hasher.update(format!("{name} {}\n", text.len()).as_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }

    /// `autoresearch/NAME:DIGEST12`.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("autoresearch/{}:{}", self.name, self.digest().short())
    }

    /// What the lock file installs.
    #[must_use]
    pub fn packages(&self) -> Vec<Package> {
        parse_lock(self.lock)
    }

    /// The build context, as the engine takes it: a tar with nothing of this host in it.
    ///
    /// # Errors
    /// None that memory does not give.
    pub fn context(&self) -> std::io::Result<Vec<u8>> {
        context(self.files())
    }
}

/// A build context of these files, with nothing of this host in it.
///
/// # Errors
/// None that memory does not give.
pub(super) fn context(files: impl Iterator<Item = (&'static str, &'static str)>) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()
}

/// Lines like `numpy==2.4.6 \`; hashes and comments are left out.
fn parse_lock(text: &str) -> Vec<Package> {
    text.lines()
        .filter(|line| !line.starts_with([' ', '#', '-']))
        .filter_map(|line| line.trim_end_matches(['\\', ' ']).split_once("=="))
        .map(|(name, version)| Package { name: name.to_owned(), version: version.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_locked_package_has_a_hash_and_the_promised_ones_are_there() {
        for recipe in &RECIPES {
            let packages = recipe.packages();
            assert_eq!(recipe.lock.matches("--hash=sha256:").count(), packages.len(), "{}", recipe.name);
            assert!(!recipe.lock.contains("://"), "a lock file names no host");
        }
        let has = |image: &str, package: &str| {
            Recipe::named(image).is_some_and(|r| r.packages().iter().any(|p| p.name == package))
        };
        for package in ["numpy", "scikit-learn"] {
            assert!(has("lite", package) && has("torch", package), "{package}");
        }
        for package in ["torch", "tokenizers", "matplotlib", "nvidia-cublas"] {
            assert!(has("torch", package), "{package}");
        }
        assert!(!has("lite", "torch") && Recipe::named("Torch").is_none());
    }

    #[test]
    fn a_digest_is_of_every_byte_and_the_same_each_time() {
        let [lite, torch] = &RECIPES;
        assert_eq!(lite.digest(), lite.digest());
        assert_ne!(lite.digest(), torch.digest());
        let changed = Recipe { lock: "numpy==1 \\\n", ..*lite };
        assert_ne!(lite.digest(), changed.digest());
        assert_eq!(lite.tag(), format!("autoresearch/lite:{}", lite.digest().short()));
    }

    #[test]
    fn the_context_has_the_files_and_nothing_of_this_host() {
        let context = RECIPES[0].context().unwrap();
        let mut archive = tar::Archive::new(context.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (header.uid().unwrap(), header.mtime().unwrap(), header.mode().unwrap()),
                (0, 0, 0o644)
            );
            names.push(entry.path().unwrap().display().to_string());
        }
        assert!(names.contains(&"Dockerfile".to_owned()) && names.contains(&"runner/runner.py".to_owned()));
        assert_eq!(context, RECIPES[0].context().unwrap());
    }

    #[test]
    fn the_dockerfiles_do_these_steps_on_the_base_and_no_others() {
        let expected = STEPS.map(|step| step.to_string());
        for recipe in &RECIPES {
            let steps = recipe
                .dockerfile
                .lines()
                .filter(|l| ["RUN ", "COPY ", "ADD "].iter().any(|w| l.starts_with(w)));
            // The first one brings Python to a registry's Debian.
            let steps: Vec<&str> = steps.skip(1).collect();
            assert_eq!(steps, expected, "{}", recipe.name);
            for word in ["ENTRYPOINT", "CMD ", "ENV ", "USER ", "VOLUME ", "WORKDIR "] {
                assert!(!recipe.dockerfile.contains(&format!("\n{word}")), "{word}");
            }
        }
        let below: Vec<&str> = RECIPES[0].files_below("build/").map(|(name, _)| name).collect();
        assert_eq!(below, ["requirements.lock", "install.py"]);
    }

    #[test]
    fn the_lock_is_read_as_pip_writes_it() {
        let text = "# made by\n--only-binary :all:\na-b==1.2.3 \\\n    --hash=sha256:00\nc==4\n";
        let found = parse_lock(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("a-b", "1.2.3"));
        assert_eq!(found[1].version, "4");
    }
}
