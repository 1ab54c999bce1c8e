//! Who waits for a place, and who has one. Runs of the same needs wait in one queue, oldest first; a worker that has room
//! again, is back, or was rested, takes the oldest run that it can take, whatever queue that is in. The worker has the last
//! word: one that refuses is left alone for a moment, and the run goes elsewhere meanwhile.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kit::awake::Awake;
use tokio::sync::oneshot;

use super::{
    LinkState, WorkerView,
    needs::Needs,
    offer::Offer,
    pace::Pace,
    place::{Candidate, Decision, NotNow, Plan, place},
    standing::{Cooling, Standing},
};

/// Groups whose kind of device is remembered; beyond it the one that was used longest ago is forgotten.
const GROUPS: usize = 1024;

/// What a run that waited is told.
#[derive(Debug)]
pub(super) enum Told {
    /// A place.
    Seat(Seat),
    /// No worker could ever take it.
    Refused { field: &'static str, reason: String },
    /// No worker that could take it was there for too long: the plan says how each stands.
    Hopeless(String),
}

/// A place on a worker, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    board: Arc<Board>,
    /// Of the worker.
    pub(super) worker: usize,
    gpus: u32,
    /// When it was given, awake time.
    pub(super) since: Duration,
}

/// A run's place in the order of all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// All workers of a fleet and all runs that wait.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    awake: Arc<Awake>,
    pace: Pace,
}

#[derive(Debug, Default)]
struct State {
    workers: Vec<Worker>,
    queues: BTreeMap<Needs, Queue>,
    groups: BTreeMap<String, Group>,
    tickets: u64,
}

#[derive(Debug, Default)]
struct Worker {
    name: String,
    offer: Option<Arc<Offer>>,
    connection: Connection,
    standing: Standing,
    /// Runs of ours, by the GPUs that they need.
    taken: BTreeMap<u32, usize>,
    /// It said that its slots are taken: until then.
    rests: Option<Duration>,
    /// One slot is left free for somebody else: until then.
    yields: Option<Duration>,
    /// Since when all its slots are ours, or we left one free last.
    full_since: Option<Duration>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Connection {
    #[default]
    Away,
    Open,
    Draining,
}

#[derive(Debug)]
struct Queue {
    waiting: BTreeMap<u64, Waiter>,
    /// Workers that could take these runs, and are of the group's kind.
    able: Vec<bool>,
    /// When such a worker was last there.
    hope: Duration,
}

#[derive(Debug)]
struct Waiter {
    variant: String,
    tell: oneshot::Sender<Told>,
}

#[derive(Debug, Default)]
struct Group {
    kind: Option<String>,
    used: u64,
    of_group: BTreeMap<usize, usize>,
    of_variant: BTreeMap<(String, usize), usize>,
}

impl Board {
    pub(super) fn new(names: Vec<String>, awake: Arc<Awake>, pace: Pace) -> Arc<Self> {
        let workers = names.into_iter().map(|name| Worker { name, ..Worker::default() }).collect();
        let state = State { workers, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), awake, pace })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker came, went, or said something new.
    pub(super) fn seen(self: &Arc<Self>, worker: usize, state: &LinkState, view: Option<&WorkerView>) {
        let offer = view.map(|view| Arc::new(Offer::of(&view.info)));
        let mut board = self.lock();
        let Some(entry) = board.workers.get_mut(worker) else { return };
        entry.connection = match state {
            LinkState::Open => Connection::Open,
            LinkState::Draining => Connection::Draining,
            LinkState::Connecting { .. } | LinkState::SetAside { .. } => Connection::Away,
        };
        let changed = entry.offer != offer;
        if changed {
            entry.offer = offer;
            board.settle_able();
        }
        let deliveries = self.pump(&mut board, if changed { None } else { Some(worker) });
        drop(board);
        deliver(deliveries);
    }

    /// A place in the queue; the receiver is told. A run that was refused somewhere keeps its ticket.
    pub(super) fn queue(
        self: &Arc<Self>,
        needs: &Needs,
        variant: &str,
        ticket: Option<Ticket>,
    ) -> (Ticket, oneshot::Receiver<Told>) {
        let (tell, told) = oneshot::channel();
        let mut board = self.lock();
        board.tickets += 1;
        let ticket = ticket.unwrap_or(Ticket(board.tickets));
        let now = self.awake.now();
        if !board.queues.contains_key(needs) {
            let able = board.able(needs);
            board.queues.insert(needs.clone(), Queue { waiting: BTreeMap::new(), able, hope: now });
        }
        if let Some(queue) = board.queues.get_mut(needs) {
            queue.waiting.insert(ticket.0, Waiter { variant: variant.to_owned(), tell });
        }
        let deliveries = self.pump_one(&mut board, needs);
        drop(board);
        deliver(deliveries);
        (ticket, told)
    }

    /// A worker said that its slots are taken, for so long at least.
    pub(super) fn refused(&self, worker: usize, longest: Duration) {
        let until = self.awake.now() + longest;
        if let Some(entry) = self.lock().workers.get_mut(worker) {
            entry.rests = Some(until);
            entry.full_since = None;
        }
    }

    /// A worker said that it drains, before it was asked anew.
    pub(super) fn drains(&self, worker: usize) {
        if let Some(entry) = self.lock().workers.get_mut(worker) {
            entry.connection = Connection::Draining;
        }
    }

    /// A run failed by the worker's own doing.
    pub(super) fn failed(&self, worker: usize, begun: Duration, reason: &str) {
        let now = self.awake.now();
        let cooling = Cooling { first: self.pace.aside, longest: self.pace.aside_longest };
        if let Some(entry) = self.lock().workers.get_mut(worker) {
            entry.standing.failed(begun, now, reason, cooling);
            if let Some((reason, left)) = entry.standing.aside(now) {
                tracing::warn!(
                    worker = entry.name,
                    reason,
                    seconds = left.as_secs(),
                    "a worker is set aside"
                );
            }
        }
    }

    /// A run ended as a run should.
    pub(super) fn succeeded(&self, worker: usize) {
        if let Some(entry) = self.lock().workers.get_mut(worker) {
            entry.standing.succeeded();
        }
    }

    /// Why a worker is set aside, and the runs of ours on it.
    pub(super) fn standing(&self, worker: usize) -> (Option<String>, usize) {
        let now = self.awake.now();
        let board = self.lock();
        let Some(entry) = board.workers.get(worker) else { return (None, 0) };
        let aside = entry.standing.aside(now).map(|(reason, _)| reason.to_owned());
        (aside, entry.taken.values().sum())
    }

    /// Runs of this group go on to the kind of device that this worker has.
    pub(super) fn bind(&self, group: &str, worker: usize, gpus: u32) {
        let mut board = self.lock();
        let offer = board.workers.get(worker).and_then(|worker| worker.offer.clone());
        let Some(offer) = offer else { return };
        let kind = offer.kind(&Needs { gpus, ..Needs::default() }).to_owned();
        board.group(group).kind.get_or_insert(kind);
        board.settle_able();
    }

    /// The plan for one more such run, as things are now.
    pub(super) fn plan(&self, needs: &Needs, variant: &str) -> Plan {
        let board = self.lock();
        let kind = board.groups.get(&needs.group).and_then(|group| group.kind.clone());
        place(&board.candidates(needs, variant, self.awake.now()), needs, kind.as_deref())
    }

    /// Time has passed: workers have rested, and runs may have waited for too long.
    pub(super) fn tick(self: &Arc<Self>) {
        let now = self.awake.now();
        let mut board = self.lock();
        let mut rested = false;
        for worker in &mut board.workers {
            for until in [&mut worker.rests, &mut worker.yields] {
                if until.is_some_and(|until| until <= now) {
                    *until = None;
                    rested = true;
                }
            }
        }
        // One that was set aside is taken back by itself; nobody tells.
        let aside = board.workers.iter().any(|worker| worker.standing != Standing::default());
        let mut deliveries = if rested || aside { self.pump(&mut board, None) } else { Vec::new() };
        deliveries.extend(self.hopeless(&mut board, now));
        drop(board);
        deliver(deliveries);
    }

    fn hopeless(&self, board: &mut State, now: Duration) -> Vec<(oneshot::Sender<Told>, Told)> {
        let there: Vec<bool> = board
            .workers
            .iter()
            .map(|w| w.connection == Connection::Open && w.standing.aside(now).is_none())
            .collect();
        let mut gone = Vec::new();
        for (needs, queue) in &mut board.queues {
            if queue.able.iter().zip(&there).any(|(able, there)| *able && *there) {
                queue.hope = now;
            } else if now.saturating_sub(queue.hope) >= self.pace.patience && !queue.waiting.is_empty() {
                gone.push(needs.clone());
            }
        }
        let mut told = Vec::new();
        for needs in gone {
            let kind = board.groups.get(&needs.group).and_then(|group| group.kind.clone());
            let plan = place(&board.candidates(&needs, "", now), &needs, kind.as_deref());
            let Some(queue) = board.queues.remove(&needs) else { continue };
            for waiter in queue.waiting.into_values() {
                told.push((waiter.tell, Told::Hopeless(plan.to_string())));
            }
        }
        told
    }

    /// Gives out what can be given out; `only` is the one worker that changed.
    fn pump(self: &Arc<Self>, board: &mut State, only: Option<usize>) -> Vec<(oneshot::Sender<Told>, Told)> {
        let now = self.awake.now();
        let mut told = Vec::new();
        let mut open: Vec<(u64, Needs)> = Vec::new();
        for (needs, queue) in &board.queues {
            let able = only.is_none_or(|worker| queue.able.get(worker).copied().unwrap_or(true));
            if let Some((ticket, _)) = queue.waiting.first_key_value().filter(|_| able) {
                open.push((*ticket, needs.clone()));
            }
        }
        // The oldest first, over all queues; a queue whose oldest finds no place is left for now.
        let mut open: VecDeque<(u64, Needs)> = {
            open.sort_by_key(|(ticket, _)| *ticket);
            open.into()
        };
        while let Some((_, needs)) = open.pop_front() {
            if !board.has_place(&needs, now, only) {
                continue;
            }
            if let Some(delivery) = self.place_first(board, &needs, now) {
                told.extend(delivery);
                let next = board.queues.get(&needs).and_then(|queue| queue.waiting.keys().next().copied());
                if let Some(ticket) = next {
                    let at = open.partition_point(|(other, _)| *other < ticket);
                    open.insert(at, (ticket, needs));
                }
            }
        }
        board.queues.retain(|_, queue| !queue.waiting.is_empty());
        told
    }

    fn pump_one(self: &Arc<Self>, board: &mut State, needs: &Needs) -> Vec<(oneshot::Sender<Told>, Told)> {
        let now = self.awake.now();
        let mut told = Vec::new();
        while board.has_place(needs, now, None) {
            let Some(delivery) = self.place_first(board, needs, now) else { break };
            told.extend(delivery);
        }
        if board.queues.get(needs).is_some_and(|queue| queue.waiting.is_empty()) {
            board.queues.remove(needs);
        }
        told
    }

    /// Places the oldest run of a queue; `None` where it has to wait.
    fn place_first(
        self: &Arc<Self>,
        board: &mut State,
        needs: &Needs,
        now: Duration,
    ) -> Option<Vec<(oneshot::Sender<Told>, Told)>> {
        let queue = board.queues.get(needs)?;
        let (ticket, waiter) = queue.waiting.first_key_value()?;
        let (ticket, variant) = (*ticket, waiter.variant.clone());
        let kind = board.groups.get(&needs.group).and_then(|group| group.kind.clone());
        let bound = kind.is_some();
        let plan = place(&board.candidates(needs, &variant, now), needs, kind.as_deref());
        tracing::trace!(ticket, %plan, "placed");
        match plan.decision {
            Decision::Wait => None,
            Decision::Refuse { field, reason } => {
                let queue = board.queues.get_mut(needs)?;
                let waiting = std::mem::take(&mut queue.waiting);
                let refused = |waiter: Waiter| (waiter.tell, Told::Refused { field, reason: reason.clone() });
                Some(waiting.into_values().map(refused).collect())
            }
            Decision::On(worker) => {
                let waiter = board.queues.get_mut(needs)?.waiting.remove(&ticket)?;
                if waiter.tell.is_closed() {
                    return Some(Vec::new());
                }
                if !needs.group.is_empty() {
                    let group = board.group(&needs.group);
                    group.kind = plan.kind;
                    *group.of_group.entry(worker).or_default() += 1;
                    *group.of_variant.entry((variant, worker)).or_default() += 1;
                    if !bound {
                        board.settle_able();
                    }
                }
                *board.workers.get_mut(worker)?.taken.entry(needs.gpus).or_default() += 1;
                let seat = Seat { board: self.clone(), worker, gpus: needs.gpus, since: now };
                Some(vec![(waiter.tell, Told::Seat(seat))])
            }
        }
    }

    fn give_back(self: &Arc<Self>, worker: usize, gpus: u32) {
        let now = self.awake.now();
        let mut board = self.lock();
        let Some(entry) = board.workers.get_mut(worker) else { return };
        let full = entry.is_full();
        if let Some(count) = entry.taken.get_mut(&gpus) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                entry.taken.remove(&gpus);
            }
        }
        // Another controller may have been refused here again and again, and nobody tells us.
        match entry.full_since {
            _ if !full => entry.full_since = None,
            None => entry.full_since = Some(now),
            Some(since) if now.saturating_sub(since) >= self.pace.yield_every => {
                entry.full_since = Some(now);
                entry.yields = Some(now + self.pace.yield_for);
            }
            Some(_) => {}
        }
        let deliveries = self.pump(&mut board, Some(worker));
        drop(board);
        deliver(deliveries);
    }
}

/// Outside of the lock: a seat that nobody takes any more comes back at once.
fn deliver(deliveries: Vec<(oneshot::Sender<Told>, Told)>) {
    for (tell, told) in deliveries {
        // Whoever waited has gone: the seat is dropped with the message.
        tell.send(told).ok();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.board.clone().give_back(self.worker, self.gpus);
    }
}

impl Worker {
    fn is_full(&self) -> bool {
        let slots = self.offer.as_ref().map_or(0, |offer| offer.all_slots());
        slots > 0 && self.taken.values().sum::<usize>() >= slots
    }

    fn not_now(&self, now: Duration) -> Option<NotNow<'_>> {
        match self.connection {
            Connection::Away => return Some(NotNow::Away),
            Connection::Draining => return Some(NotNow::Draining),
            Connection::Open => {}
        }
        if let Some((reason, _)) = self.standing.aside(now) {
            return Some(NotNow::Aside(reason));
        }
        let rests = self.rests.is_some_and(|until| until > now);
        let left_free = self.yields.is_some_and(|until| until > now) && self.is_full_but_one();
        (rests || left_free).then_some(NotNow::Resting)
    }

    fn is_full_but_one(&self) -> bool {
        let slots = self.offer.as_ref().map_or(0, |offer| offer.all_slots());
        self.taken.values().sum::<usize>() + 1 >= slots
    }
}

impl State {
    fn candidates<'a>(&'a self, needs: &Needs, variant: &str, now: Duration) -> Vec<Candidate<'a>> {
        let group = self.groups.get(&needs.group);
        let key = |worker| (variant.to_owned(), worker);
        let candidate = |(index, worker): (usize, &'a Worker)| Candidate {
            name: &worker.name,
            offer: worker.offer.as_deref(),
            not_now: worker.not_now(now),
            taken: &worker.taken,
            of_variant: group.and_then(|g| g.of_variant.get(&key(index))).copied().unwrap_or(0),
            of_group: group.and_then(|g| g.of_group.get(&index)).copied().unwrap_or(0),
        };
        self.workers.iter().enumerate().map(candidate).collect()
    }

    /// Whether looking for a place is worth it: some worker that could take such runs has room, or none ever could.
    fn has_place(&self, needs: &Needs, now: Duration, only: Option<usize>) -> bool {
        let Some(queue) = self.queues.get(needs) else { return false };
        if queue.waiting.is_empty() {
            return false;
        }
        let never = !queue.able.contains(&true) && self.workers.iter().all(|worker| worker.offer.is_some());
        let room = |index: usize| {
            let worker = &self.workers[index];
            queue.able[index]
                && worker.not_now(now).is_none()
                && worker.offer.as_ref().is_some_and(|offer| offer.has_room(&worker.taken, needs))
        };
        never
            || match only {
                Some(index) => room(index),
                None => (0..self.workers.len()).any(room),
            }
    }

    fn able(&self, needs: &Needs) -> Vec<bool> {
        let kind = self.groups.get(&needs.group).and_then(|group| group.kind.as_deref());
        let able = |worker: &Worker| {
            worker.offer.as_ref().is_some_and(|offer| {
                offer.could_take(needs).is_ok() && kind.is_none_or(|kind| kind == offer.kind(needs))
            })
        };
        self.workers.iter().map(able).collect()
    }

    fn settle_able(&mut self) {
        let needs: Vec<Needs> = self.queues.keys().cloned().collect();
        for needs in needs {
            let able = self.able(&needs);
            if let Some(queue) = self.queues.get_mut(&needs) {
                queue.able = able;
            }
        }
    }

    fn group(&mut self, name: &str) -> &mut Group {
        if self.groups.len() >= GROUPS && !self.groups.contains_key(name) {
            let oldest = self.groups.iter().min_by_key(|(_, group)| group.used).map(|(name, _)| name.clone());
            self.groups.remove(&oldest.unwrap_or_default());
        }
        let used = self.tickets;
        let group = self.groups.entry(name.to_owned()).or_default();
        group.used = used;
        group
    }
}
