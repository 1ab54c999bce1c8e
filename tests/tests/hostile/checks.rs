//! Looks from outside that only some programs need, by the name that their header gives.

use std::fs;

use e2e::program::Check;

use crate::run::Ended;

pub fn run(check: Check, ended: &mut Ended<'_>) {
    match check {
        Check::LogsPrintable => logs_printable(ended),
        Check::HostHidden => host_hidden(ended),
        Check::BeatsStopped => beats_stopped(ended),
        Check::NoHostFiles => no_host_files(ended),
    }
}

/// Whether a character can drive a terminal or turn the direction of text.
fn drives(character: char) -> bool {
    character.is_control() && character != '\n' && character != '\t'
        || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn logs_printable(ended: &mut Ended<'_>) {
    let run = ended.text("run_id");
    for arguments in [vec!["logs", &run], vec!["list", "--all"], vec!["logs", &run, "--stream", "stderr"]] {
        let shown = ended.home.run(&arguments).expect(0);
        for (name, text) in [("stdout", &shown.stdout), ("stderr", &shown.stderr)] {
            if let Some(found) = text.chars().find(|c| drives(*c)) {
                ended.wrong(format!("`{}` prints {found:?} on {name}", arguments.join(" ")));
            }
        }
    }
    let logs = ended.home.run(&["logs", &run]).expect(0);
    if logs.stdout.is_empty() {
        ended.wrong("`logs` shows nothing");
    }
}

fn host_hidden(ended: &mut Ended<'_>) {
    let stdout = ended.text("stdout");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fact = |name: &str| stdout.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match fact("HOSTNAME ") {
        None => ended.wrong("it did not print its host name"),
        Some(name) if name == host.trim() => ended.wrong("it has this host's name"),
        Some(_) => {}
    }
    let Some((_, inside)) = stdout.split_once("INSIDE\n") else {
        return ended.wrong("it did not print what it sees");
    };
    let folder = ended.home.path().display().to_string();
    let secrets = [folder.as_str(), "hidden-from-the-sandbox", "ANTHROPIC_API_KEY", host.trim()];
    for secret in secrets.iter().filter(|secret| secret.len() > 3 && inside.contains(*secret)) {
        ended.wrong(format!("{secret:?} of the host is inside"));
    }
}

fn beats_stopped(ended: &mut Ended<'_>) {
    let Some(path) = ended.artifact("beats") else { return ended.wrong("there are no beats") };
    let text = fs::read_to_string(path).unwrap_or_default();
    let beats: Vec<u128> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if !nix::unistd::geteuid().is_root() {
        return; // nobody was seen
    }
    let (Some(last), Some(alive)) = (beats.last(), ended.seen.last_alive()) else {
        return ended.wrong("nothing beat, or nobody was seen");
    };
    // Both are the monotonic clock of this machine; an Instant tells only how long ago it was.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("the monotonic clock");
    let now = u128::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u128::try_from(now.tv_nsec()).unwrap_or(0);
    let since_beat = now.saturating_sub(*last);
    let since_alive = alive.elapsed().as_nanos();
    // Between two looks of the witness there may be a beat; a straggler that lives on has beats long after the last look.
    if since_beat + 500_000_000 < since_alive {
        ended.wrong(format!("a beat came {} ns after the last process was seen", since_alive - since_beat));
    }
}

fn no_host_files(ended: &mut Ended<'_>) {
    let secret = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hidden = [secret("/etc/shadow"), secret("/etc/machine-id"), secret("/proc/1/environ")];
    let paths = ended.told["artifacts"].as_array().cloned().unwrap_or_default();
    for path in paths.iter().filter_map(|artifact| artifact["path"].as_str()) {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if hidden.iter().any(|hidden| !hidden.is_empty() && text.contains(hidden.as_str())) {
            ended.wrong(format!("{path} holds a file of this host"));
        }
    }
}
