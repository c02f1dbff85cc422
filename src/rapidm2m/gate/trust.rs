//! Whether the backend takes the credentials. Pure: times are arguments.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{super::FetchError, Refusals};

/// While nobody knows whether the backend answers, one request is made at a time. If it hangs, the next one may try after
/// this: it may be the one site that hangs.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many refusals in a row, with no answer in between, are meant for everybody. One may be the fault of a site.
const MEANT_FOR_ALL: u32 = 2;

/// What a caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the request at this time. `is_first`: nobody else does, until it is answered.
    Go { at: Instant, is_first: bool },
    /// Look again at this time, or when something has changed.
    WaitUntil(Instant),
    /// There is no place before the deadline.
    Never,
}

#[derive(Debug, Default)]
pub struct Trust {
    /// The backend has answered in this run.
    is_proven: bool,
    /// Until when others wait for the result of the one that tries.
    trying_until: Option<Instant>,
    /// Refusals since the last answer.
    in_a_row: u32,
    refused: Option<FetchError>,
    /// Those that are not refuted by an answer since.
    refusals: Refusals,
    has_news: bool,
    /// The ledger has some.
    are_noted: bool,
    /// When the backend last answered.
    accepted_at: Option<DateTime<Utc>>,
    /// Another process has said that the backend takes the credentials, and nothing is known since.
    is_vouched: bool,
}

impl Trust {
    pub fn new(credentials: String) -> Self {
        Self { refusals: Refusals { credentials, times: Vec::new() }, ..Self::default() }
    }

    pub fn credentials(&self) -> &str {
        &self.refusals.credentials
    }

    /// These credentials have just been accepted elsewhere.
    pub fn vouched(&mut self, credentials: &str) {
        if credentials == self.refusals.credentials {
            (self.in_a_row, self.refused, self.is_vouched) = (0, None, true);
            self.refusals.times.clear();
        }
    }

    /// Takes over refused logins of other processes, as the ledger has them. Those from before the last answer mean nothing.
    pub fn learn(&mut self, refusals: Refusals, now: DateTime<Utc>) {
        let mut others = refusals.of(&self.refusals.credentials, now);
        others.times.retain(|time| self.accepted_at.is_none_or(|accepted| *time > accepted));
        if others.times.is_empty() {
            return;
        }
        self.are_noted = true;
        self.refusals.merge(others);
        self.in_a_row = self.in_a_row.max(MEANT_FOR_ALL - 1);
        if self.refusals.are_too_many() {
            self.refused.get_or_insert(FetchError::Unauthorized { said: String::new() });
        }
    }

    pub fn doubt(&mut self) {
        self.is_proven = false;
    }

    pub fn is_doubt(&self) -> bool {
        !self.is_proven
    }

    /// A request is made at this time. Returns whether it is to find out if the backend answers.
    pub fn tries(&mut self, at: Instant) -> bool {
        if !self.is_proven {
            self.trying_until = Some(at + PATIENCE);
        }
        !self.is_proven
    }

    pub fn nobody_tries(&mut self) {
        self.trying_until = None;
    }

    /// Until when a caller leaves it to another one to find out whether the backend answers.
    pub fn others_try_until(&self, now: Instant) -> Option<Instant> {
        self.trying_until.filter(|until| !self.is_proven && now < *until)
    }

    pub fn accepted(&mut self, now: DateTime<Utc>) {
        (self.is_proven, self.trying_until, self.in_a_row, self.refused) = (true, None, 0, None);
        (self.accepted_at, self.is_vouched) = (Some(now), false);
        // Who may not list sites, say, is refused now and then.
        self.refusals.times.clear();
        self.has_news = self.are_noted;
    }

    pub fn refused_one(&mut self, error: &FetchError, now: DateTime<Utc>) {
        self.is_proven = false;
        self.in_a_row += 1;
        // Each of the instances would make a second attempt. That the password is wrong is not a fault of one site.
        if std::mem::take(&mut self.is_vouched) && matches!(error, FetchError::Unauthorized { .. }) {
            self.in_a_row = MEANT_FOR_ALL;
        }
        self.refusals.add(now);
        if self.in_a_row >= MEANT_FOR_ALL {
            self.refused = Some(error.clone());
            self.has_news = true;
        }
    }

    /// Why no login is tried, and for how long.
    pub fn refused(&self, now: DateTime<Utc>) -> Option<(Duration, FetchError)> {
        let error = self.refused.clone()?;
        let wait = self.refusals.wait(now);
        (!wait.is_zero()).then_some((wait, error))
    }

    /// Goes on where an earlier process left off. A restart may be an operator's who has corrected something: it tries once,
    /// unless there were too many tries already.
    pub fn restore(&mut self, refusals: Refusals, now: DateTime<Utc>) {
        if !self.refusals.times.is_empty() {
            return;
        }
        let refusals = refusals.of(&self.refusals.credentials, now);
        self.are_noted = !refusals.times.is_empty();
        if self.are_noted {
            self.in_a_row = MEANT_FOR_ALL - 1;
        }
        if refusals.are_too_many() {
            self.refused = Some(FetchError::Unauthorized { said: String::new() });
        }
        self.refusals = refusals;
    }

    pub fn take_news(&mut self) -> Option<Refusals> {
        let news = std::mem::take(&mut self.has_news).then(|| self.refusals.clone())?;
        self.are_noted = !news.times.is_empty();
        Some(news)
    }
}
