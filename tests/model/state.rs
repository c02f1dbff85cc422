//! One state of everything, and the steps from it.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use iothub_connector::rapidm2m::polling::SiteMemory;

use crate::{
    backend::Value,
    facts::{Facts, check_report},
    listing::LISTED,
    outcomes::{Outcome, Rest, outcomes},
    poller::{self, Answer, Question, Stands, Start},
    rules::{Rule, Violation},
    scope::{Sabotage, Scope},
    text::Known,
    world::World,
};

/// The length of a pause, in seconds: longer than the back-off that the backend requests in the model, and than a
/// site's first back-off.
const PAUSE: i64 = 120;

#[derive(Clone)]
pub struct State {
    pub world: World,
    pub pollers: Vec<Poller>,
}

/// A process that polls.
#[derive(Clone, Default)]
pub struct Poller {
    pub memory: Arc<Known<SiteMemory>>,
    /// Ids of messages that the hub has acknowledged to this process.
    pub acknowledged: BTreeSet<String>,
    pub turn: Option<Turn>,
}

/// A turn that is waiting for an answer.
#[derive(Clone)]
pub struct Turn {
    pub start: Start,
    /// The answers so far.
    pub heard: Vec<Arc<Known<Answer>>>,
    pub question: Arc<Question>,
    pub if_dropped: Arc<Known<SiteMemory>>,
    pub facts: Facts,
}

/// A step that can happen next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// One of the remaining batches appears.
    RowsAppear(usize),
    RowChanges,
    /// From now on a run is told something else of the site.
    ListingChanges,
    WriteLands,
    MessageArrives,
    Pause,
    /// A poller begins a turn.
    Begins {
        poller: usize,
        is_late: bool,
    },
    /// A poller only marks what it knows to be acknowledged.
    Marks(usize),
    /// A poller's question ends with this outcome.
    Answered(usize, Outcome),
    /// A poller's process ends. Another process with an empty memory replaces it.
    Crashes(usize),
    /// A poller's turn is dropped, but its process lives on.
    IsCutOff(usize),
}

impl State {
    pub fn new(world: World) -> Self {
        let pollers = vec![Poller::default(); world.scope.pollers];
        Self { world, pollers }
    }

    /// The start state with the scope's backlog: a poller that is gone recorded it while the hub was away.
    pub fn with_backlog(scope: Scope) -> Result<Self, Violation> {
        // A site is not polled while a message waits that the hub does not take. So each message is recorded by a poller that
        // sees none.
        let quiet = Scope { pollers: 1, keeps_records: false, sabotage: Some(Sabotage::HidesWaiting), ..scope };
        let mut state = Self::new(World::new(quiet));
        let is_in_backlog = |row: &usize| scope.batches.iter().all(|batch| !batch.contains(row));
        for row in (0..).filter(is_in_backlog).take(scope.backlog) {
            state.world.rows.insert(row, Value::First);
            state.pollers = vec![Poller::default()];
            state.take(Step::Begins { poller: 0, is_late: false })?;
            while let Some(turn) = &state.pollers[0].turn {
                let outcome = match &*turn.question {
                    Question::Send(_) => Outcome::Sends { acknowledged: 0, rest: Rest::Lost },
                    _ => Outcome::Done,
                };
                state.take(Step::Answered(0, outcome))?;
            }
        }
        let world = World { scope, left: scope.budget, ..state.world };
        Ok(Self::new(world))
    }

    pub fn steps(&self) -> Vec<Step> {
        let World { scope, left, batches, listings, store, hub, .. } = &self.world;
        let mut steps = Vec::new();
        // A new turn has not touched anything yet, so only its clock depends on when it begins, and what it is told of the
        // site. The model begins it at once.
        let idle = self.pollers.iter().position(|poller| poller.turn.is_none());
        if let (Some(poller), 0, 0, [], false) = (idle, left.late_turns, left.pauses, listings, scope.keeps_records) {
            return vec![Step::Begins { poller, is_late: false }];
        }
        let mut when = |is_possible: bool, step| steps.extend(is_possible.then_some(step));
        for (number, poller) in self.pollers.iter().enumerate() {
            match &poller.turn {
                None => {
                    when(true, Step::Begins { poller: number, is_late: false });
                    when(left.late_turns > 0, Step::Begins { poller: number, is_late: true });
                    when(self.can_mark(poller), Step::Marks(number));
                }
                Some(turn) => {
                    for outcome in outcomes(&self.world, &turn.question) {
                        when(true, Step::Answered(number, outcome));
                    }
                    when(left.crashes > 0, Step::IsCutOff(number));
                }
            }
            when(left.crashes > 0, Step::Crashes(number));
        }
        let any = if scope.overlap.is_some() { batches.len() } else { batches.len().min(1) };
        (0..any).for_each(|batch| when(true, Step::RowsAppear(batch)));
        when(self.world.next_change().is_some(), Step::RowChanges);
        when(!listings.is_empty(), Step::ListingChanges);
        when(store.on_its_way.is_some(), Step::WriteLands);
        when(!hub.on_their_way.is_empty(), Step::MessageArrives);
        when(left.pauses > 0, Step::Pause);
        steps
    }

    /// Whether the record that the cursor keeps is acknowledged to the poller. (If it is not, a turn that only marks does
    /// nothing.)
    fn can_mark(&self, poller: &Poller) -> bool {
        let cursor = self.world.store.cursor.as_ref().map(|committed| &committed.cursor);
        let record = cursor.and_then(|cursor| cursor.record.as_ref());
        let message = record.and_then(|record| record.message_id.as_ref());
        message.is_some_and(|message| poller.acknowledged.contains(message))
    }

    pub fn after(&self, step: Step) -> Result<Self, Violation> {
        let mut next = self.clone();
        next.take(step)?;
        Ok(next)
    }

    fn take(&mut self, step: Step) -> Result<(), Violation> {
        let world = &mut self.world;
        match step {
            Step::RowsAppear(batch) => world.produce(batch),
            Step::RowChanges => {
                if let Some(row) = world.next_change() {
                    world.change(row);
                }
            }
            Step::ListingChanges => world.relist(),
            Step::WriteLands => {
                if let Some(write) = world.store.on_its_way.take() {
                    world.apply(&write)?;
                }
            }
            Step::MessageArrives => {
                if let Some(id) = world.hub.on_their_way.pop_front() {
                    world.hub.take(&id, &world.store)?;
                }
            }
            Step::Pause => {
                world.left.pauses -= 1;
                world.seconds += PAUSE;
            }
            Step::Begins { poller, .. } | Step::Marks(poller) => {
                let is_late = matches!(step, Step::Begins { is_late: true, .. });
                let only_marks = matches!(step, Step::Marks(_));
                let keeps_records = world.scope.keeps_records;
                world.left.late_turns -= u8::from(is_late);
                world.turns += 1;
                let clock_stands = world.scope.most_rows < usize::MAX || world.scope.keeps_records;
                let (number, seconds, overlap) = (world.turns, world.seconds, world.scope.overlap);
                let listing = world.listing;
                let called = if world.breaks(Sabotage::HidesRenames) { LISTED.name } else { listing.name };
                let start = Start {
                    number,
                    clock_stands,
                    seconds,
                    is_late,
                    overlap,
                    listing,
                    only_marks,
                    keeps_records,
                    called,
                };
                self.pollers[poller].goes_on(world, start, Vec::new(), Facts::default())?;
            }
            Step::Answered(poller, outcome) => {
                let poller = &mut self.pollers[poller];
                let Some(Turn { start, mut heard, question, mut facts, .. }) = poller.turn.take() else {
                    return Ok(());
                };
                let answer = world.answer(&question, outcome, &mut facts, &mut poller.acknowledged)?;
                heard.push(Arc::new(answer.into()));
                poller.goes_on(world, start, heard, facts)?;
            }
            Step::Crashes(poller) => {
                world.left.crashes -= 1;
                self.pollers[poller] = Poller::default();
            }
            Step::IsCutOff(poller) => {
                world.left.crashes -= 1;
                let poller = &mut self.pollers[poller];
                if let Some(turn) = poller.turn.take() {
                    poller.memory = turn.if_dropped;
                }
            }
        }
        Ok(())
    }
}

impl Poller {
    /// Runs the turn up to the next question or to its end.
    fn goes_on(
        &mut self,
        world: &World,
        start: Start,
        heard: Vec<Arc<Known<Answer>>>,
        mut facts: Facts,
    ) -> Result<(), Violation> {
        // A panic is reported with the way to it, like every violation.
        let stands = catch_unwind(AssertUnwindSafe(|| poller::run(&self.memory, start, &heard)));
        let stands = stands.map_err(|_| Violation { rule: Rule::NoPanic, what: "its message is above".into() })?;
        match stands {
            Stands::Asking { question, if_dropped } => {
                let question = Arc::new(world.hear(question, start, &mut facts, &self.acknowledged)?);
                self.turn = Some(Turn { start, heard, question, if_dropped: Arc::new((*if_dropped).into()), facts });
            }
            Stands::AtEnd(report, memory) => {
                check_report(&report, &facts)?;
                self.memory = Arc::new((*memory).into());
            }
        }
        Ok(())
    }
}
