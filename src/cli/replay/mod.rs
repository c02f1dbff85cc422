//! `replay`: puts rejected messages back after the cause was fixed, so that they are sent again.
//!
//! | Part | |
//! |---|---|
//! | `sites` | rejected records of rapidM2M sites, in Cosmos DB |
//! | `uplinks` | the queues of rejected and of poison messages of The Things Network |

mod sites;
mod uplinks;

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    exit::Usage,
    settings::Source,
    table,
    time::{self, Moment},
};

use iothub_connector::support::kind::Kind;

const EXAMPLES: &str = "\
Examples:
  iothub-connector replay 'Energy meter 1' --all --dry-run     # what would go
  iothub-connector replay 'Energy meter 1' 'Well 7' --since 2d
  iothub-connector replay 'Well 7' --poll 1769860800000-0000-5f3a9c01
  iothub-connector replay --queue rejected --kind no_device
  iothub-connector replay --queue poison --application pumps --limit 100

Fix the cause first, or it is rejected again.

A site's rejected records become pending. The running connector sends them with its next
runs: within two minutes, or within ten with RecordEmptyPolls=false. Message and id
are what they were. At most 100 messages of a site can wait. It needs Customer_ID
and the M2MDocumentsDB… settings.

Queue messages are put into the queue of uplinks, then deleted where they were: if
that is interrupted, a message is there twice, and has one message id at the hub.
It needs UplinkQueueName and AzureStorageConnectionString.

The exit code is 1 if a site is unknown or a message was refused.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Sites whose rejected messages are sent again, by their names in Cosmos DB
    #[arg(value_name = "SITE", required_unless_present = "queue", requires = "which")]
    sites: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Messages of The Things Network: those that were rejected, or those that failed for a day
    #[arg(long, value_name = "QUEUE", conflicts_with_all = ["sites", "which"])]
    queue: Option<QueueKind>,
    /// Only messages that were rejected for this reason, such as hub_message_rejected or no_device
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Only uplinks of this application of The Things Stack
    #[arg(long, value_name = "ID", requires = "queue", conflicts_with = "sites")]
    application: Option<String>,
    /// At most this many messages of a queue
    #[arg(long, value_name = "N", conflicts_with = "sites", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Show what would be put back, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object for each message, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, clap::Args)]
#[group(id = "which", multiple = false)]
struct Which {
    /// Only messages that were polled since then: an age (2h, 7d), a date or a time
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<Moment>,
    /// Only this record, by its id; can be given several times
    #[arg(long, value_name = "ID")]
    poll: Vec<String>,
    /// All rejected records of the sites
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QueueKind {
    Rejected,
    Poison,
}

/// The result for one message, for users and for scripts.
struct Line {
    /// Site, or application and device.
    of: String,
    /// Id of the record or of the queue message.
    id: String,
    /// Why the message was rejected.
    kind: Option<Kind>,
    /// Why the message is not put back.
    refused: Option<String>,
    /// The members of the JSON object that name the message's origin.
    json: Value,
}

impl Line {
    fn kind_text(&self) -> &str {
        self.kind.as_ref().map_or("", Kind::as_str)
    }
}

/// Puts messages back.
///
/// # Errors
/// Settings are wrong, or a service cannot be used.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    if !options.which.poll.is_empty() && options.sites.len() != 1 {
        return Err(Usage("--poll names records of one site: name that site alone".to_owned()).into());
    }
    let settings = options.source.read()?;
    let (lines, failure) = match options.queue {
        Some(kind) => uplinks::replay(&options, kind, &settings).await?,
        None => sites::replay(&options, &settings).await?,
    };
    print(&options, &lines)?;
    let refused = lines.iter().filter(|line| line.refused.is_some()).count();
    let done = lines.len() - refused;
    let what = if options.dry_run { "would be put back" } else { "put back" };
    eprintln!("{done} {what}, {refused} refused");
    match failure {
        Some(error) => Err(error),
        None => Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

fn print(options: &Options, lines: &[Line]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { json_lines(options, lines, &mut out) } else { human(options, lines, &mut out) };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

fn json_lines(options: &Options, lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    for line in lines {
        let mut object = line.json.clone();
        object["id"] = json!(line.id);
        object["kind"] = json!(line.kind_text());
        object["replayed"] = json!(line.refused.is_none() && !options.dry_run);
        object["refused"] = json!(line.refused);
        writeln!(out, "{object}")?;
    }
    Ok(())
}

fn human(options: &Options, lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let good = if options.dry_run { "would be put back" } else { "put back" };
    let heads = if options.queue.is_some() {
        ["DEVICE", "MESSAGE", "KIND", "RESULT"]
    } else {
        ["SITE", "POLL", "KIND", "RESULT"]
    };
    let rows = lines.iter().map(|line| {
        let result = line.refused.as_ref().map_or(good.to_owned(), |why| format!("refused: it {why}"));
        [line.of.clone(), line.id.clone(), line.kind_text().to_owned(), result]
    });
    table::write(out, heads, rows, &[])
}
