//! SECURITY.md says what holds a program. Here it is kept true: every rule has its line, and every file and test that a
//! line names is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use worker::sandbox::rules::RuleId;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The cells of every row of the page's tables.
fn rows() -> Vec<Vec<String>> {
    let page = fs::read_to_string(repository().join("worker/SECURITY.md")).expect("SECURITY.md");
    let cells = |line: &str| {
        let line = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
    };
    page.lines().filter_map(cells).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The row of a rule: name, threat, enforced by, test, left over.
fn row_of<'a>(rows: &'a [Vec<String>], rule: &str) -> &'a [String] {
    let first = format!("`{rule}`");
    let mut found = rows.iter().filter(|row| row.len() == 5 && row[0] == first);
    let row = found.next().unwrap_or_else(|| panic!("SECURITY.md has no line for the rule {rule}"));
    assert!(found.next().is_none(), "SECURITY.md has two lines for the rule {rule}");
    row
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions in the workspace, and of all hostile programs.
fn tests_there_are() -> BTreeSet<String> {
    let root = repository();
    let mut files = Vec::new();
    for folder in [
        "worker/src",
        "worker/tests",
        "controller/src",
        "controller/tests",
        "kit/src",
        "tests/src",
        "tests/tests",
    ] {
        rust_files(&root.join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source");
        let after = text.split("fn ").skip(1);
        names.extend(after.filter_map(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
    }
    for entry in fs::read_dir(root.join("tests/hostile")).expect("the suite") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        names.extend(name.strip_suffix(".py").map(ToOwned::to_owned));
    }
    names
}

#[test]
fn every_rule_has_one_line_with_all_that_it_needs() {
    let rows = rows();
    for rule in RuleId::ALL {
        let row = row_of(&rows, rule.name());
        assert!(row.iter().all(|cell| !cell.is_empty()), "{}: a cell is empty", rule.name());
        assert!(!quoted(&row[3]).is_empty(), "{}: no test", rule.name());
    }
    let known: BTreeSet<&str> = RuleId::ALL.iter().map(|rule| rule.name()).collect();
    for row in rows.iter().filter(|row| row.len() == 5 && row[0].starts_with('`')) {
        assert!(known.contains(row[0].trim_matches('`')), "{} is no rule", row[0]);
    }
}

#[test]
fn every_number_is_kept_by_the_rules_that_cover_it() {
    let rows = rows();
    for number in 1..=20_u8 {
        let name = format!("R{number}");
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no line for {name}"));
        let named: BTreeSet<&str> = quoted(&row[1]).into_iter().collect();
        let covering = RuleId::ALL.iter().filter(|rule| rule.covers().contains(&number));
        let covering: BTreeSet<&str> = covering.map(|rule| rule.name()).collect();
        assert!(
            !named.is_empty() && named.is_subset(&covering),
            "{name}: {named:?}, and {covering:?} cover it"
        );
    }
}

#[test]
fn every_file_and_every_test_that_is_named_is_there() {
    let (rows, tests) = (rows(), tests_there_are());
    let mut missing = Vec::new();
    for rule in RuleId::ALL {
        let row = row_of(&rows, rule.name());
        let file = |path: &&str| !repository().join("worker").join(path).is_file();
        missing.extend(quoted(&row[2]).into_iter().filter(file));
        missing.extend(quoted(&row[3]).into_iter().filter(|name| !tests.contains(*name)));
    }
    assert_eq!(missing, Vec::<&str>::new());
}
