//! `polls`: lists a site's polls and their outcomes.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use indicatif::HumanDuration;
use iothub_connector::{
    config::{Problems, Settings, ledger},
    rapidm2m::{
        backfill,
        ledger::{Cursor, Ledger, Outcome, Poll, PollList, PollQuery},
        polling::record,
    },
};
use serde_json::Value;

use super::{
    exit::Usage,
    settings::Source,
    sites, table,
    time::{self, Moment},
};

const EXAMPLES: &str = "\
Examples:
  iothub-connector polls \"Well 7\"
  iothub-connector polls \"Well 7\" --since 2h --outcome failed,rejected
  iothub-connector polls \"Well 7\" --since 2026-01-30 --until 2026-01-31 --limit 2000
  iothub-connector polls \"Well 7\" --json | jq -r 'select(.Outcome == \"pending\").IoTHubMessage'

Outcomes:
  empty      the backend had nothing new
  pending    recorded; the hub has not acknowledged it, or that is not marked yet
             (MarkWithinSeconds)
  forwarded  the hub has acknowledged the message
  rejected   the hub can never take the message
  failed     the backend gave no usable answer

Times are UTC. NEWEST is the newest row that is recorded up to and with the poll.
It needs the M2MDocumentsDB… settings, and Customer_ID or --customer. Nothing is
changed or created.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Name of the site, as in the setting Site_ID
    site: String,
    /// Name of the customer [default: that of the setting Customer_ID]
    #[arg(long, value_name = "NAME")]
    customer: Option<String>,
    /// At most this many polls, the newest ones
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only polls with one of these outcomes, comma-separated
    #[arg(long, value_name = "OUTCOME", value_delimiter = ',', ignore_case = true,
          value_parser = PossibleValuesParser::new(OUTCOMES).try_map(|text| outcome(&text)))]
    outcome: Vec<Outcome>,
    /// Only polls at or after this time: an age (2h, 7d), a date or a time
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Moment>,
    /// Only polls before this time
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Moment>,
    /// Print each poll's document, with its message, as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

const OUTCOMES: [&str; 5] = ["empty", "pending", "forwarded", "rejected", "failed"];

fn outcome(text: &str) -> anyhow::Result<Outcome> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| anyhow!("write empty, pending, forwarded, rejected or failed"))
}

/// Lists polls, newest first.
///
/// # Errors
/// A setting is missing, or the ledger cannot be read or does not know the site.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    let mut problems = Problems::default();
    let config = ledger::read(&settings, &mut problems);
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(problems.into());
    };
    let now = Utc::now();
    let query = query(&options, now)?;
    let ledger = Ledger::new(config);
    let key = sites::key(&ledger, &customer(&options, &settings)?, &options.site).await?;
    let cursors = ledger.cursors_of_site(&key).await?;
    let PollList { polls, unreadable } = ledger.polls(&key, &query).await?.unwrap_or_default();
    for error in &unreadable {
        eprintln!("warning: left out: {error}");
    }
    if cursors.is_empty() && polls.is_empty() {
        bail!("{}", sites::unknown(&key, &ledger).await?);
    }
    if polls.is_empty() {
        eprintln!("no polls: none is on record{}", if is_filtered(&options) { " that matches" } else { "" });
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { json(&polls, &mut out) } else { text(&cursors, &polls, now, &mut out) };
    match written.and_then(|()| out.flush()) {
        // The reader has closed the pipe (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("cannot print").map(|()| ExitCode::SUCCESS),
    }
}

fn customer(options: &Options, settings: &Settings) -> anyhow::Result<String> {
    let configured = || settings.get("Customer_ID", &mut Problems::default()).map(str::to_owned);
    let customer = options.customer.clone().or_else(configured);
    customer.ok_or_else(|| Usage("no customer: give --customer, or set Customer_ID".to_owned()).into())
}

fn query(options: &Options, now: DateTime<Utc>) -> anyhow::Result<PollQuery> {
    let (since, until) = time::range(("--since", options.since), ("--until", options.until), now)?;
    // Ids begin with the time.
    let id = |time: DateTime<Utc>| format!("{:013}", time.timestamp_millis().max(0));
    Ok(PollQuery {
        limit: options.limit,
        outcomes: options.outcome.clone(),
        from_id: since.map(id),
        before_id: until.map(id),
        with_messages: options.json,
        ..PollQuery::default()
    })
}

fn is_filtered(options: &Options) -> bool {
    !options.outcome.is_empty() || options.since.is_some() || options.until.is_some()
}

fn json(polls: &[Poll], out: &mut impl Write) -> io::Result<()> {
    for poll in polls {
        serde_json::to_writer(&mut *out, poll)?;
        writeln!(out)?;
    }
    Ok(())
}

fn text(cursors: &[Cursor], polls: &[Poll], now: DateTime<Utc>, out: &mut impl Write) -> io::Result<()> {
    if !cursors.iter().any(|cursor| cursor.backfill.is_none()) {
        writeln!(out, "never polled by the connector")?;
    }
    for cursor in cursors {
        let line = if cursor.backfill.is_some() { of_backfill(cursor, now) } else { Some(of_site(cursor, now)) };
        if let Some(line) = line {
            writeln!(out, "{}", table::plain(&line))?;
        }
    }
    if polls.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let heads = ["TIME", "OUTCOME", "ROWS", "MS", "HTTP", "NEWEST", "WHAT"];
    table::write(out, heads, polls.iter().map(cells), &[2, 3, 4])
}

/// The state of a site.
fn of_site(cursor: &Cursor, now: DateTime<Utc>) -> String {
    let mut line = cursor.name().to_owned();
    if cursor.name() != cursor.site {
        line += &format!(" (Site_Id {} in Cosmos DB)", cursor.site);
    }
    line += ": ";
    if let Some(since) = cursor.gone_since {
        line += &format!("not listed by the backend since {}, ", stamp(since));
    }
    line += &match cursor.last_value_from {
        Some(newest) => match (now - newest).to_std() {
            Ok(lag) => format!("newest row {}, {} ago", stamp(newest), HumanDuration(whole_seconds(lag))),
            Err(_) => format!("newest row {}", stamp(newest)),
        },
        None => "no row yet".to_owned(),
    };
    line += &waiting(cursor, now);
    match cursor.consecutive_failures {
        0 => {}
        1 => line += ", 1 failure",
        count => line += &format!(", {count} failures in a row"),
    }
    if let Some(until) = record::backs_off_until(cursor, now) {
        line += &format!(", next attempt at {}", stamp(until));
    }
    line
}

/// The state of a backfill that is not finished.
fn of_backfill(cursor: &Cursor, now: DateTime<Utc>) -> Option<String> {
    let backfill = cursor.backfill.as_ref().filter(|backfill| backfill.is_open())?;
    let (from, until) = (stamp(backfill.from), stamp(backfill.until));
    let position = backfill::position(cursor)?.time();
    Some(format!(
        "backfill from {from} until {until}: came to {}{}; resume with: iothub-connector backfill {:?} --from {from} --until {until}",
        stamp(position),
        waiting(cursor, now),
        cursor.site
    ))
}

fn waiting(cursor: &Cursor, now: DateTime<Utc>) -> String {
    match cursor.waiting(now) {
        0 => String::new(),
        1 => ", 1 message waits for the hub".to_owned(),
        count => format!(", {count} messages wait for the hub"),
    }
}

fn cells(poll: &Poll) -> [String; 7] {
    let outcome = format!("{:?}", poll.outcome).to_lowercase();
    [
        poll.polling_timestamp.to_rfc3339_opts(SecondsFormat::Millis, true),
        outcome,
        poll.result.rows.to_string(),
        poll.result.milliseconds.to_string(),
        poll.result.http_status.map(|status| status.to_string()).unwrap_or_default(),
        poll.last_value_from.map(stamp).unwrap_or_default(),
        what(poll),
    ]
}

/// Further remarks about a poll.
fn what(poll: &Poll) -> String {
    let error = poll.error.as_ref().map(|fault| format!("{}: {}", fault.kind, fault.text));
    let bad_rows = poll.result.bad_rows.as_ref().map(|bad| format!("{} unusable rows", bad.count));
    let backfill = poll.backfill.as_ref().map(|_| "backfill".to_owned());
    let unconfirmed = (poll.confirmed == Some(false)).then(|| "not confirmed".to_owned());
    [backfill, error, bad_rows, unconfirmed].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
