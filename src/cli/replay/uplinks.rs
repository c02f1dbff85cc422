//! Puts back messages of The Things Network from the queues of rejected and of poison messages.

use std::time::Duration;

use chrono::{DateTime, Utc};
use iothub_connector::{
    config::{Problems, Settings, storage},
    queue::{Queue, QueueError, Taken, UplinkQueues},
    support::{clock, http_client::HttpClient, kind::Kind},
    things_network::queued::Queued,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Line, Options, QueueKind};

/// How long a taken message is invisible to other readers. A message that stays is given back at the end, or becomes
/// visible after this time.
const INVISIBLE: Duration = Duration::from_secs(5 * 60);
/// How long messages are taken. Shorter than [`INVISIBLE`], so that the first messages do not become visible meanwhile.
const LONGEST: Duration = Duration::from_secs(4 * 60);

/// Returns the lines, and the error that ended the replay early.
pub async fn replay(
    options: &Options,
    kind: QueueKind,
    settings: &Settings,
) -> anyhow::Result<(Vec<Line>, Option<anyhow::Error>)> {
    let mut problems = Problems::default();
    let uplinks = settings.required("UplinkQueueName", "the storage queue for uplinks", &mut problems);
    let account = storage::read(settings, &mut problems);
    let (Some(uplinks), Some(account), true) = (uplinks, account, problems.is_empty()) else {
        return Err(problems.into());
    };
    let queues = UplinkQueues::new(&account, uplinks, &HttpClient::default());
    let to = queues.uplinks;
    let from = match kind {
        QueueKind::Rejected => queues.rejected,
        QueueKind::Poison => queues.poison,
    };
    let (mut lines, mut kept) = (Vec::new(), Vec::new());
    let outcome = move_all(options, &from, &to, &mut lines, &mut kept).await;
    for taken in &kept {
        // A message that cannot be given back becomes visible by itself.
        if let Err(error) = from.give_back(taken).await {
            eprintln!("warning: message {} is seen again in {} min: {error}", taken.id, INVISIBLE.as_secs() / 60);
        }
    }
    if lines.is_empty() && outcome.is_ok() {
        eprintln!("nothing to put back: queue {} has no such message", from.name());
    }
    Ok((lines, outcome.err().map(Into::into)))
}

async fn move_all(
    options: &Options,
    from: &Queue,
    to: &Queue,
    lines: &mut Vec<Line>,
    kept: &mut Vec<Taken>,
) -> Result<(), QueueError> {
    let most = options.limit as usize;
    let (began, until) = (Utc::now(), Instant::now() + LONGEST);
    while lines.len() < most {
        let taken = from.take(INVISIBLE).await?;
        if taken.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            kept.extend(taken);
            eprintln!("warning: stopped after {} min: call it again for the rest", LONGEST.as_secs() / 60);
            return Ok(());
        }
        // If moving stops early, the remaining messages are given back.
        let mut rest = taken.into_iter();
        while let Some(taken) = rest.next() {
            let line = line(&taken);
            if lines.len() == most || !is_meant(options, &line) || is_since(&line, began) {
                kept.push(taken);
                continue;
            }
            if options.dry_run || line.refused.is_some() {
                kept.push(taken);
            } else if let Err(error) = put_and_delete(from, to, &taken).await {
                kept.push(taken);
                kept.extend(rest);
                return Err(error);
            }
            lines.push(line);
        }
    }
    Ok(())
}

/// Whether the message was rejected after the command began. The cause is then not fixed, and the message would
/// circulate.
fn is_since(line: &Line, began: DateTime<Utc>) -> bool {
    let rejected_at = line.json["rejectedAt"].as_str().and_then(clock::read_rfc3339);
    rejected_at.is_some_and(|at| at >= began)
}

/// In this order: an interruption in between leaves the message in both queues instead of losing it.
async fn put_and_delete(from: &Queue, to: &Queue, taken: &Taken) -> Result<(), QueueError> {
    to.put(&taken.stored).await?;
    from.delete(taken).await
}

fn is_meant(options: &Options, line: &Line) -> bool {
    options.kind.is_none()
        || options.kind == line.kind
            && options.application.as_ref().is_none_or(|application| line.json["application"] == *application.as_str())
}

/// Describes a message, as far as its content allows.
fn line(taken: &Taken) -> Line {
    let id = taken.id.clone();
    let Some(text) = taken.text() else {
        let refused =
            Some("is not Base64, so the Functions host cannot read it: was it put there by something else?".into());
        return Line { of: String::new(), id, kind: None, refused, json: json!({}) };
    };
    let envelope: Value = serde_json::from_str(&text).unwrap_or_default();
    let webhook = Queued::parse(&text).ok().map(|queued| queued.webhook.into_owned());
    let webhook: Value = webhook.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let ids = &webhook["end_device_ids"];
    // Version 3 of The Things Stack, then version 2.
    let application = ids["application_ids"]["application_id"].as_str().or(webhook["app_id"].as_str());
    let device = ids["device_id"].as_str().or(webhook["dev_id"].as_str());
    let kind = envelope["Kind"].as_str().map(Kind::from);
    let refused = envelope.get("Text").map(|_| "holds no webhook: it would be rejected again".to_owned());
    let of = format!("{}/{}", application.unwrap_or("-"), device.unwrap_or("-"));
    let json = json!({
        "application": application,
        "endDevice": device,
        "reason": envelope["Reason"],
        "rejectedAt": envelope["RejectedAtUTC"],
    });
    Line { of, id, kind, refused, json }
}
