//! The table as an engine's profile in JSON.
//!
//! The default is EPERM and every call that is to look absent is listed: old engines ignore `defaultErrnoRet`, and
//! without ENOSYS for `clone3` no thread can be started. For a number above the last that the profile names, the
//! runtime itself answers ENOSYS. A name that the engine's own library does not know it skips, which is a refusal.
//! No other instruction set is listed, so its calls end the process.

use serde_json::{Value, json};

use super::{Answer, ENOSYS, EPERM, numbers::Machine, table, table::Rule};

pub(super) fn render(machine: Machine) -> String {
    let named = |wanted: Answer| -> Vec<&str> {
        machine.names().filter(|name| table::answer(name) == wanted).collect()
    };
    let mut calls = vec![json!({ "names": named(Answer::Allow), "action": "SCMP_ACT_ALLOW" })];
    for name in machine.names() {
        if let Answer::AllowWhere(rules) = table::answer(name) {
            calls.extend(rules.iter().map(|rule| conditional(name, rule)));
        }
    }
    let absent = named(Answer::Error(ENOSYS));
    calls.push(json!({ "names": absent, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [machine.profile_name()],
        "syscalls": calls,
    });
    profile.to_string()
}

/// Rules of one call are alternatives. A rule must not name an argument twice: runtimes take that for alternatives too.
fn conditional(name: &str, rule: Rule) -> Value {
    let argument = |condition: &table::Condition| {
        json!({
            "index": condition.argument,
            "op": "SCMP_CMP_MASKED_EQ",
            "value": condition.mask,
            "valueTwo": condition.value,
        })
    };
    let arguments: Vec<Value> = rule.iter().map(argument).collect();
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments })
}
