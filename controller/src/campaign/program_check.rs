//! What can be said of a program before it runs, without Python: a bounded text that uses `ar`, reads its parameters,
//! seeds nothing itself, does not ask which variant it is, and has no end in sight of memory or network on purpose.
//! Whether it parses is Python's to say, in the smoke run. Comments and strings are left out before looking, so that
//! a docstring may say "seed".

use super::{plan::Plan, researcher::Fault};

/// The longest program, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 256 << 10;

/// Calls that seed a library: what a seed changes is the program's business, not the code's (METHOD §5).
const SEEDING: &[&str] = &[
    "manual_seed",
    "manual_seed_all",
    "random.seed",
    "np.random.seed",
    "numpy.random.seed",
    "seed_everything",
    "set_seed",
    "RandomState",
    "default_rng",
    "PYTHONHASHSEED",
];

/// Modules that reach out of a sandbox that has no network: the run would only fail later.
const OUTSIDE: &[&str] = &["requests", "urllib.request", "urllib3", "httpx", "socket", "huggingface_hub"];

/// Takes comments and string contents out, keeping lines and quotes. Not a parser: it is right for programs that
/// parse, and those that do not fail in the smoke run.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let (mut at, len) = (0, chars.len());
    while at < len {
        let c = chars[at];
        match c {
            '#' => {
                while at < len && chars[at] != '\n' {
                    at += 1;
                }
            }
            '"' | '\'' => {
                let triple = at + 2 < len && chars[at + 1] == c && chars[at + 2] == c;
                let width = if triple { 3 } else { 1 };
                out.push(c);
                at += width;
                while at < len {
                    if chars[at] == '\\' {
                        at += 2;
                        continue;
                    }
                    let closes = chars[at] == c
                        && (!triple || (at + 2 < len && chars[at + 1] == c && chars[at + 2] == c));
                    if closes {
                        at += width;
                        break;
                    }
                    if chars[at] == '\n' {
                        out.push('\n');
                        if !triple {
                            break;
                        }
                    }
                    at += 1;
                }
                out.push(c);
            }
            _ => {
                out.push(c);
                at += 1;
            }
        }
    }
    out
}

/// Whether `word` stands in `code` with nothing of a name before or after it.
fn has_name(code: &str, word: &str) -> Option<usize> {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(name) && !after.is_some_and(name)
    })
}

fn line(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// What is wrong with a program, before it costs anything. Empty: it may run.
#[must_use]
pub fn check(source: &str, plan: &Plan) -> Vec<Fault> {
    let fault = |problem: String| Fault { field: "program".to_owned(), problem };
    if source.trim().is_empty() {
        return vec![fault("the program is empty".into())];
    }
    if source.len() > PROGRAM_BYTES_MAX {
        return vec![fault(format!("{} bytes are more than the {PROGRAM_BYTES_MAX} allowed", source.len()))];
    }
    if source.contains('\0') {
        return vec![fault("it holds a NUL character".into())];
    }
    let code = code_only(source);
    let mut faults = Vec::new();
    if !code.lines().any(imports_ar) {
        faults.push(fault("it must `import autoresearch as ar`: metrics go through `ar.log`".into()));
    }
    if !code.contains(".params") && has_name(&code, "params").is_none() {
        faults.push(fault("it never reads `ar.params`, so all variants would be the same".into()));
    }
    if !code.contains(".log(") && has_name(&code, "log").is_none() {
        faults.push(fault("it never calls `ar.log`, so no metric can come".into()));
    }
    for word in SEEDING {
        if let Some(at) = has_name(&code, word) {
            faults.push(fault(format!(
                "line {}: `{word}` seeds by itself; seeds come from outside: use `ar.generator(\"order\")` and its like, \
                 and leave the libraries' own generators as they are",
                line(&code, at)
            )));
        }
    }
    for module in OUTSIDE {
        let imported = |text: &str| {
            let text = text.trim_start();
            text.strip_prefix("import ").or_else(|| text.strip_prefix("from ")).is_some_and(|rest| {
                rest.trim_start()
                    .strip_prefix(module)
                    .is_some_and(|next| !next.starts_with(|c: char| c.is_alphanumeric()))
            })
        };
        if let Some(number) = code.lines().position(imported) {
            faults.push(fault(format!("line {}: `{module}` needs a network, and there is none", number + 1)));
        }
    }
    let asks = ["variant_id", "variant"].into_iter().find_map(|word| {
        let quoted =
            [format!("params[\"{word}\"]"), format!("params['{word}']"), format!("params.get(\"{word}\"")];
        quoted.iter().find_map(|text| source.find(text.as_str()))
    });
    if let Some(at) = asks {
        faults.push(fault(format!("line {}: a program is not told which variant it is", line(source, at))));
    }
    for factor in &plan.factors {
        // A parameter may be read by attribute, by key or by `**ar.params`; only a name that is nowhere is a fault.
        if !source.contains(factor.param.as_str()) && !code.contains("**") {
            faults.push(fault(format!(
                "it never reads the factor `{}`, so its levels would do nothing",
                factor.param
            )));
        }
    }
    faults
}

fn imports_ar(line: &str) -> bool {
    let line = line.trim_start();
    line.strip_prefix("import ")
        .or_else(|| line.strip_prefix("from "))
        .is_some_and(|rest| rest.split([',', ' ']).any(|word| word == "autoresearch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::ablation;

    const GOOD: &str = "\"\"\"No torch.manual_seed here.\"\"\"\nimport autoresearch as ar\np = ar.params\n\
                        bn = p['batch_norm']  # random.seed is the harness's\nar.log(step=1, test_accuracy=0.5)\n";

    #[track_caller]
    fn told(source: &str, what: &str) {
        let faults = check(source, &ablation());
        assert!(faults.iter().any(|f| f.problem.contains(what)), "no `{what}` in {faults:?}");
    }

    #[test]
    fn a_good_program_passes_though_comments_and_strings_say_seed() {
        assert_eq!(check(GOOD, &ablation()), []);
    }

    #[test]
    fn each_fault_has_its_own_words() {
        told("  \n", "empty");
        told(&format!("{GOOD}{}", "#".repeat(PROGRAM_BYTES_MAX)), "more than");
        told("p = {}\n", "import autoresearch");
        told("import autoresearch as ar\nar.log(x=1)\n", "ar.params");
        told("import autoresearch as ar\nprint(ar.params['batch_norm'])\n", "ar.log");
        told(&format!("{GOOD}import torch\ntorch.manual_seed(0)\n"), "line 7: `manual_seed`");
        told(&format!("{GOOD}np.random.seed(1)\n"), "np.random.seed");
        told(&format!("{GOOD}rng = np.random.default_rng(0)\n"), "default_rng");
        told(&format!("{GOOD}import requests\n"), "network");
        told(&format!("{GOOD}v = ar.params[\"variant\"]\n"), "which variant");
        told(&GOOD.replace("batch_norm", "layers"), "`batch_norm`");
    }

    #[test]
    fn a_program_that_takes_all_its_parameters_at_once_reads_every_factor() {
        let source = "import autoresearch as ar\nmodel = build(**ar.params)\nar.log(test_accuracy=1)\n";
        assert_eq!(check(source, &ablation()), []);
    }
}
