//! Where a run goes, as a value that can be printed before anything is done: for each worker why it was chosen, or why not.
//! Pure: the same candidates and needs give the same plan.
//!
//! A run's group (its experiment) is compared on one kind of device only: the kind is that of its first run, and is the one
//! of which most slots are there. Within it, workers that have the image come first; then a variant goes where fewest runs
//! of that variant were, so that no worker's own speed or fault is mistaken for a variant's; then to the worker with the
//! most room.

use std::{collections::BTreeMap, fmt};

use super::{
    needs::Needs,
    offer::{Never, Offer},
};

/// A worker as placement sees it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its name or address.
    pub name: &'a str,
    /// What it has, if it was ever reached.
    pub offer: Option<&'a Offer>,
    /// Why it takes nothing at this moment.
    pub not_now: Option<NotNow<'a>>,
    /// Runs of ours that are there, by the GPUs that they need; slots that are left free for others count as runs.
    pub taken: &'a BTreeMap<u32, usize>,
    /// Runs of the same variant of the same group that it has had.
    pub of_variant: usize,
    /// Runs of the same group that it has had.
    pub of_group: usize,
}

/// Why a worker takes nothing at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow<'a> {
    /// Not connected.
    Away,
    /// Takes nothing new.
    Draining,
    /// Said a moment ago that its slots are taken.
    Resting,
    /// Set aside.
    Aside(&'a str),
}

/// Why a worker was chosen, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the run.
    Chosen,
    /// It could; another does better.
    Fits {
        /// The image is prepared.
        image: bool,
        /// Runs of the same variant that it has had.
        of_variant: usize,
        /// Runs of ours that are there …
        taken: usize,
        /// … on so many slots.
        slots: usize,
    },
    /// All slots that could take it are taken by runs of ours.
    Full,
    /// Another kind of device than the rest of its experiment.
    OtherKind(String),
    /// Not at this moment.
    NotNow(String),
    /// It was never reached: what it has is not known.
    Unknown,
    /// Never.
    Never(Never),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The run goes to the worker at this place of the list.
    On(usize),
    /// Some worker may take it later.
    Wait,
    /// No worker could ever take it.
    Refuse {
        /// The first worker's field.
        field: &'static str,
        /// Each worker's reason, in one line.
        reason: String,
    },
}

/// A plan for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is to be done.
    pub decision: Decision,
    /// The kind of device that the group is bound to from now on, where it is decided.
    pub kind: Option<String>,
    /// Each worker's name and verdict, in the order of the candidates.
    pub verdicts: Vec<(String, Verdict)>,
}

/// Decides. `kind` is the group's, where it has one.
#[must_use]
pub fn place(candidates: &[Candidate<'_>], needs: &Needs, kind: Option<&str>) -> Plan {
    let kind = match kind {
        Some(kind) => Some(kind.to_owned()),
        None if needs.group.is_empty() => None,
        None => kind_for(candidates, needs),
    };
    let verdict = |candidate: &Candidate<'_>| judge(candidate, needs, kind.as_deref());
    let mut verdicts: Vec<Verdict> = candidates.iter().map(verdict).collect();
    let best = verdicts
        .iter()
        .zip(candidates)
        .enumerate()
        .filter_map(|(index, (verdict, candidate))| rank(verdict, candidate).map(|rank| (rank, index)))
        .min();
    let decision = match best {
        Some((_, index)) => {
            verdicts[index] = Verdict::Chosen;
            Decision::On(index)
        }
        None => wait_or_refuse(candidates, &verdicts),
    };
    let names = candidates.iter().map(|candidate| candidate.name.to_owned());
    Plan { decision, kind, verdicts: names.zip(verdicts).collect() }
}

/// The kind of which most slots can be had now; the first by name among equals.
fn kind_for(candidates: &[Candidate<'_>], needs: &Needs) -> Option<String> {
    let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| {
        !matches!(candidate.not_now, Some(NotNow::Away | NotNow::Draining | NotNow::Aside(_)))
    }) {
        if let Some(offer) = candidate.offer.filter(|offer| offer.could_take(needs).is_ok()) {
            *slots.entry(offer.kind(needs)).or_default() += offer.capable(needs);
        }
    }
    let most = slots.values().max().copied()?;
    slots.into_iter().find(|(_, count)| *count == most).map(|(kind, _)| kind.to_owned())
}

fn judge(candidate: &Candidate<'_>, needs: &Needs, kind: Option<&str>) -> Verdict {
    let Some(offer) = candidate.offer else { return Verdict::Unknown };
    if let Err(never) = offer.could_take(needs) {
        return Verdict::Never(never);
    }
    if kind.is_some_and(|kind| kind != offer.kind(needs)) {
        return Verdict::OtherKind(offer.kind(needs).to_owned());
    }
    if let Some(not_now) = candidate.not_now {
        return Verdict::NotNow(not_now.to_string());
    }
    if !offer.has_room(candidate.taken, needs) {
        return Verdict::Full;
    }
    Verdict::Fits {
        image: offer.has_image(needs),
        of_variant: candidate.of_variant,
        taken: candidate.taken.values().sum(),
        slots: offer.all_slots(),
    }
}

/// The smaller, the better.
fn rank(verdict: &Verdict, candidate: &Candidate<'_>) -> Option<(bool, usize, usize, usize)> {
    let Verdict::Fits { image, of_variant, taken, slots } = verdict else { return None };
    Some((!image, *of_variant, taken * 1000 / slots.max(&1), candidate.of_group))
}

fn wait_or_refuse(candidates: &[Candidate<'_>], verdicts: &[Verdict]) -> Decision {
    let mut first = None;
    let mut reasons = Vec::new();
    for (verdict, candidate) in verdicts.iter().zip(candidates) {
        let Verdict::Never(never) = verdict else { return Decision::Wait };
        first.get_or_insert(never.field);
        reasons.push(if candidates.len() == 1 {
            never.reason.clone()
        } else {
            format!("{}: {}: {}", candidate.name, last_part(never.field), never.reason)
        });
    }
    match first {
        Some(field) => Decision::Refuse { field, reason: reasons.join("; ") },
        None => Decision::Wait,
    }
}

fn last_part(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

impl fmt::Display for NotNow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("out of reach"),
            Self::Draining => f.write_str("draining: takes nothing new"),
            Self::Resting => f.write_str("its slots are taken by others"),
            Self::Aside(reason) => write!(f, "set aside: {reason}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Fits { image, of_variant, taken, slots } => write!(
                f,
                "could take it: {taken} of {slots} slots taken, {of_variant} runs of this variant so far{}",
                if *image { "" } else { ", the image is not prepared" }
            ),
            Self::Full => f.write_str("all its slots are taken"),
            Self::OtherKind(kind) => write!(f, "another kind of device: {kind}"),
            Self::NotNow(reason) => f.write_str(reason),
            Self::Unknown => f.write_str("never reached so far"),
            Self::Never(never) => write!(f, "never: {}: {}", last_part(never.field), never.reason),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.verdicts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        if let Some(kind) = &self.kind {
            writeln!(f, "kind of device: {kind}")?;
        }
        self.verdicts.iter().try_for_each(|(name, verdict)| writeln!(f, "{name:width$}  {verdict}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(kind: u8, slots: u8, gpus: u32, prepared: bool) -> Offer {
        let slot = |index| proto::v1::Slot {
            index,
            gpu_uuids: (0..gpus).map(|gpu| format!("GPU-{index}-{gpu}")).collect(),
            ..Default::default()
        };
        let gpu =
            proto::v1::Gpu { name: format!("GPU {kind}"), memory_bytes: 80 << 30, ..Default::default() };
        let image = proto::v1::Image {
            name: "torch".to_owned(),
            backend: "docker".to_owned(),
            prepared,
            ..Default::default()
        };
        Offer::of(&proto::v1::GetWorkerResponse {
            machine: Some(proto::v1::Machine {
                cpu_model: format!("CPU {kind}"),
                gpus: (gpus > 0).then_some(gpu).into_iter().collect(),
                ..Default::default()
            }),
            slots: (0..u32::from(slots)).map(slot).collect(),
            images: vec![image],
            data_sets: vec![proto::v1::DataSet { name: "mine".to_owned(), ..Default::default() }],
            largest_limits: Some(proto::v1::Limits { memory_bytes: 100, ..Default::default() }),
            backends: vec![proto::v1::Backend {
                name: "docker".to_owned(),
                available: true,
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    fn needs(gpus: u32) -> Needs {
        Needs { image: "torch".to_owned(), gpus, group: "c/e1".to_owned(), ..Needs::default() }
    }

    /// A fleet as a board would keep it.
    #[derive(Debug, Clone)]
    struct Yard {
        offers: Vec<Offer>,
        away: Vec<bool>,
        taken: Vec<BTreeMap<u32, usize>>,
        had: Vec<BTreeMap<u32, usize>>,
        kind: Option<String>,
    }

    impl Yard {
        fn of(offers: Vec<Offer>) -> Self {
            let count = offers.len();
            Self {
                offers,
                away: vec![false; count],
                taken: vec![BTreeMap::new(); count],
                had: vec![BTreeMap::new(); count],
                kind: None,
            }
        }

        fn plan(&self, needs: &Needs, variant: u32) -> Plan {
            let names: Vec<String> = (0..self.offers.len()).map(|index| format!("w{index}")).collect();
            let candidate = |index: usize| Candidate {
                name: &names[index],
                offer: Some(&self.offers[index]),
                not_now: self.away[index].then_some(NotNow::Away),
                taken: &self.taken[index],
                of_variant: self.had[index].get(&variant).copied().unwrap_or(0),
                of_group: self.had[index].values().sum(),
            };
            let candidates: Vec<Candidate<'_>> = (0..names.len()).map(candidate).collect();
            place(&candidates, needs, self.kind.as_deref())
        }

        fn place(&mut self, needs: &Needs, variant: u32) -> Option<usize> {
            let plan = self.plan(needs, variant);
            assert_eq!(plan, self.plan(needs, variant), "the same again");
            let Decision::On(index) = plan.decision else { return None };
            self.kind = plan.kind;
            *self.taken[index].entry(needs.gpus).or_default() += 1;
            *self.had[index].entry(variant).or_default() += 1;
            Some(index)
        }
    }

    fn offers() -> impl Strategy<Value = Vec<Offer>> {
        let one = (0u8..3, 0u8..5, 0u32..3, any::<bool>());
        prop::collection::vec(
            one.prop_map(|(kind, slots, gpus, there)| offer(kind, slots, gpus, there)),
            1..8,
        )
    }

    proptest! {
        #[test]
        fn never_over_capacity_never_another_kind_and_nothing_that_fits_is_left(
            offers in offers(),
            away in prop::collection::vec(any::<bool>(), 8),
            runs in prop::collection::vec((0u32..3, 0u32..3), 1..40),
        ) {
            let mut yard = Yard::of(offers);
            for (index, away) in away.into_iter().take(yard.offers.len()).enumerate() {
                yard.away[index] = away;
            }
            let gpus = runs[0].0;
            for (_, variant) in runs {
                let needs = needs(gpus);
                let kind = yard.kind.clone();
                match yard.place(&needs, variant) {
                    Some(index) => {
                        let offer = &yard.offers[index];
                        prop_assert!(!yard.away[index]);
                        prop_assert!(yard.taken[index][&gpus] <= offer.capable(&needs));
                        prop_assert_eq!(yard.kind.as_deref(), Some(offer.kind(&needs)));
                        prop_assert!(kind.is_none() || kind == yard.kind);
                    }
                    None => {
                        for (index, offer) in yard.offers.iter().enumerate() {
                            let fits = !yard.away[index]
                                && kind.as_deref().is_none_or(|kind| kind == offer.kind(&needs))
                                && offer.could_take(&needs).is_ok()
                                && offer.has_room(&yard.taken[index], &needs);
                            prop_assert!(!fits, "w{} has a place", index);
                        }
                    }
                }
            }
        }

        #[test]
        fn runs_of_mixed_needs_never_pass_what_the_slots_can_hold(
            mixed in prop::collection::vec((0u32..4, 1u8..4), 1..5),
            runs in prop::collection::vec(0u32..4, 1..30),
        ) {
            // One machine with slots of several sizes.
            let mut offer = offer(0, 0, 0, true);
            for (gpus, count) in mixed {
                *offer.slots.entry(gpus).or_default() += usize::from(count);
            }
            let mut yard = Yard::of(vec![offer]);
            let mut placed = Vec::new();
            for gpus in runs {
                let needs = Needs { group: String::new(), ..needs(gpus) };
                if yard.place(&needs, 0).is_some() {
                    placed.push(gpus);
                }
            }
            // The largest first, each into the smallest slot that does: if that works, they all have one.
            let mut free = yard.offers[0].slots.clone();
            placed.sort_by(|a, b| b.cmp(a));
            for gpus in placed {
                let slot = free.range(gpus..).find(|(_, count)| **count > 0).map(|(size, _)| *size);
                prop_assert!(slot.is_some(), "no slot for a run with {} GPUs", gpus);
                *free.get_mut(&slot.unwrap()).unwrap() -= 1;
            }
        }

        #[test]
        fn variants_are_spread_evenly_over_equal_workers(workers in 1usize..6, seeds in 1u32..5) {
            let mut yard = Yard::of(vec![offer(0, 20, 0, true); workers]);
            for _ in 0..seeds * workers as u32 {
                for variant in 0..2 {
                    prop_assert!(yard.place(&needs(0), variant).is_some());
                }
            }
            for variant in 0..2 {
                let counts: Vec<usize> =
                    yard.had.iter().map(|had| had.get(&variant).copied().unwrap_or(0)).collect();
                prop_assert!(counts.iter().all(|count| *count == seeds as usize), "{:?}", counts);
            }
        }
    }

    #[test]
    fn an_image_that_is_there_comes_first_and_a_full_worker_is_no_reason_to_wait() {
        let mut yard = Yard::of(vec![offer(0, 2, 0, false), offer(0, 1, 0, true)]);
        assert_eq!(yard.place(&needs(0), 0), Some(1));
        assert_eq!(yard.place(&needs(0), 0), Some(0));
        let plan = yard.plan(&needs(0), 0).to_string();
        assert_eq!(plan, "kind of device: CPU 0\nw0  chosen\nw1  all its slots are taken\n");
    }

    #[test]
    fn the_kind_with_the_most_slots_is_the_experiments() {
        let mut yard = Yard::of(vec![offer(1, 2, 0, true), offer(2, 1, 0, true), offer(2, 2, 0, true)]);
        yard.place(&needs(0), 0);
        assert_eq!(yard.kind.as_deref(), Some("CPU 2"));
        yard.away = vec![false, true, true];
        assert_eq!(yard.plan(&needs(0), 0).decision, Decision::Wait, "it is waited for, never mixed");
    }

    #[test]
    fn what_can_never_be_taken_is_refused_with_its_field_and_each_reason() {
        let yard = Yard::of(vec![offer(0, 1, 0, true), offer(0, 1, 2, true)]);
        let refused = |needs: &Needs| match yard.plan(needs, 0).decision {
            Decision::Refuse { field, reason } => (field, reason),
            other => panic!("{other:?}"),
        };
        let (field, reason) = refused(&needs(3));
        assert_eq!(field, "spec.gpus");
        assert_eq!(
            reason,
            "w0: gpus: 3 are asked for; its largest slot has 0; w1: gpus: 3 are asked for; its largest slot has 2"
        );
        let memory = Needs { memory_bytes: 101, ..needs(0) };
        assert_eq!(refused(&memory).0, "spec.limits.memory_bytes");
        assert_eq!(refused(&Needs { image: "other".to_owned(), ..needs(0) }).0, "spec.image");
        assert_eq!(refused(&Needs { backend: "native".to_owned(), ..needs(0) }).0, "spec.backend");
        let data = Needs { data_sets: vec!["mine".to_owned(), "yours".to_owned()], ..needs(0) };
        let (field, reason) = refused(&data);
        assert!(field == "spec.data_sets" && reason.contains("yours is not there"), "{reason}");
        let one = Yard::of(vec![offer(0, 1, 0, true)]);
        let Decision::Refuse { reason, .. } = one.plan(&memory, 0).decision else { panic!() };
        assert_eq!(reason, "is 101; this worker's largest is 100", "of one worker as it would say it");
    }
}
