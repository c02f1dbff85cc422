//! A batch of sites: the text of a message in the queue of `PollQueueName`. Pure.
//!
//! A batch is an order for one run, no data: if it is lost or dropped, the next run has its sites.

use std::{iter::Peekable, vec};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{order::Due, sites::Task};
use crate::{
    rapidm2m::{Site, Stamp, ledger::SiteKey},
    support::http::{MAX_ERROR_TEXT, one_line},
};

/// Tells a batch from other messages.
const KIND: &str = "rapidM2MSites";
const VERSION: u32 = 1;
/// A message has at most 64 KiB, and the host wants it in Base64.
const MOST_BYTES: usize = 64 * 1024 / 4 * 3;

/// What all batches of a run have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub customer: String,
    pub began: DateTime<Utc>,
    /// The next run has the same sites.
    pub until: DateTime<Utc>,
    /// Of all batches together.
    pub requests_per_second: f64,
    /// Stands for the credentials that the backend has just accepted.
    pub credentials: String,
    /// Whether sites without a cursor may begin.
    pub begins: bool,
    /// The sites that were left out, since they have no news.
    pub quiet: usize,
}

/// A batch as it is worked on.
#[derive(Debug, PartialEq)]
pub struct Batch {
    pub began: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// The part of the backend's rate that is meant for it.
    pub requests_per_second: f64,
    pub credentials: String,
    pub begins: bool,
    /// How many sites it stands for: its own, and its part of those that were left out.
    pub stands_for: usize,
    pub due: Vec<Due>,
}

/// Why a message is not worked on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody knows what it is, so it must not be lost.
    #[error("it is not a batch of sites: {0}")]
    Foreign(String),
    #[error("it is a batch of another version of the connector ({0})")]
    Version(u32),
    #[error("it is a batch of the customer {0:?}: each app needs a PollQueueName of its own")]
    Customer(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document<Sites> {
    kind: String,
    version: u32,
    customer: String,
    began: DateTime<Utc>,
    until: DateTime<Utc>,
    requests_per_second: f64,
    credentials: String,
    begins: bool,
    stands_for: usize,
    sites: Sites,
}

/// What every version has.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Heading {
    kind: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default, skip_serializing_if = "is_poll")]
    task: Task,
    /// `Site_Id` of its documents.
    place: String,
    /// If it is not that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_waiting: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_poll(task: &Task) -> bool {
    *task == Task::Poll
}

/// Batches of at most so many sites, one after the other: a fleet's texts need not be in memory at once.
pub struct Batches {
    run: Run,
    most_sites: usize,
    total: usize,
    due: Peekable<vec::IntoIter<Due>>,
    /// Sites whose names are so long that no message holds them.
    pub too_long: Vec<Due>,
}

/// A batch for the queue.
pub struct Text {
    pub text: String,
    pub due: Vec<Due>,
}

impl Run {
    /// Cuts these sites into batches.
    pub fn batches(self, due: Vec<Due>, most_sites: usize) -> Batches {
        let (total, due) = (due.len(), due.into_iter().peekable());
        Batches { run: self, most_sites: most_sites.max(1), total, due, too_long: Vec::new() }
    }
}

impl Iterator for Batches {
    type Item = Text;

    fn next(&mut self) -> Option<Text> {
        let room = MOST_BYTES.saturating_sub(self.text(0, &[]).len());
        let (mut due, mut entries, mut size) = (Vec::new(), Vec::<Box<RawValue>>::new(), 0);
        while due.len() < self.most_sites
            && let Some(next) = self.due.peek()
        {
            let entry = serde_json::value::to_raw_value(&Entry::of(next)).expect("its members are texts");
            // With the comma.
            let length = entry.get().len() + 1;
            if length > room {
                self.too_long.extend(self.due.next());
                continue;
            }
            if size + length > room {
                break;
            }
            size += length;
            entries.push(entry);
            due.extend(self.due.next());
        }
        if due.is_empty() {
            return None;
        }
        let text = self.text(due.len(), &entries);
        Some(Text { text, due })
    }
}

impl Batches {
    fn text(&self, sites: usize, entries: &[Box<RawValue>]) -> String {
        let run = &self.run;
        let document = Document {
            kind: KIND.to_owned(),
            version: VERSION,
            customer: run.customer.clone(),
            began: run.began,
            until: run.until,
            // As many digits as any share has.
            requests_per_second: if sites == 0 { f64::MIN_POSITIVE } else { self.share(sites) },
            credentials: run.credentials.clone(),
            begins: run.begins,
            stands_for: if sites == 0 { usize::MAX } else { sites + run.quiet * sites / self.total },
            sites: entries,
        };
        serde_json::to_string(&document).expect("its members are texts and numbers")
    }

    fn share(&self, sites: usize) -> f64 {
        self.run.requests_per_second * sites as f64 / self.total as f64
    }
}

impl Batch {
    /// # Errors
    /// See [`Refused`].
    pub fn parse(text: &str, customer: &str) -> Result<Self, Refused> {
        let foreign = |error: serde_json::Error| Refused::Foreign(one_line(&error.to_string(), MAX_ERROR_TEXT));
        let Heading { kind, version } = serde_json::from_str(text).map_err(foreign)?;
        if kind != KIND {
            return Err(Refused::Foreign(format!("its Kind is not {KIND}")));
        }
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        let document: Document<Vec<Entry>> = serde_json::from_str(text).map_err(foreign)?;
        if document.customer != customer {
            return Err(Refused::Customer(document.customer));
        }
        Ok(Self {
            began: document.began,
            until: document.until,
            requests_per_second: document.requests_per_second,
            credentials: document.credentials,
            begins: document.begins,
            stands_for: document.stands_for,
            due: document.sites.into_iter().map(|entry| entry.due(customer)).collect(),
        })
    }
}

impl Entry {
    fn of(due: &Due) -> Self {
        let Due { task, site, has_waiting } = due;
        Self {
            task: *task,
            place: site.key.site.clone(),
            name: site.other_name().cloned(),
            uid: site.uid.clone(),
            contact: site.contact.map(Stamp::time),
            has_waiting: *has_waiting,
        }
    }

    fn due(self, customer: &str) -> Due {
        let name = self.name.unwrap_or_else(|| self.place.clone());
        let key = SiteKey { customer: customer.to_owned(), site: self.place };
        let site = Site { key, name, uid: self.uid, contact: self.contact.map(Stamp::from_time) };
        Due { task: self.task, site, has_waiting: self.has_waiting }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn due(number: usize, name: &str) -> Due {
        let key = SiteKey { customer: "c".into(), site: format!("{name}{number}") };
        let uid = number.is_multiple_of(2).then(|| format!("{number:016x}"));
        let contact = number.is_multiple_of(3).then(|| Stamp::BEGINNING.shifted(number as i64));
        let task = [Task::Poll, Task::Send, Task::Leave][number % 3];
        let site = Site {
            key,
            name: if number.is_multiple_of(5) { "other".into() } else { format!("{name}{number}") },
            uid,
            contact,
        };
        Due { task, site, has_waiting: number.is_multiple_of(7) }
    }

    fn run() -> Run {
        let began = "2026-01-31T12:00:00.123456789Z".parse().unwrap();
        Run {
            customer: "c".into(),
            began,
            until: began + chrono::TimeDelta::seconds(60),
            requests_per_second: 80.0,
            credentials: "mark".into(),
            begins: true,
            quiet: 800,
        }
    }

    fn parsed(texts: &[Text]) -> Vec<Batch> {
        texts.iter().map(|text| Batch::parse(&text.text, "c").unwrap()).collect()
    }

    proptest! {
        #[test]
        fn batches_hold_all_sites_and_fit_a_message(
            count in 1_usize..800, most_sites in 1_usize..500, name in "(\\PC|[\"\\\\]){0,300}"
        ) {
            let all: Vec<_> = (0..count).map(|number| due(number, &name)).collect();
            let mut batches = run().batches(all.clone(), most_sites);
            let texts: Vec<_> = batches.by_ref().collect();
            prop_assert!(batches.too_long.is_empty());
            for text in &texts {
                prop_assert!(text.due.len() <= most_sites && text.text.len().div_ceil(3) * 4 <= 64 * 1024);
            }
            let batches = parsed(&texts);
            prop_assert_eq!(batches.iter().flat_map(|batch| batch.due.clone()).collect::<Vec<_>>(), all);
            let rate: f64 = batches.iter().map(|batch| batch.requests_per_second).sum();
            prop_assert!((rate - 80.0).abs() < 1e-6, "{rate}");
            let stands_for: usize = batches.iter().map(|batch| batch.stands_for).sum();
            prop_assert!(stands_for <= count + 800 && stands_for + batches.len() > count + 800, "{stands_for}");
        }

        #[test]
        fn no_message_makes_it_panic(text: String) {
            let _ = Batch::parse(&text, "c");
        }
    }

    #[test]
    fn what_fits_no_message_is_left_over() {
        let mut batches = run().batches(vec![due(1, "a"), due(2, &"b".repeat(60_000)), due(3, "c")], 200);
        let texts: Vec<_> = batches.by_ref().collect();
        assert_eq!((texts.len(), texts[0].due.len(), batches.too_long.len()), (1, 2, 1));
        let batch = &parsed(&texts)[0];
        assert_eq!((batch.began, batch.until, batch.begins), (run().began, run().until, true));
        assert_eq!(batch.credentials, "mark");
        assert!((batch.requests_per_second - 80.0 * 2.0 / 3.0).abs() < 1e-9, "the third one is polled elsewhere");
    }

    #[test]
    fn a_batch_of_others_is_told_from_what_is_none() {
        let text = run().batches(vec![due(1, "a")], 1).next().unwrap().text;
        let refused = |text: &str, customer| Batch::parse(text, customer).unwrap_err();
        assert_eq!(refused(&text, "d"), Refused::Customer("c".into()));
        assert_eq!(refused(&text.replace("\"Version\":1", "\"Version\":2,\"New\":[]"), "c"), Refused::Version(2));
        for foreign in
            ["", "hello", "[]", r#"{"Kind":"uplink","Version":1}"#, &text.replace("Sites\":[", "Sites\":[7,")]
        {
            assert!(matches!(refused(foreign, "c"), Refused::Foreign(_)), "{foreign}");
        }
    }
}
