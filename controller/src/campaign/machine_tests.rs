//! The campaign's machine over all pairs, and its ways through.

use super::*;

const BOUNDS: Bounds = Bounds { iterations: 2, plans: 2, repairs: 1 };

fn states() -> Vec<State> {
    use State as S;
    let stopped = StoppedBy::Iterations;
    vec![
        S::New,
        S::Preparing,
        S::Planning { refused: 0 },
        S::Registering,
        S::Coding,
        S::Checking,
        S::Smoking,
        S::Repairing,
        S::Voiding,
        S::Running { look: 0 },
        S::Raising,
        S::Analysing { look: 0 },
        S::Closing { then: AfterClose::Interpret },
        S::Interpreting,
        S::Deciding,
        S::Reporting { stopped },
        S::Ended { stopped },
    ]
}

fn events() -> Vec<Event> {
    use Event as E;
    vec![
        E::Begun,
        E::Prepared,
        E::PlanSound { looks: 2 },
        E::PlanUnsound,
        E::NothingMore,
        E::Registered,
        E::ProgramWritten,
        E::ProgramSound,
        E::ProgramFaulty { voidable: false },
        E::ProgramFaulty { voidable: true },
        E::Voided,
        E::SmokePassed,
        E::LookRun,
        E::LimitTooLow,
        E::LimitRaised,
        E::Analysed { conclusive: true },
        E::Analysed { conclusive: false },
        E::Closed,
        E::Interpreted,
        E::GoOn,
        E::Enough,
        E::Stop { by: StoppedBy::Money },
        E::Reported,
    ]
}

/// The pairs that have a meaning, stops left out, as (state, event) by their names.
const MEANT: &[(&str, &str)] = &[
    ("New", "Begun"),
    ("Preparing", "Prepared"),
    ("Planning", "PlanSound"),
    ("Planning", "PlanUnsound"),
    ("Planning", "NothingMore"),
    ("Registering", "Registered"),
    ("Coding", "ProgramWritten"),
    ("Repairing", "ProgramWritten"),
    ("Checking", "ProgramSound"),
    ("Checking", "ProgramFaulty"),
    ("Smoking", "ProgramFaulty"),
    ("Smoking", "SmokePassed"),
    ("Voiding", "Voided"),
    ("Running", "LookRun"),
    ("Running", "LimitTooLow"),
    ("Running", "ProgramFaulty"),
    ("Raising", "LimitRaised"),
    ("Analysing", "Analysed"),
    ("Closing", "Closed"),
    ("Interpreting", "Interpreted"),
    ("Deciding", "GoOn"),
    ("Deciding", "Enough"),
    ("Reporting", "Reported"),
];

fn name(debug: String) -> String {
    debug.split([' ', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn every_pair_is_decided_and_only_the_meant_ones_are_taken() {
    for state in states() {
        for event in events() {
            let mut machine =
                Machine { state: state.clone(), iteration: 1, looks: 2, ..Machine::new(BOUNDS) };
            let before = machine.clone();
            let taken = machine.step(event);
            let pair = (name(format!("{state:?}")), name(format!("{event:?}")));
            let ended = matches!(state, State::Ended { .. });
            let meant = MEANT.contains(&(pair.0.as_str(), pair.1.as_str())) || (pair.1 == "Stop" && !ended);
            assert_eq!(taken.is_ok(), meant, "{pair:?}");
            if !meant {
                assert_eq!(machine, before, "a refused event changes nothing: {pair:?}");
            }
        }
    }
}

#[test]
fn a_hard_stop_always_leads_to_the_report() {
    for state in states() {
        let mut machine = Machine { state: state.clone(), iteration: 1, looks: 2, ..Machine::new(BOUNDS) };
        if matches!(state, State::Reporting { .. } | State::Ended { .. }) {
            continue;
        }
        let mut action = machine.step(Event::Stop { by: StoppedBy::DeviceHours }).unwrap();
        if action == Some(Action::Close { abandoned: false }) {
            assert!(state.experiment_open(), "{state:?}");
            action = machine.step(Event::Closed).unwrap();
        }
        assert_eq!(action, Some(Action::Report { stopped: StoppedBy::DeviceHours }), "{state:?}");
        assert_eq!(machine.step(Event::Reported), Ok(None));
        assert_eq!(machine.state, State::Ended { stopped: StoppedBy::DeviceHours });
    }
}

fn walk(machine: &mut Machine, events: &[Event]) -> Vec<Action> {
    events.iter().filter_map(|event| machine.step(*event).unwrap()).collect()
}

#[test]
fn two_iterations_with_two_looks_in_the_second() {
    use Event as E;
    let mut machine = Machine::new(BOUNDS);
    let first = [
        E::Begun,
        E::Prepared,
        E::PlanSound { looks: 1 },
        E::Registered,
        E::ProgramWritten,
        E::ProgramSound,
        E::SmokePassed,
        E::LookRun,
        E::Analysed { conclusive: false },
        E::Closed,
        E::Interpreted,
        E::GoOn,
    ];
    assert_eq!(walk(&mut machine, &first).last(), Some(&Action::Plan));
    assert_eq!(machine.iteration, 2);
    let second = [
        E::PlanUnsound,
        E::PlanSound { looks: 2 },
        E::Registered,
        E::ProgramWritten,
        E::ProgramSound,
        E::SmokePassed,
        E::LookRun,
        E::Analysed { conclusive: false },
        E::LookRun,
        E::Analysed { conclusive: false },
        E::Closed,
        E::Interpreted,
        E::GoOn,
    ];
    let actions = walk(&mut machine, &second);
    assert!(actions.contains(&Action::Run { look: 1 }));
    assert_eq!(actions.last(), Some(&Action::Report { stopped: StoppedBy::Iterations }));
}

#[test]
fn repairs_are_bounded_and_then_the_experiment_led_nowhere() {
    use Event as E;
    let mut machine = Machine::new(BOUNDS);
    let faulty = E::ProgramFaulty { voidable: false };
    let events =
        [E::Begun, E::Prepared, E::PlanSound { looks: 1 }, E::Registered, E::ProgramWritten, E::ProgramSound];
    walk(&mut machine, &events);
    assert_eq!(machine.step(faulty), Ok(Some(Action::Repair)));
    walk(&mut machine, &[E::ProgramWritten, E::ProgramSound]);
    assert_eq!(machine.step(faulty), Ok(Some(Action::Close { abandoned: true })));
    assert_eq!(machine.step(E::Closed), Ok(Some(Action::Plan)), "another plan is left");
    walk(&mut machine, &[E::PlanSound { looks: 1 }, E::Registered, E::ProgramWritten]);
    assert_eq!(machine.step(faulty), Ok(Some(Action::Repair)), "a new experiment has its own repairs");
    walk(&mut machine, &[E::ProgramWritten]);
    walk(&mut machine, &[faulty]);
    assert_eq!(machine.step(E::Closed), Ok(Some(Action::Report { stopped: StoppedBy::Repairs })));
}

#[test]
fn a_limit_is_raised_once() {
    let mut machine = Machine { state: State::Running { look: 0 }, looks: 1, ..Machine::new(BOUNDS) };
    assert_eq!(machine.step(Event::LimitTooLow), Ok(Some(Action::Raise)));
    assert_eq!(machine.step(Event::LimitRaised), Ok(Some(Action::Run { look: 0 })));
    assert_eq!(machine.step(Event::LimitTooLow), Ok(Some(Action::Analyse { look: 0 })));
}

#[test]
fn what_cannot_be_mended_in_one_variant_leaves_the_experiment() {
    let mut machine = Machine { state: State::Smoking, looks: 1, repairs: 1, ..Machine::new(BOUNDS) };
    assert_eq!(machine.step(Event::ProgramFaulty { voidable: true }), Ok(Some(Action::Void)));
    assert_eq!(machine.step(Event::Voided), Ok(Some(Action::Run { look: 0 })));
}

/// What may happen in a state, stops included.
fn meant(machine: &Machine) -> Vec<Event> {
    let taken = |event: &Event| machine.clone().step(*event).is_ok();
    events().into_iter().filter(taken).collect()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Any bounds, any events, killed after any of them and taken up from what was stored: the same states as without the
    /// kills, the bounds kept, and the report always reached.
    #[test]
    fn killed_anywhere_it_goes_through_the_same_states_and_reports(
        iterations in 1..4u32,
        plans in 1..4u32,
        repairs in 0..4u32,
        choices in proptest::collection::vec(proptest::prelude::any::<(u16, bool)>(), 400),
    ) {
        let bounds = Bounds { iterations, plans, repairs };
        let (mut machine, mut unkilled) = (Machine::new(bounds), Machine::new(bounds));
        let (mut refused, mut reports) = (0, 0);
        for (choice, kill) in choices {
            if matches!(machine.state, State::Ended { .. }) {
                break;
            }
            let events = meant(&machine);
            assert!(!events.is_empty(), "{:?} waits for nothing", machine.state);
            let event = events[usize::from(choice) % events.len()];
            let action = machine.step(event).unwrap();
            assert_eq!(unkilled.step(event).unwrap(), action);
            if kill {
                machine = rmp_serde::from_slice(&rmp_serde::to_vec_named(&machine).unwrap()).unwrap();
            }
            assert_eq!(machine, unkilled);
            refused = if event == Event::PlanUnsound { refused + 1 } else { 0 };
            reports += u32::from(matches!(action, Some(Action::Report { .. })) && !matches!(event, Event::Stop { .. }));
            assert!(refused <= plans && machine.iteration <= iterations && machine.repairs <= repairs);
        }
        // Longest of all: stops while the report is written are taken and change nothing.
        if !matches!(machine.state, State::Ended { .. }) {
            assert!(matches!(machine.state, State::Reporting { .. } | State::Closing { .. }), "{:?}", machine.state);
        }
        assert!(reports <= 1);
    }
}
