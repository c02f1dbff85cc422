//! `devices`: which device stands for whom.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use chrono::SecondsFormat;
use iothub_connector::{
    config::{Problems, ledger},
    cosmos::Account,
    iot_hub::devices::{
        Store,
        documents::Document,
        store::{CONTAINER, Listing},
    },
};

use super::{settings::Source, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector devices
  iothub-connector devices --json | jq -r 'select(.Owner.Name == \"Well 7\").DeviceId'

It needs the M2MDocumentsDB… settings only. Nothing is changed or created.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Print each device's document as one line of JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Lists what is provisioned, by device id.
///
/// # Errors
/// The store cannot be read.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    let mut problems = Problems::default();
    let config = ledger::read(&settings, &mut problems);
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        eprintln!("error: {}", problems.list());
        return Ok(ExitCode::from(crate::MISCONFIGURED));
    };
    let database = config.account.database.clone();
    let listing = Store::new(Arc::new(Account::new(config.account))).list().await?.unwrap_or_default();
    if listing.documents.is_empty() {
        eprintln!("no devices are provisioned: container {CONTAINER} in database {} is empty or absent", database);
    }
    if !listing.foreign.is_empty() {
        eprintln!("warning: not one of our documents: {}", listing.foreign.join(", "));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { json(&listing, &mut out) } else { table(&listing, &mut out) };
    match written.and_then(|()| out.flush()) {
        // Nobody reads on (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.context("cannot print").map(|()| ExitCode::SUCCESS),
    }
}

/// As they stand in Cosmos DB.
fn json(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    for document in &listing.documents {
        serde_json::to_writer(&mut *out, document)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Without what only says whose an id is: the device itself has a line of its own.
fn table(listing: &Listing, out: &mut impl Write) -> io::Result<()> {
    if listing.documents.is_empty() {
        return Ok(());
    }
    let devices = listing.documents.iter().filter(|document| !document.is_claim());
    table::write(out, ["DEVICE", "OWNER", "HUB", "REGISTERED AT", "TIMES"], devices.map(cells), &[4])
}

fn cells(document: &Document) -> [String; 5] {
    let port = document.port().map(|port| format!(", port {port}")).unwrap_or_default();
    [
        document.device_id.clone(),
        format!("{}{port}", document.owner),
        document.assigned_hub.clone(),
        document.registered_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        document.registrations.to_string(),
    ]
}
