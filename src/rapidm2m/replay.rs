//! Puts rejected records back into the queue of their site on the operator's request. The next run sends the same
//! bytes with the same message id.

use crate::rapidm2m::ledger::{Ledger, LedgerError, MAX_BATCH_POLLS, Outcome, Poll, SiteKey};
use crate::rapidm2m::polling::record::{self, MAX_UNFORWARDED};
use crate::support::kind::Kind;

/// How often a transaction is retried if a poller writes to the site in between. A run writes a few times.
const ATTEMPTS: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The record is pending again.
    Yes,
    /// Why the record was not changed, in words that follow "it".
    No(String),
}

/// Why messages were rejected that cannot be put back, or (dropped backfills) only if an operator asks for them.
pub const NOT_PUT_BACK: [Kind; 6] = [
    Kind::MessageTooLarge,
    Kind::HubMessageTooLarge,
    Kind::RecordLost,
    Kind::RecordUnreadable,
    Kind::NoMessage,
    Kind::Dropped,
];

/// Why a record cannot be sent again, in words that follow "it". `None` if it can.
#[must_use]
pub fn refusal(poll: &Poll) -> Option<String> {
    let kind = poll.error.as_ref().map(|fault| &fault.kind);
    match (poll.outcome, kind) {
        (Outcome::Rejected, Some(Kind::MessageTooLarge | Kind::HubMessageTooLarge)) => {
            Some("is larger than the hub takes: name fewer Channelnames; the row stays in the backend".into())
        }
        (Outcome::Rejected, Some(Kind::RecordLost)) => {
            Some("is of a record that was deleted: `backfill` fetches what the backend still has".into())
        }
        (Outcome::Rejected, Some(Kind::RecordUnreadable)) => {
            Some("is of a record that cannot be read: fix that one, and put it back by its id (--poll)".into())
        }
        // Version 0.1 wrote such records. Now a damaged record is not changed.
        (Outcome::Rejected, _) if kind == Some(&Kind::NoMessage) || poll.message_id.is_none() => {
            Some("holds no message: somebody edited the document".into())
        }
        (Outcome::Rejected, _) => None,
        (Outcome::Pending, _) => Some("waits already".into()),
        (Outcome::Forwarded, _) => Some("is forwarded".into()),
        (Outcome::Empty | Outcome::Failed, _) => Some("is a poll without a message".into()),
    }
}

fn set_pending(poll: &mut Poll) {
    poll.outcome = Outcome::Pending;
    (poll.error, poll.ttl, poll.forwarded_at, poll.confirmed) = (None, None, None, None);
}

/// Appends records of a site to its queue, in the order of `ids`. Each transaction changes records and cursor
/// together, or nothing. Returns the result for each id.
///
/// # Errors
/// The ledger cannot be read or written. Records that were put back before the error stay in the queue.
pub async fn replay(ledger: &Ledger, key: &SiteKey, ids: &[String]) -> Result<Vec<Replayed>, LedgerError> {
    let mut replayed = Vec::with_capacity(ids.len());
    let mut attempts = 0;
    while replayed.len() < ids.len() {
        let committed = ledger.cursor(key, None).await?;
        let Some(etag) = &committed.etag else {
            replayed.resize(
                ids.len(),
                Replayed::No("is of a site without a cursor: let the connector poll it first".into()),
            );
            break;
        };
        let mut cursor = committed.cursor.clone();
        let (mut polls, mut size, mut results) = (Vec::new(), 0, Vec::new());
        for id in &ids[replayed.len()..] {
            if polls.len() == MAX_BATCH_POLLS {
                break;
            }
            let no = |why: &str| Replayed::No(why.to_owned());
            let result = match ledger.poll(key, id).await? {
                None => no("is not in Cosmos DB (any more)"),
                Some(poll) if cursor.unforwarded.contains(&poll.id) => no("waits already"),
                Some(poll) => match refusal(&poll) {
                    Some(why) => Replayed::No(why),
                    None if poll.message.is_none() => no("holds no message: somebody edited the document"),
                    None if cursor.unforwarded.len() >= MAX_UNFORWARDED => {
                        no("would be one message too many: 100 of the site wait already, try again when they are sent")
                    }
                    None if !record::fits(&mut size, &poll) => break,
                    None => {
                        let mut poll = poll;
                        set_pending(&mut poll);
                        cursor.unforwarded.push(poll.id.clone());
                        polls.push(poll);
                        Replayed::Yes
                    }
                },
            };
            results.push(result);
        }
        if !polls.is_empty() {
            match ledger.commit(key, &[], &polls, &cursor, Some(etag)).await {
                Ok(_) => {}
                // Either Cosmos DB's client repeated a transaction whose answer was late, and the repetition was refused; or
                // nothing was written because another poller wrote first. Then read the current state again.
                Err(LedgerError::Conflict) if attempts < ATTEMPTS => {
                    attempts += 1;
                    let is_ours = ledger.cursor(key, None).await?.cursor == cursor
                        && ledger
                            .poll(key, &polls[0].id)
                            .await?
                            .is_some_and(|found| record::is_same(&found, &polls[0]));
                    if !is_ours {
                        continue;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        replayed.append(&mut results);
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rapidm2m::ledger::{Fault, PollKind, PollResult, Request};

    fn rejected(kind: &str) -> Poll {
        Poll {
            id: "1".into(),
            kind: PollKind::Poll,
            customer: "c".into(),
            site: "s".into(),
            site_name: None,
            site_uid: None,
            polling_timestamp: "2026-01-31T12:00:00Z".parse().unwrap(),
            request: Request::default(),
            result: PollResult::default(),
            outcome: Outcome::Rejected,
            error: Some(Fault { kind: kind.into(), text: "x".into() }),
            last_value_from: None,
            message: Some("{}".into()),
            empty_polls: None,
            message_id: Some("id".into()),
            forwarded_at: None,
            confirmed: None,
            backfill: None,
            correction: false,
            ttl: Some(60),
        }
    }

    #[test]
    fn only_what_can_go_is_put_back() {
        assert_eq!(refusal(&rejected("hub_message_rejected")), None);
        for kind in NOT_PUT_BACK.into_iter().filter(|kind| *kind != Kind::Dropped) {
            assert!(refusal(&rejected(kind.as_str())).is_some(), "{kind}");
        }
        for outcome in [Outcome::Pending, Outcome::Forwarded, Outcome::Empty, Outcome::Failed] {
            assert!(refusal(&Poll { outcome, ..rejected("") }).is_some(), "{outcome:?}");
        }
        let mut poll = rejected("hub_message_rejected");
        set_pending(&mut poll);
        let json = serde_json::to_value(&poll).unwrap();
        assert_eq!((&json["Outcome"], json.get("Error"), json.get("ttl")), (&"pending".into(), None, None));
        assert_eq!((&json["IoTHubMessage"], &json["MessageId"]), (&"{}".into(), &"id".into()));
    }
}
