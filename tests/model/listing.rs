//! What a run is told of the site: its name, and whether it is polled at all. People rename sites, and the backend or the
//! operator takes a site off the list and puts it back.

use iothub_connector::rapidm2m::{
    Site,
    ledger::{Cursor, Outcome, Poll, SiteKey},
    polling::record,
};
use serde_json::Value;

use crate::{
    poller::{Question, Write},
    rules::{Rule, Violation},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listing {
    pub name: &'static str,
    pub task: Task,
}

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    Poll,
    /// The operator does not want the site any more.
    Send,
    /// The backend does not list the site any more.
    Leave,
}

/// At the start.
pub const LISTED: Listing = Listing { name: "s", task: Task::Poll };

impl Listing {
    /// Checks that a turn under this listing may ask this.
    pub fn check_question(self, question: &Question, is_new: impl Fn(&Poll) -> bool) -> Result<(), Violation> {
        match question {
            Question::Rows(_) => {
                Rule::GoneOnce.check(self.task == Task::Poll, || "a site that is not listed is polled".into())
            }
            Question::Commit(write) => self.check_write(write, is_new),
            _ => Ok(()),
        }
    }

    fn check_write(self, write: &Write, is_new: impl Fn(&Poll) -> bool) -> Result<(), Violation> {
        let kept = write.cursor.record.as_deref();
        let messages = write.created.iter().chain(kept).filter(|poll| is_new(poll)).filter_map(record::message);
        for message in messages {
            let body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
            let has =
                |name: &str, value: &str| message.properties.iter().any(|(key, text)| *key == name && text == value);
            let is_right = body["site_id"] == self.name
                && has("Site_Id", self.name)
                && has("Site_Uid", "u")
                && write.cursor.name() == self.name;
            Rule::NamesItsSite.check(is_right, || {
                let name = write.cursor.name();
                format!("the site is {self:?}, in the cursor {name:?}, in a new message {:?}", message.properties)
            })?;
            Rule::GoneOnce.check(self.task == Task::Poll && write.cursor.gone_since.is_none(), || {
                format!("rows are recorded of a site that is gone ({:?}): {self:?}", write.cursor.gone_since)
            })?;
        }
        Ok(())
    }
}

/// The site under this name. Its place and its `_uid` stay.
pub fn site_called(name: &str) -> Site {
    Site { name: name.into(), uid: Some("u".into()), ..Site::of_key(key()) }
}

pub fn key() -> SiteKey {
    SiteKey { customer: "c".into(), site: "s".into() }
}

/// Checks what a transaction changes of the note that the site is gone.
pub fn check_gone(before: &Cursor, after: &Cursor, write: &Write) -> Result<(), Violation> {
    // What the cursor kept becomes a document when it is marked.
    let creates_nothing = write.created.iter().all(|poll| poll.outcome == Outcome::Forwarded);
    let is_right = match (before.gone_since, after.gone_since) {
        (None, Some(_)) => creates_nothing && write.replaced.is_empty(),
        // What waits is sent. What the hub refuses was in the cursor, too, or is a document.
        (Some(since), Some(since_now)) => {
            let was_kept = |poll: &Poll| before.record.as_ref().is_some_and(|kept| kept.id == poll.id);
            since == since_now && write.created.iter().all(was_kept)
        }
        (_, None) => true,
    };
    Rule::GoneOnce.check(is_right, || {
        let [before, after] = [before, after].map(|cursor| cursor.gone_since);
        let (created, replaced) = (write.created.len(), write.replaced.len());
        format!(
            "the site was gone since {before:?}, now since {after:?}, with {created} new and {replaced} old records"
        )
    })
}
