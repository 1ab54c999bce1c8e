//! A requirement as a plan or a person may write it: a package's name with extras, versions and a marker (PEP 508), like
//! `einops==0.8.0`. Nothing that names a place or an option: no URL, no path, no `@`, no leading `-`.
//!
//! Our own few lines and no crate, because what is wanted is a small part of PEP 508; whether a version makes sense is
//! for the resolver to say, and what it may be handed is for this to say.

/// Requirements of one run.
pub const REQUIREMENTS_MAX: usize = 32;
/// Bytes of one.
pub const REQUIREMENT_BYTES_MAX: usize = 200;
const NAME_BYTES_MAX: usize = 64;
const OPERATORS: [&str; 8] = ["===", "==", "!=", "~=", "<=", ">=", "<", ">"];

/// Why a text is no requirement.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no requirement ({problem}): a name and versions are wanted, like einops==0.8.0")]
pub struct RequirementError {
    /// Escaped and cut.
    text: String,
    problem: &'static str,
}

/// Checks one requirement.
///
/// # Errors
/// With the text, escaped and cut, and what is wrong with it.
pub fn check_requirement(text: &str) -> Result<(), RequirementError> {
    parse(text).map_err(|problem| RequirementError {
        text: text.chars().take(80).flat_map(char::escape_default).collect(),
        problem,
    })
}

/// The name that a sound requirement begins with, as package indexes compare it (PEP 503).
#[must_use]
pub fn requirement_name(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    normal_name(&text[..end.unwrap_or(text.len())])
}

/// A package's name as package indexes compare it: `Foo.bar__baz` is `foo-bar-baz`.
#[must_use]
pub fn normal_name(name: &str) -> String {
    let parts: Vec<&str> = name.split(['.', '_', '-']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_ascii_lowercase()
}

fn parse(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > REQUIREMENT_BYTES_MAX {
        return Err("it has more than 200 bytes");
    }
    if text.starts_with('-') {
        return Err("options are not taken");
    }
    if text.contains(['/', '\\', '@', ':']) {
        return Err("URLs and paths are not taken");
    }
    let (requirement, marker) = match text.split_once(';') {
        Some((requirement, marker)) => (requirement.trim(), Some(marker.trim())),
        None => (text.trim(), None),
    };
    if marker.is_some_and(|marker| !is_marker(marker)) {
        return Err("the marker after `;` has characters that none has");
    }
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    let (name, rest) = requirement.split_at(end.unwrap_or(requirement.len()));
    if !is_name(name) {
        return Err("it does not begin with a package's name");
    }
    let rest = extras(rest.trim_start())?.trim();
    let versions = match (rest.strip_prefix('('), rest.strip_suffix(')')) {
        (Some(inner), Some(_)) => inner[..inner.len() - 1].trim(),
        _ => rest,
    };
    if versions.is_empty() || versions.split(',').all(is_version) {
        Ok(())
    } else {
        Err("what follows the name is no list of versions")
    }
}

fn is_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    (1..=NAME_BYTES_MAX).contains(&name.len()) && edge(name.bytes().next()) && edge(name.bytes().last())
}

/// What is left after `[a,b]`.
fn extras(rest: &str) -> Result<&str, &'static str> {
    let Some(inner) = rest.strip_prefix('[') else { return Ok(rest) };
    let (names, rest) = inner.split_once(']').ok_or("`[` is not closed")?;
    let ok = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if names.split(',').map(str::trim).all(|name| is_name(name) && ok(name)) {
        Ok(rest)
    } else {
        Err("what stands in [] is no list of extras")
    }
}

fn is_version(clause: &str) -> bool {
    let clause = clause.trim();
    let Some(operator) = OPERATORS.into_iter().find(|operator| clause.starts_with(operator)) else {
        return false;
    };
    let version = clause[operator.len()..].trim();
    !version.is_empty()
        && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".*+!_-".contains(&b))
        && version.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_marker(marker: &str) -> bool {
    !marker.is_empty()
        && marker.bytes().all(|b| b.is_ascii_alphanumeric() || b" _.'\"<>=!~(),+*-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_versions_extras_and_markers_are_taken() {
        for good in [
            "einops",
            "einops==0.8.0",
            "einops >= 0.7, <0.9",
            "einops (>=0.7)",
            "Foo.bar_baz[all,x-y]~=1.0",
            "a===1.0+cu121",
            "a!=1.*",
            "tomli>=2; python_version < \"3.11\"",
            "x==1!2.0.post1",
        ] {
            assert_eq!(check_requirement(good), Ok(()), "{good}");
        }
        assert_eq!(requirement_name("Foo.bar__baz[all]==1"), "foo-bar-baz");
    }

    #[test]
    fn places_options_and_tricks_are_not() {
        for wrong in [
            "",
            " ",
            "../x",
            "./x",
            "/etc/passwd",
            "-r x",
            "--index-url=x",
            "-e .",
            "https://example.org/x.whl",
            "x @ https://example.org/x.whl",
            "x@1",
            "git+ssh://x",
            "x==1 --hash=sha256:0",
            "x --no-binary x",
            "x y",
            "x==1\n-r /etc/passwd",
            "x==1 # y",
            "x==${HOME}",
            "x==",
            "x=1",
            "==1",
            ".x",
            "x-",
            "x[",
            "x[a b]",
            "x[]",
            "x==1,",
            "x;",
            "x; os_name == `id`",
            "é",
            "x==é",
            "C:\\x",
            "file:x",
            &"x".repeat(201),
        ] {
            let error = check_requirement(wrong).unwrap_err();
            assert!(error.to_string().len() < 700, "{wrong}: {error}");
        }
    }

    #[test]
    fn every_text_has_an_answer() {
        let alphabet: Vec<char> = "a1.-_[](),;=<>!~ @/\"'é\n".chars().collect();
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let sound = check_requirement(&text).is_ok();
            assert!(!(sound && text.contains(['@', '/', '\n', 'é'])), "{text:?}");
        }
    }
}
