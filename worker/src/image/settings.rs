//! The settings of the machine that a build needs and an image must not keep: certificate bundle, proxy, pip's index.
//! What is taken is a list, because most of what pip reads from its environment says where *this* user wants files.
//!
//! Proxies travel as build arguments that Docker itself leaves out of an image's history. The rest is handed over by
//! [`super::handover`], as JSON that `sandbox-images/build/install.py` reads:
//! `{"variables": {"PIP_CERT": "{folder}/ca.pem"}, "files": {"ca.pem": "…"}}`, `{folder}` being a folder in memory.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// What pip is told, if it is set here.
const PIP_VARIABLES: [&str; 7] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_TRUSTED_HOST",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_PROXY",
];
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"];
/// Who names a certificate bundle, the most particular first.
const BUNDLE_VARIABLES: [&str; 4] = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"];
/// Where distributions keep theirs: Debian, Fedora, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A bundle of every authority there is has 300 KiB; a file past this is none.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The settings of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostSettings {
    /// For pip's environment.
    variables: BTreeMap<String, String>,
    /// Texts by their name below the build's folder in memory.
    files: BTreeMap<String, String>,
    #[serde(skip)]
    proxies: HashMap<String, String>,
}

impl HostSettings {
    /// Of this process and this machine.
    #[must_use]
    pub fn read() -> Self {
        Self::collect(&|name| std::env::var(name).ok(), &read_text)
    }

    fn collect(variable: &dyn Fn(&str) -> Option<String>, file: &dyn Fn(&Path) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut found = Self::default();
        for name in PIP_VARIABLES {
            // A path on this machine means nothing in the build; pip would warn about each.
            let reachable = |value: &String| name != "PIP_FIND_LINKS" || value.contains("://");
            if let Some(value) = set(name).filter(reachable) {
                found.variables.insert(name.to_owned(), value);
            }
        }
        for name in PROXY_VARIABLES {
            for name in [name.to_owned(), name.to_lowercase()] {
                if let Some(value) = set(&name) {
                    found.proxies.insert(name, value);
                }
            }
        }
        let home = set("HOME").map(PathBuf::from);
        found.pip_files(&set, home.as_deref(), file);
        found.bundle(&set, file);
        found
    }

    /// pip's configuration files, each where pip looks for its kind in the build: the machine's, the user's, and the
    /// one that a variable names.
    fn pip_files(
        &mut self,
        set: &dyn Fn(&str) -> Option<String>,
        home: Option<&Path>,
        file: &dyn Fn(&Path) -> Option<String>,
    ) {
        if let Some(text) = file(Path::new("/etc/pip.conf")) {
            self.files.insert("machine/pip/pip.conf".to_owned(), text);
            self.variables.insert("XDG_CONFIG_DIRS".to_owned(), "{folder}/machine".to_owned());
        }
        let config = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home.map(|h| h.join(".config")));
        let user = [config.map(|c| c.join("pip/pip.conf")), home.map(|h| h.join(".pip/pip.conf"))];
        if let Some(text) = user.into_iter().flatten().find_map(|path| file(&path)) {
            self.files.insert("user/.config/pip/pip.conf".to_owned(), text);
            self.variables.insert("HOME".to_owned(), "{folder}/user".to_owned());
        }
        if let Some(text) = set("PIP_CONFIG_FILE").and_then(|path| file(Path::new(&path))) {
            self.files.insert("pip.conf".to_owned(), text);
            self.variables.insert("PIP_CONFIG_FILE".to_owned(), "{folder}/pip.conf".to_owned());
        }
    }

    fn bundle(&mut self, set: &dyn Fn(&str) -> Option<String>, file: &dyn Fn(&Path) -> Option<String>) {
        let named = BUNDLE_VARIABLES.iter().filter_map(|name| set(name));
        let configured = self.files.values().filter_map(|text| configured_bundle(text));
        let system = SYSTEM_BUNDLES.iter().map(|path| (*path).to_owned());
        let Some(text) = named.chain(configured).chain(system).find_map(|path| file(Path::new(&path))) else {
            return;
        };
        self.files.insert("ca.pem".to_owned(), text);
        for name in ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"] {
            self.variables.insert(name.to_owned(), "{folder}/ca.pem".to_owned());
        }
    }

    /// Writes the files below a folder that a tool sees at `seen`, and answers the variables that name them.
    pub(crate) fn write_below(&self, folder: &Path, seen: &str) -> std::io::Result<BTreeMap<String, String>> {
        for (name, text) in &self.files {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, text)?;
        }
        let named = |(name, value): (&String, &String)| (name.clone(), value.replace("{folder}", seen));
        Ok(self.variables.iter().map(named).collect())
    }

    /// Build arguments that Docker predefines, in both spellings where both are set.
    #[must_use]
    pub fn proxies(&self) -> &HashMap<String, String> {
        &self.proxies
    }
}

/// The path after `cert =` in a pip.conf.
fn configured_bundle(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "cert").then(|| value.trim().to_owned())
    });
    value.filter(|path| path.starts_with('/'))
}

fn read_text(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(variables: &[(&str, &str)], files: &[(&str, &str)]) -> HostSettings {
        let look = |list: &[(&str, &str)], key: &str| {
            list.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned())
        };
        HostSettings::collect(&|name| look(variables, name), &|path| look(files, path.to_str().unwrap()))
    }

    #[test]
    fn only_what_means_something_in_the_build_is_taken() {
        let found = collect(
            &[
                ("PIP_INDEX_URL", "https://index.example/simple"),
                ("PIP_FIND_LINKS", "/opt/wheels"),
                ("PIP_TARGET", "/home/me/site"),
                ("https_proxy", "http://proxy.example:3128"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("PIP_RETRIES", ""),
            ],
            &[],
        );
        assert_eq!(found.variables.len(), 1);
        assert_eq!(found.variables["PIP_INDEX_URL"], "https://index.example/simple");
        assert_eq!(found.proxies().len(), 1);
        assert!(!serde_json::to_string(&found).unwrap().contains("proxy.example"));
        let links = collect(&[("PIP_FIND_LINKS", "https://wheels.example/")], &[]);
        assert_eq!(links.variables["PIP_FIND_LINKS"], "https://wheels.example/");
    }

    #[test]
    fn the_most_particular_bundle_wins_and_one_that_is_not_there_does_not() {
        let system = ("/etc/ssl/certs/ca-certificates.crt", "system");
        let house = ("/house.pem", "house");
        assert_eq!(collect(&[], &[system]).files["ca.pem"], "system");
        assert_eq!(collect(&[("SSL_CERT_FILE", "/house.pem")], &[system, house]).files["ca.pem"], "house");
        assert_eq!(collect(&[("PIP_CERT", "/gone.pem")], &[system]).files["ca.pem"], "system");
        let configured = ("/etc/pip.conf", "[global]\ncert = /house.pem\n");
        let found = collect(&[], &[system, house, configured]);
        assert_eq!(found.files["ca.pem"], "house");
        assert_eq!(found.variables["PIP_CERT"], "{folder}/ca.pem");
        assert!(!collect(&[], &[]).variables.contains_key("PIP_CERT"));
    }

    #[test]
    fn each_pip_conf_lands_where_pip_looks_for_its_kind() {
        let found = collect(
            &[("HOME", "/home/me"), ("PIP_CONFIG_FILE", "/own.conf")],
            &[("/etc/pip.conf", "machine"), ("/home/me/.pip/pip.conf", "user"), ("/own.conf", "own")],
        );
        assert_eq!(found.files["machine/pip/pip.conf"], "machine");
        assert_eq!(found.files["user/.config/pip/pip.conf"], "user");
        assert_eq!(found.files["pip.conf"], "own");
        assert_eq!(found.variables["HOME"], "{folder}/user");
    }
}
