//! A small report through all three forms.

use super::{document::*, *};

fn report() -> Report {
    let value =
        |seed, value, failed| SeedValue { seed, value: Some(value), run: format!("run-{seed}"), failed };
    let variant = |id: &str, label: &str, control: bool| Variant {
        id: id.into(),
        cell: id.replace('v', "c"),
        label: label.into(),
        params: serde_json::json!({"batch_norm": !control}),
        control,
        values: vec![value(1, 0.95, false), value(2, 0.1, true)],
        mean: Some(0.525),
        deviation: Some(0.601),
        low: Some(-4.9),
        high: Some(5.9),
        planned: 2,
        analysed: 2,
        failed: 1,
        failed_up_to: 0.987,
    };
    let curve = |label: &str| Curve {
        metric: "val_accuracy".into(),
        label: label.into(),
        variant: "v1".into(),
        x: vec![10.0, 20.0],
        x_name: "step".into(),
        x_log: false,
        mean: vec![0.5, 0.9],
        low: vec![0.4, 0.8],
        high: vec![0.6, 1.0],
    };
    Report {
        format: FORMAT,
        id: "0190".into(),
        question: "Does <script>alert(1)</script> help?".into(),
        researcher: "offline".into(),
        state: "finished".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        ended_at: "2026-01-01T00:05:00Z".into(),
        answer: Answer {
            verdict: "Supported".into(),
            text: "It raised test accuracy by 1.2 points.".into(),
            stopped_by: "question answered".into(),
            numbers: vec![],
            interpretation: "As | expected\x1b[31m.".into(),
            removed: vec!["It is 99 % better.".into()],
        },
        experiments: vec![Experiment {
            id: "e1".into(),
            title: "Batch norm".into(),
            kind: "ablation".into(),
            role: "confirmatory".into(),
            plan: serde_json::json!({"title": "</pre><b>"}),
            plan_digest: "sha256:00".into(),
            registered_at: "2026-01-01T00:00:01Z".into(),
            rationale: "Because.".into(),
            motivated_by: vec!["f0".into()],
            metric: Metric {
                name: "test_accuracy".into(),
                unit: "fraction".into(),
                better: "higher".into(),
                source: "logged".into(),
                split: "test".into(),
            },
            reduce: "the last value".into(),
            replicate: vec!["init".into(), "split".into()],
            method: "paired by seed".into(),
            smallest_effect: 0.005,
            smallest_effect_set_by: "table".into(),
            looks: vec![Look { seeds: 5, error: 0.01, verdict: "supported".into() }],
            variants: vec![
                variant("v1", "batch_norm = false", true),
                variant("v2", "batch_norm = true", false),
            ],
            contrasts: vec![Contrast {
                id: "effect".into(),
                label: "with − without".into(),
                primary: true,
                claim: Some("It helps.".into()),
                predicts: Some("increase".into()),
                estimate: Some(0.012),
                low: Some(0.005),
                high: Some(0.019),
                level: Some(0.98),
                degrees_of_freedom: Some(4.0),
                verdict: Some("supported".into()),
                sentence: "At least the smallest effect.".into(),
                smallest_margin: Some(0.019),
                rests_on_failed_runs: false,
                plain_interval: None,
                runs: vec!["run-1".into()],
            }],
            curves: vec![curve("batch_norm = false"), curve("batch_norm = true")],
            notes: vec![],
            interpretation: String::new(),
        }],
        findings: vec![],
        runs: vec![Run {
            id: "0190-run-1".into(),
            experiment: "e1".into(),
            variant: "v1".into(),
            seed: 1,
            purpose: "full".into(),
            outcome: "succeeded".into(),
            message: String::new(),
            revision: "sha256:11".into(),
            seconds: Some(3.2),
            memory_peak_bytes: Some(1 << 28),
            value: Some(0.95),
            metrics: vec![MetricValue { name: "loss".into(), value: None }],
            place: "local slot 0".into(),
        }],
        revisions: vec![
            Revision {
                experiment: "e1".into(),
                number: 1,
                digest: "sha256:11".into(),
                reason: "first".into(),
                source: "a = 1\n".into(),
            },
            Revision {
                experiment: "e1".into(),
                number: 2,
                digest: "sha256:12".into(),
                reason: "shape".into(),
                source: "a = 2\n".into(),
            },
        ],
        costs: Costs {
            device_unit: "slot".into(),
            budgets: vec![BudgetLine {
                name: "iterations".into(),
                used: "1".into(),
                limit: "1".into(),
                stopped: true,
            }],
            ..Costs::default()
        },
        ledger: vec![LedgerLine {
            experiment: "e1".into(),
            contrast: "effect".into(),
            look: 5,
            error: 0.01,
            spent: true,
        }],
        threats: vec!["One data set.".into()],
        amendments: vec![],
        dead_ends: vec![],
        environment: vec![Fact { name: "image".into(), value: "torch".into() }],
        command: "autoresearch run …".into(),
    }
}

#[test]
fn the_page_is_one_file_and_nothing_in_it_is_alive() {
    let page = html(&report()).unwrap();
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("</pre><b>"));
    assert!(!page.contains("src=") && !page.contains('\x1b'));
    assert_eq!(page.matches("<svg").count(), 2, "one interval plot, one plot of curves");
    assert!(page.contains("class=\"added\">+ a = 2") && page.contains("class=\"removed\">- a = 1"));
    assert!(page.contains("1.20 points") && page.contains("0.50 to 1.90") && page.contains("98 %"));
}

#[test]
fn the_text_form_says_the_same_in_the_same_order() {
    let text = markdown(&report());
    let place = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} is not in\n{text}"));
    assert!(place("**Supported.**") < place("Stopped by: **question answered**"));
    assert!(place("## Experiment e1") < place("## Every run"));
    assert!(text.contains("1.20 points | 0.50 to 1.90 | 98 % | supported"));
    assert!(text.contains("iterations: 1 of 1 — **stopped the campaign**"));
    assert!(!text.contains("<script") && !text.contains('\x1b'));
}

#[test]
fn what_is_written_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&report(), folder.path()).unwrap();
    let back: Report = serde_json::from_slice(&std::fs::read(files.json).unwrap()).unwrap();
    assert_eq!(back, report());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}
