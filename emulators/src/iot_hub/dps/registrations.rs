//! The registrations, and how far each has come. No I/O, no clock.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// What a device asks for.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    Register { body: &'a [u8] },
    Poll { operation_id: &'a str },
    Look,
}

/// Registrations remembered at most.
const MAX_REGISTRATIONS: usize = 1_000_000;

/// Longest registration id.
const MAX_ID: usize = 128;

/// What a registration comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Assigned,
    Failed,
    Disabled,
}

/// By registration id in lower case.
#[derive(Default)]
pub struct Registrations(BTreeMap<String, Registration>);

#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// As it was spelt first.
    pub registration_id: String,
    /// Nothing while it is being assigned.
    pub outcome: Option<Outcome>,
    pub assigned_hub: Option<String>,
    /// How often it was asked to be registered, whatever the answer.
    pub register_calls: u64,
    /// How often an operation's status was asked for, whatever the answer.
    polls: u64,
    /// How many of both were answered with an error or not at all.
    refused: u64,
    /// How often it was assigned.
    assignments: u64,
    pub created: Option<DateTime<Utc>>,
    pub updated: Option<DateTime<Utc>>,
    pub etag: String,
    operation: Option<Operation>,
}

#[derive(Clone, Debug)]
struct Operation {
    id: String,
    /// How often its status was asked for.
    polls: u32,
    done: bool,
}

impl Registrations {
    /// Counts a request; false if it is for a registration more than there may be.
    pub fn count(&mut self, id: &str, step: Step<'_>) -> bool {
        let key = id.to_ascii_lowercase();
        if self.0.len() >= MAX_REGISTRATIONS && !self.0.contains_key(&key) {
            return false;
        }
        let registration = self.entry(id);
        match step {
            Step::Register { .. } => registration.register_calls += 1,
            Step::Poll { .. } => registration.polls += 1,
            Step::Look => {}
        }
        true
    }

    /// Counts a request that was not answered, or with an error.
    pub fn refused(&mut self, id: &str) {
        if let Some(registration) = self.0.get_mut(&id.to_ascii_lowercase()) {
            registration.refused += 1;
        }
    }

    pub fn get(&self, id: &str) -> Option<&Registration> {
        self.0.get(&id.to_ascii_lowercase())
    }

    pub fn all(&self) -> impl Iterator<Item = &Registration> {
        self.0.values()
    }

    /// Begins to register; returns the operation's id. An older operation is forgotten.
    pub fn start(&mut self, id: &str, now: DateTime<Utc>) -> String {
        let registration = self.entry(id);
        registration.created.get_or_insert(now);
        let operation_id = format!("5.{:016x}.{:032x}", fastrand::u64(..), fastrand::u128(..));
        registration.outcome = None;
        registration.operation = Some(Operation { id: operation_id.clone(), polls: 0, done: false });
        operation_id
    }

    /// How an operation stands: nothing if there is no such operation, nothing in it while it goes on. After
    /// `assigning_polls` polls it comes to its `outcome`, which is asked for once.
    pub fn poll(
        &mut self,
        id: &str,
        operation_id: &str,
        assigning_polls: u32,
        outcome: impl FnOnce() -> Outcome,
        hub: &str,
        now: DateTime<Utc>,
    ) -> Option<Option<&Registration>> {
        let registration = self.0.get_mut(&id.to_ascii_lowercase())?;
        let operation = registration.operation.as_mut().filter(|operation| operation.id == operation_id)?;
        operation.polls = operation.polls.saturating_add(1);
        if !operation.done && operation.polls <= assigning_polls {
            return Some(None);
        }
        if !operation.done {
            operation.done = true;
            let outcome = outcome();
            registration.outcome = Some(outcome);
            registration.updated = Some(now);
            registration.etag = format!("{:032x}", fastrand::u128(..));
            let assigned = outcome == Outcome::Assigned;
            registration.assigned_hub = assigned.then(|| hub.to_owned());
            registration.assignments += u64::from(assigned);
        }
        Some(Some(registration))
    }

    fn entry(&mut self, id: &str) -> &mut Registration {
        let new = || Registration { registration_id: id.to_owned(), ..Registration::default() };
        self.0.entry(id.to_ascii_lowercase()).or_insert_with(new)
    }
}

impl Registration {
    /// In Microsoft's words.
    pub fn status(&self) -> &'static str {
        match (self.outcome, &self.operation) {
            (Some(Outcome::Assigned), _) => "assigned",
            (Some(Outcome::Failed), _) => "failed",
            (Some(Outcome::Disabled), _) => "disabled",
            (None, Some(_)) => "assigning",
            (None, None) => "unassigned",
        }
    }

    /// For the control endpoint.
    pub fn to_json(&self) -> Value {
        json!({
            "registrationId": self.registration_id,
            "status": self.status(),
            "assignedHub": self.assigned_hub,
            "registerCalls": self.register_calls,
            "polls": self.polls,
            "refused": self.refused,
            "assignments": self.assignments,
        })
    }
}

/// The rule for registration ids.
pub fn is_registration_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let good_end = id.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '-');
    id.len() <= MAX_ID && id.bytes().all(allowed) && good_end
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    /// Starts an operation and polls until it is done: its outcome's name and the number of polls.
    fn register(registrations: &mut Registrations, id: &str, polls: u32, outcome: Outcome) -> (&'static str, u32) {
        let operation = registrations.start(id, NOW);
        let mut number = 1;
        loop {
            match registrations.poll(id, &operation, polls, || outcome, "hub", NOW).expect("there is an operation") {
                Some(registration) => return (registration.status(), number),
                None => number += 1,
            }
        }
    }

    #[test]
    fn a_registration_comes_to_its_outcome_after_so_many_polls() {
        let mut registrations = Registrations::default();
        assert_eq!(register(&mut registrations, "d", 0, Outcome::Assigned), ("assigned", 1));
        assert_eq!(register(&mut registrations, "d", 3, Outcome::Assigned), ("assigned", 4));
        assert_eq!(registrations.get("d").unwrap().assigned_hub.as_deref(), Some("hub"));
        assert_eq!(register(&mut registrations, "d", 1, Outcome::Disabled), ("disabled", 2));
        assert_eq!(registrations.get("d").unwrap().assigned_hub, None);
        assert_eq!(registrations.get("d").unwrap().to_json()["assignments"], 2);
    }

    #[test]
    fn what_an_operation_came_to_does_not_change() {
        let mut registrations = Registrations::default();
        let operation = registrations.start("d", NOW);
        for later in [Outcome::Failed, Outcome::Assigned] {
            let polled = registrations.poll("d", &operation, 0, || later, "hub", NOW);
            assert_eq!(polled.unwrap().unwrap().status(), "failed");
        }
    }

    #[test]
    fn only_the_newest_operation_of_a_registration_is_known() {
        let mut registrations = Registrations::default();
        let (older, newer) = (registrations.start("d", NOW), registrations.start("D", NOW));
        let mut poll =
            |id: &str, operation: &str| registrations.poll(id, operation, 1, || Outcome::Failed, "", NOW).is_some();
        assert!(!poll("d", &older) && !poll("e", &newer) && poll("d", &newer));
        assert_eq!(registrations.get("d").unwrap().status(), "assigning");
    }

    #[test]
    fn spellings_that_differ_in_case_are_one_registration() {
        let mut registrations = Registrations::default();
        for id in ["Meter-1", "METER-1"] {
            assert!(registrations.count(id, Step::Register { body: b"" }));
            registrations.start(id, NOW);
        }
        registrations.count("meter-1", Step::Poll { operation_id: "" });
        registrations.refused("meter-1");
        let all: Vec<_> = registrations.all().map(Registration::to_json).collect();
        let expected = json!({
            "registrationId": "Meter-1", "status": "assigning", "assignedHub": null, "registerCalls": 2, "polls": 1,
            "refused": 1, "assignments": 0,
        });
        assert_eq!(all, [expected]);
    }

    #[test]
    fn registration_ids_follow_the_rule() {
        for id in ["a", "A-1._:b", "a-", &"x".repeat(128)] {
            assert!(is_registration_id(id), "{id}");
        }
        for id in ["", "a.", "a_", "a b", "a/b", "ä", &"x".repeat(129)] {
            assert!(!is_registration_id(id), "{id}");
        }
    }
}
