//! Puts back rejected records of rapidM2M sites.

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use iothub_connector::{
    config::{Problems, Settings, ledger},
    rapidm2m::{
        ledger::{Ledger, Outcome, Poll, PollList, PollQuery, SiteKey},
        replay::{self, Replayed},
    },
    support::kind::Kind,
};
use serde_json::json;

use super::{Line, Options};
use crate::cli::{sites, time};

/// Most rejected records of a site that are read, newest first.
const MOST: u32 = 10_000;
const NO_CONTAINER: &str = "there is no such container yet: check M2MDocumentsDBName and M2MDocumentsDBCollection";

/// Returns the lines, and the error that ended the replay early.
pub async fn replay(options: &Options, settings: &Settings) -> anyhow::Result<(Vec<Line>, Option<anyhow::Error>)> {
    let mut problems = Problems::default();
    let customer = settings.required("Customer_ID", "name or id of the customer, as in Cosmos DB", &mut problems);
    let config = ledger::read(settings, &mut problems);
    let (Some(customer), Some(config), true) = (customer, config, problems.is_empty()) else {
        return Err(problems.into());
    };
    let (from, _) = time::range(("--since", options.which.since), ("--until", None), Utc::now())?;
    let ledger = Ledger::new(config);
    let mut lines = Vec::new();
    for site in &options.sites {
        let of_site = async {
            let key = sites::key(&ledger, customer, site).await?;
            if ledger.cursors_of_site(&key).await?.is_empty() && !has_polls(&ledger, &key).await? {
                bail!("{}", sites::unknown(&key, &ledger).await?);
            }
            of_site(options, &ledger, &key, from).await
        };
        match of_site.await {
            Ok(of_site) => lines.extend(of_site),
            Err(error) => return Ok((lines, Some(error))),
        }
    }
    Ok((lines, None))
}

/// Whether there is any record of the site. A site that was polled by an earlier version may have no cursor.
async fn has_polls(ledger: &Ledger, key: &SiteKey) -> anyhow::Result<bool> {
    let list = ledger.polls(key, &PollQuery { limit: 1, ..PollQuery::default() }).await?.context(NO_CONTAINER)?;
    Ok(!list.polls.is_empty() || !list.unreadable.is_empty())
}

async fn of_site(
    options: &Options,
    ledger: &Ledger,
    key: &SiteKey,
    from: Option<DateTime<Utc>>,
) -> anyhow::Result<Vec<Line>> {
    let polls = polls(options, ledger, key, from).await?;
    // Records of a dropped backfill are put back only if the user names their kind or their ids.
    let is_meant = |poll: &Poll| match &options.kind {
        Some(kind) => kind_of(poll) == Some(kind),
        None => !options.which.poll.is_empty() || kind_of(poll) != Some(&Kind::Dropped),
    };
    let (polls, others): (Vec<_>, Vec<_>) = polls.into_iter().partition(is_meant);
    let dropped = others.iter().filter(|poll| options.kind.is_none() && kind_of(poll) == Some(&Kind::Dropped)).count();
    if dropped > 0 {
        eprintln!(
            "{dropped} messages of dropped backfills of site {} are left out: --kind {} is for them",
            key.site,
            Kind::Dropped
        );
    }
    if polls.is_empty() {
        eprintln!("nothing to put back at site {}: no such record is rejected", key.site);
    }
    let ids: Vec<_> = polls.iter().map(|poll| poll.id.clone()).collect();
    let results = match options.dry_run {
        true => polls.iter().map(|poll| replay::refusal(poll).map_or(Replayed::Yes, Replayed::No)).collect(),
        false => replay::replay(ledger, key, &ids).await?,
    };
    let lines = polls.into_iter().zip(results).map(|(poll, result)| {
        let json = json!({ "site": poll.site, "rows": poll.result.rows, "polledAt": poll.polling_timestamp });
        let refused = match result {
            Replayed::Yes => None,
            Replayed::No(why) => Some(why),
        };
        Line { of: poll.site.clone(), kind: kind_of(&poll).cloned(), id: poll.id, refused, json }
    });
    Ok(lines.collect())
}

/// The records without their messages, oldest first.
async fn polls(
    options: &Options,
    ledger: &Ledger,
    key: &SiteKey,
    from: Option<DateTime<Utc>>,
) -> anyhow::Result<Vec<Poll>> {
    if !options.which.poll.is_empty() {
        // Reading a single record would create the container.
        ledger.polls(key, &PollQuery { limit: 1, ..PollQuery::default() }).await?.context(NO_CONTAINER)?;
        let mut polls = Vec::new();
        for id in &options.which.poll {
            let poll = ledger.poll(key, id).await?;
            polls.push(poll.with_context(|| format!("there is no record {id}: see `iothub-connector polls`"))?);
        }
        return Ok(polls);
    }
    let from_id = from.map(|at| format!("{:013}", at.timestamp_millis()));
    let query = PollQuery { limit: MOST, outcomes: vec![Outcome::Rejected], from_id, ..PollQuery::default() };
    let PollList { mut polls, unreadable } = ledger.polls(key, &query).await?.context(NO_CONTAINER)?;
    for error in &unreadable {
        eprintln!("warning: left out: {error}");
    }
    polls.reverse();
    Ok(polls)
}

fn kind_of(poll: &Poll) -> Option<&Kind> {
    poll.error.as_ref().map(|fault| &fault.kind)
}
