//! What was asked for and what it came to, as digests: the request (an image and requirements), and the lock (an image
//! and exact versions with their hashes). The tool's answer is checked here before any of it is believed.

use std::fmt::Write as _;

use kit::{
    digest::Digest,
    requirement::{check_requirement, normal_name},
};
use serde::{Deserialize, Serialize};

/// Packages that one request may come to, dependencies included.
pub(super) const PACKAGES_MAX: usize = 512;

/// A package that a run has besides its image's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// As indexes compare it.
    pub name: String,
    /// Exact.
    pub version: String,
}

/// A package with the hash of its wheel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Locked {
    pub(super) name: String,
    pub(super) version: String,
    /// 64 hexadecimal digits.
    pub(super) sha256: String,
}

/// Exact versions, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lock(pub(super) Vec<Locked>);

impl Lock {
    /// Checks what the tool answered.
    pub(super) fn check(mut found: Vec<Locked>) -> Result<Self, String> {
        if found.len() > PACKAGES_MAX {
            return Err(format!("the request comes to {} packages; at most {PACKAGES_MAX}", found.len()));
        }
        for package in &found {
            let Locked { name, version, sha256 } = package;
            let plain = check_requirement(&format!("{name}=={version}")).is_ok();
            if !plain || *name != normal_name(name) || version.contains([',', '*', ' ', ';']) {
                let shown = kit::text::one_line(&format!("{name} {version}"), 80);
                return Err(format!("the resolver answered `{shown}`, which is no package"));
            }
            if format!("sha256:{sha256}").parse::<Digest>().is_err() {
                return Err(format!("the index gives no SHA-256 for {name} {version}"));
            }
        }
        found.sort();
        found.dedup();
        Ok(Self(found))
    }

    /// Names the layer: the same wheels for the same image's Python are the same tree.
    pub(super) fn digest(&self, image_id: &str) -> Digest {
        Digest::of(format!("packages 1\n{image_id}\n{}", self.text()).as_bytes())
    }

    /// As pip reads it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Locked { name, version, sha256 } in &self.0 {
            // Writing into a String cannot fail.
            writeln!(text, "{name}=={version} --hash=sha256:{sha256}").ok();
        }
        text
    }

    pub(super) fn packages(&self) -> Vec<Package> {
        self.0.iter().map(|p| Package { name: p.name.clone(), version: p.version.clone() }).collect()
    }
}

/// Names a request; the order in which the requirements came means nothing.
pub(super) fn request(image_id: &str, requirements: &[String]) -> Digest {
    let mut sorted: Vec<String> =
        requirements.iter().map(|r| r.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    sorted.sort();
    sorted.dedup();
    Digest::of(format!("request 1\n{image_id}\n{}", sorted.join("\n")).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(name: &str, version: &str, sha256: &str) -> Locked {
        Locked { name: name.into(), version: version.into(), sha256: sha256.into() }
    }

    #[test]
    fn the_order_of_requirements_means_nothing_and_the_image_does() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let one = request("sha256:1", &list(&["a==1", "b  >1"]));
        assert_eq!(one, request("sha256:1", &list(&["b >1", "a==1", "a==1"])));
        assert_ne!(one, request("sha256:2", &list(&["a==1", "b >1"])));
        assert_ne!(one, request("sha256:1", &list(&["a==1"])));
    }

    #[test]
    fn what_the_tool_says_is_not_believed_blindly() {
        let hash = "0".repeat(64);
        let lock = Lock::check(vec![locked("b", "1", &hash), locked("a", "2.0+cu1", &hash)]).unwrap();
        assert!(lock.text().starts_with("a==2.0+cu1 --hash=sha256:000"), "{}", lock.text());
        for wrong in [
            locked("a", "1", ""),
            locked("a", "1", &"g".repeat(64)),
            locked("A", "1", &hash),
            locked("../a", "1", &hash),
            locked("a", "1 --pre", &hash),
            locked("a", "1\n-r /etc/passwd", &hash),
            locked("-r", "1", &hash),
            locked("a", "1,<2", &hash),
        ] {
            assert!(Lock::check(vec![wrong.clone()]).is_err(), "{wrong:?}");
        }
        assert!(Lock::check(vec![locked("a", "1", &hash); PACKAGES_MAX + 1]).is_err());
    }
}
