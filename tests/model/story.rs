//! Describes a way through the space in words.

use iothub_connector::{
    iot_hub::Message,
    rapidm2m::ledger::{Outcome as RecordOutcome, Poll},
};

use crate::{
    backend,
    outcomes::{Outcome, Rest},
    poller::{Question, Write},
    state::{State, Step},
    world::World,
};

/// The lines, one for each step.
pub fn tell(start: &State, steps: &[Step]) -> Vec<String> {
    let mut state = start.clone();
    let mut lines = Vec::new();
    for step in steps {
        lines.push(line(&state, *step));
        // The last step is the one that breaks the rule.
        let Ok(next) = state.after(*step) else { break };
        state = next;
    }
    lines
}

fn line(state: &State, step: Step) -> String {
    let World { batches, hub, listings, .. } = &state.world;
    let name = |poller| ["A", "B", "C"][poller];
    match step {
        Step::RowsAppear(batch) => format!("rows {:?} appear in the backend", batches[batch]),
        Step::RowChanges => format!("a value changes in the backend: {:?}", state.world.next_change()),
        Step::ListingChanges => format!("from now on a run is told {:?}", listings.first()),
        Step::WriteLands => "the transaction that was given up is applied".into(),
        Step::MessageArrives => {
            let id = hub.on_their_way.front().map(String::as_str).unwrap_or_default();
            format!("the message of {} that was given up arrives at the hub", rows(id, state))
        }
        Step::Pause => "two minutes pass".into(),
        Step::Begins { poller, is_late: false } => format!("{} begins a turn", name(poller)),
        Step::Marks(poller) => format!("{} begins to mark what is acknowledged", name(poller)),
        Step::Begins { poller, is_late: true } => {
            format!("{} begins a turn when the time for asking is over", name(poller))
        }
        Step::Crashes(poller) => format!("{} crashes; it starts again with empty memory", name(poller)),
        Step::IsCutOff(poller) => format!("{}'s turn is cut off, the process lives on", name(poller)),
        Step::Answered(poller, outcome) => {
            let question = state.pollers[poller].turn.as_ref().map(|turn| question(&turn.question, state));
            format!("{} {}: {}", name(poller), question.unwrap_or_default(), ending(outcome, poller, state))
        }
    }
}

fn rows(message_id: &str, state: &State) -> String {
    state
        .world
        .store
        .by_message(message_id)
        .map_or("rows unknown".into(), |(_, record)| format!("rows {:?}", record.rows))
}

fn question(question: &Question, state: &State) -> String {
    match question {
        Question::Cursor => "reads the cursor".into(),
        Question::Record(id) => {
            let record = state.world.store.record(id);
            format!("reads the record of rows {:?}", record.map_or(&[][..], |record| &*record.rows))
        }
        Question::Rows(range) => {
            format!("asks for rows, there are {:?}", backend::within(*range, &state.world.rows))
        }
        Question::Commit(write) => commit(write, state),
        Question::Send(messages) => {
            let of = |message: &Message| rows(&message.id, state);
            format!("sends [{}]", messages.iter().map(of).collect::<Vec<_>>().join(", "))
        }
    }
}

fn commit(write: &Write, state: &State) -> String {
    let created = |poll: &Poll| match poll.outcome {
        RecordOutcome::Pending => format!("records {} rows", poll.result.rows),
        outcome => format!("records {outcome:?} ({:?})", poll.result.bad_rows),
    };
    let replaced = |poll: &Poll| {
        format!("marks {} {:?}", rows(poll.message_id.as_deref().unwrap_or_default(), state), poll.outcome)
    };
    let what: Vec<_> = write.created.iter().map(created).chain(write.replaced.iter().map(replaced)).collect();
    let what = if what.is_empty() { "writes the cursor alone".into() } else { what.join(", ") };
    let age = if write.etag == state.world.store.etag() { "current" } else { "old" };
    format!("{what}, by the {age} cursor")
}

fn ending(outcome: Outcome, poller: usize, state: &State) -> String {
    let question = state.pollers[poller].turn.as_ref().map(|turn| &*turn.question);
    match (outcome, question) {
        (Outcome::Done, Some(Question::Commit(write))) if !state.world.store.takes(write) => "conflict".into(),
        (Outcome::Done, _) => "done".into(),
        (Outcome::Fails, _) => "fails".into(),
        (Outcome::Lags, _) => "sees what was there before".into(),
        (Outcome::Trouble(trouble), _) => format!("the backend answers {}", trouble.kind()),
        (Outcome::AnswerLost, _) => "applied, an error is the answer".into(),
        (Outcome::LandsLater, _) => "given up, still on its way".into(),
        (Outcome::ToldAsConflict, _) => "applied, tried again by the client, a conflict is the answer".into(),
        (Outcome::Refuses(place), _) => format!("{place} acknowledged, the next one is refused for good"),
        (Outcome::Sends { acknowledged, rest }, _) => {
            let rest = match rest {
                Rest::Lost => "the rest is lost",
                Rest::OneArrives => "one more arrives without acknowledgement",
                Rest::ArrivesLater => "the rest is given up, still on its way",
            };
            format!("{acknowledged} acknowledged, {rest}")
        }
    }
}
