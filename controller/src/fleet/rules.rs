//! How the rules of a worker's sandboxes stand on its host, as it says itself: for `doctor`, and for the report of a
//! campaign that ran there.

use std::fmt::{self, Write as _};

use kit::text::one_line;
use proto::v1::{Backend, Enforcement, GetWorkerResponse, Rule};

/// Of a worker's text on a terminal, in characters.
const TEXT_CHARS_MAX: usize = 400;

/// A rule's standing as one word or two.
#[must_use]
pub fn enforcement_word(rule: &Rule) -> &'static str {
    match rule.enforcement() {
        Enforcement::Enforced => "enforced",
        Enforcement::Weaker => "weaker",
        Enforcement::NotEnforced => "not enforced",
        // A later worker's word: what is not known is not relied on.
        Enforcement::Unspecified => "unknown",
    }
}

/// The rules that are not wholly enforced, worst first, each group in the worker's order.
#[must_use]
pub fn not_whole(backend: &Backend) -> Vec<&Rule> {
    let mut rules: Vec<&Rule> =
        backend.rules.iter().filter(|rule| rule.enforcement() != Enforcement::Enforced).collect();
    rules.sort_by_key(|rule| match rule.enforcement() {
        Enforcement::NotEnforced => 0,
        Enforcement::Unspecified => 1,
        Enforcement::Weaker | Enforcement::Enforced => 2,
    });
    rules
}

/// The backend that makes a campaign's sandboxes: the one that was asked for, else the first that is there.
#[must_use]
pub fn backend_in_use<'a>(worker: &'a GetWorkerResponse, asked: &str) -> Option<&'a Backend> {
    let fits = |backend: &&Backend| backend.available && (asked.is_empty() || backend.name == asked);
    worker.backends.iter().find(fits)
}

/// For a report: the backend, and each rule that this host did not wholly enforce, by name.
#[must_use]
pub fn in_short(backend: &Backend) -> String {
    let mut text = format!("{} {}", one_line(&backend.name, 40), one_line(&backend.version, 80));
    let open = not_whole(backend);
    if backend.rules.is_empty() {
        text.push_str(": it says nothing of its rules");
    } else if open.is_empty() {
        write!(text, ": all {} rules enforced", backend.rules.len()).unwrap_or_default();
    } else {
        let named =
            open.iter().map(|rule| format!("{} {}", one_line(&rule.name, 40), enforcement_word(rule)));
        let named: Vec<String> = named.collect();
        let enforced = backend.rules.len() - open.len();
        write!(text, ": {enforced} rules enforced; {}", named.join(", ")).unwrap_or_default();
    }
    text
}

/// For a terminal: what is enforced in one line, everything else in full with the command that mends it.
///
/// # Errors
/// Never, where `out` is a string.
pub fn in_full(out: &mut impl fmt::Write, backend: &Backend) -> fmt::Result {
    let line = |text: &str| one_line(text, TEXT_CHARS_MAX);
    let state = if backend.available {
        "available".to_owned()
    } else {
        format!("not available: {}", line(&backend.reason))
    };
    writeln!(out, "backend      {} {}: {state}", line(&backend.name), line(&backend.version))?;
    let open = not_whole(backend);
    let enforced = backend.rules.len() - open.len();
    if enforced > 0 {
        let all = if open.is_empty() { "all " } else { "" };
        writeln!(out, "  {all}{enforced} rules enforced")?;
    }
    for rule in open {
        let word = enforcement_word(rule);
        writeln!(out, "  {:20} {}", word.to_uppercase(), line(&rule.name))?;
        if !rule.detail.is_empty() {
            writeln!(out, "  {:20} {}", "", line(&rule.detail))?;
        }
        if !rule.remedy.is_empty() {
            writeln!(out, "  {:20} to mend it: {}", "", line(&rule.remedy))?;
        }
    }
    for warning in &backend.warnings {
        writeln!(out, "  {:20} {}", "WARNING", line(warning))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, enforcement: Enforcement, detail: &str, remedy: &str) -> Rule {
        Rule {
            name: name.into(),
            enforcement: enforcement.into(),
            detail: detail.into(),
            remedy: remedy.into(),
        }
    }

    fn docker() -> Backend {
        Backend {
            name: "docker".into(),
            version: "20.10.5".into(),
            available: true,
            rules: vec![
                rule("memory", Enforcement::Enforced, "the cgroup's limit", ""),
                rule("versions", Enforcement::Weaker, "runc 1.0\x1b[2J\nis old", "sudo apt-get upgrade runc"),
                rule("swap", Enforcement::NotEnforced, "no controller for it", "swapoff -a"),
                rule("network", Enforcement::Enforced, "", ""),
                rule("later", Enforcement::Unspecified, "", ""),
            ],
            warnings: vec!["No blkio".into()],
            ..Backend::default()
        }
    }

    #[test]
    fn what_is_enforced_is_one_line_and_the_rest_is_told_worst_first() {
        let mut text = String::new();
        in_full(&mut text, &docker()).unwrap();
        assert_eq!(
            text,
            "backend      docker 20.10.5: available\n\
             \x20 2 rules enforced\n\
             \x20 NOT ENFORCED         swap\n\
             \x20                      no controller for it\n\
             \x20                      to mend it: swapoff -a\n\
             \x20 UNKNOWN              later\n\
             \x20 WEAKER               versions\n\
             \x20                      runc 1.0\\u{1b}[2J is old\n\
             \x20                      to mend it: sudo apt-get upgrade runc\n\
             \x20 WARNING              No blkio\n"
        );
    }

    #[test]
    fn a_report_names_every_rule_that_is_open() {
        assert_eq!(
            in_short(&docker()),
            "docker 20.10.5: 2 rules enforced; swap not enforced, later unknown, versions weaker"
        );
        let mut whole = docker();
        whole.rules.retain(|rule| rule.enforcement() == Enforcement::Enforced);
        assert_eq!(in_short(&whole), "docker 20.10.5: all 2 rules enforced");
        whole.rules.clear();
        assert!(in_short(&whole).ends_with("it says nothing of its rules"));
    }

    #[test]
    fn the_backend_in_use_is_the_one_asked_for_or_the_first_that_is_there() {
        let native = Backend { name: "native".into(), ..docker() };
        let away = Backend { available: false, ..docker() };
        let worker = GetWorkerResponse { backends: vec![away, native], ..Default::default() };
        assert_eq!(backend_in_use(&worker, "").unwrap().name, "native");
        assert_eq!(backend_in_use(&worker, "native").unwrap().name, "native");
        assert!(backend_in_use(&worker, "docker").is_none());
    }
}
