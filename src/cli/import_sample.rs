//! `import-sample`: takes over from the C# sample how far each site has come, so that no row is sent twice or skipped.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use chrono::{SecondsFormat, Utc};
use iothub_connector::{
    config::{Problems, ledger},
    rapidm2m::{
        directory::Directory,
        ledger::{Ledger, LedgerError, Options as LedgerOptions, SiteKey},
        sample::{self, Forwarded, History},
    },
};
use serde_json::json;

use super::{settings::Source, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector import-sample --dry-run           # what would be taken over
  iothub-connector import-sample
  iothub-connector import-sample --container myPolls --json

Stop the sample first, and give M2MDocumentsDBCollection another name than that of its
container. For each customer and site in the sample's container, the newest row that
the sample has forwarded becomes the site's position in the connector's container,
unless the connector has one there. Nothing is overwritten, and the sample's container is not
changed. Then start the connector: it continues with the next row.

Rows of the sample's emulation are left out, and so are rows ahead of the clock. It
needs the M2MDocumentsDB… settings. Both containers are in M2MDocumentsDBName.

The exit code is 0 if each document of the sample could be used, 1 if not, and 2 if
settings are wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The sample's container
    #[arg(long, value_name = "NAME", default_value = sample::CONTAINER)]
    container: String,
    /// Show what would be taken over, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object for each site and one with the sums, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// What became of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Imported,
    WouldBeImported,
    /// The connector has a position of its own.
    Known,
}

impl Done {
    fn text(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::WouldBeImported => "would be imported",
            Self::Known => "known already",
        }
    }
}

struct Line {
    key: SiteKey,
    forwarded: Forwarded,
    done: Done,
}

/// Takes over the positions.
///
/// # Errors
/// A container cannot be read or written, or holds nothing of the sample.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    let mut problems = Problems::default();
    let config = ledger::read(&settings, &mut problems);
    if config.as_ref().is_some_and(|config| config.container == options.container) {
        let why = format!("names the sample's own container {}: give it another name", options.container);
        problems.add("M2MDocumentsDBCollection", why);
    }
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(problems.into());
    };
    let history = history(&options, &config).await?;
    let customer = settings.get("Customer_ID", &mut Problems::default());
    if let Some(customer) = customer.filter(|customer| !history.sites.keys().any(|(theirs, _)| theirs == customer)) {
        eprintln!(
            "warning: the sample polled no site of the customer {customer:?}, which Customer_ID names: write it as there"
        );
    }
    for text in &history.first_unusable {
        eprintln!("warning: left out: {}", table::plain(text));
    }
    if history.ahead > 0 {
        eprintln!("warning: left out: {} documents whose newest row is ahead of the clock", history.ahead);
    }
    let ledger = Ledger::new(config);
    let (mut lines, mut directories) = (Vec::new(), BTreeMap::new());
    let mut failure = None;
    for ((customer, site), forwarded) in &history.sites {
        let key = SiteKey { customer: customer.clone(), site: site.clone() };
        match import(&options, &ledger, &mut directories, &key, forwarded).await {
            Ok(done) => lines.push(Line { key, forwarded: *forwarded, done }),
            Err(error) => {
                failure = Some(anyhow::Error::from(error).context(format!("site {site} of customer {customer}")));
                break;
            }
        }
    }
    print(&options, &history, &lines)?;
    match failure {
        Some(error) => Err(error),
        None => Ok(if history.unusable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
}

async fn history(options: &Options, config: &LedgerOptions) -> anyhow::Result<History> {
    let theirs = Ledger::new(LedgerOptions { container: options.container.clone(), ..config.clone() });
    let (mut history, now) = (History::default(), Utc::now());
    let name = format!("container {} in database {}", options.container, config.account.database);
    if theirs.each_of_sample(|document| history.add(&document, now)).await?.is_none() {
        bail!("there is no {name}: check --container, M2MDocumentsDBUri and M2MDocumentsDBName");
    }
    if history.is_empty() {
        bail!("{name} has no document of the C# sample with rows: check --container");
    }
    Ok(history)
}

async fn import(
    options: &Options,
    ledger: &Ledger,
    directories: &mut BTreeMap<String, Directory>,
    key: &SiteKey,
    forwarded: &Forwarded,
) -> Result<Done, LedgerError> {
    if !directories.contains_key(&key.customer) {
        directories.insert(key.customer.clone(), ledger.directory(&key.customer).await?);
    }
    // The app may have polled it under another name, or under its `_uid`.
    if !directories[&key.customer].find(&key.site).is_empty() {
        return Ok(Done::Known);
    }
    if options.dry_run {
        return Ok(Done::WouldBeImported);
    }
    match ledger.commit(key, &[], &[], &sample::cursor(key, forwarded), None).await {
        Ok(_) => Ok(Done::Imported),
        // The running app was faster.
        Err(LedgerError::Conflict) => Ok(Done::Known),
        Err(error) => Err(error),
    }
}

fn print(options: &Options, history: &History, lines: &[Line]) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { as_json(history, lines, &mut out) } else { as_table(lines, &mut out) };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).context("cannot print"),
        _ => {}
    }
    let what = if options.dry_run { "would be imported" } else { "imported" };
    let known = count(lines, Done::Known);
    let History { unusable, emulated, .. } = history;
    eprintln!(
        "{} sites {what}, {known} known already, {unusable} documents unusable, {emulated} of the emulation",
        lines.len() - known
    );
    Ok(())
}

fn count(lines: &[Line], done: Done) -> usize {
    lines.iter().filter(|line| line.done == done).count()
}

fn as_json(history: &History, lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    for Line { key, forwarded, done } in lines {
        let line = json!({
            "customer": key.customer, "site": key.site, "newest": forwarded.newest,
            "documents": forwarded.documents, "imported": *done == Done::Imported, "known": *done == Done::Known,
        });
        writeln!(out, "{line}")?;
    }
    let summary = json!({
        "imported": count(lines, Done::Imported), "known": count(lines, Done::Known),
        "unusable": history.unusable, "emulated": history.emulated, "ahead": history.ahead,
    });
    writeln!(out, "{}", json!({ "summary": summary }))
}

fn as_table(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    let rows = lines.iter().map(|Line { key, forwarded, done }| {
        let newest = forwarded.newest.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        [key.customer.clone(), key.site.clone(), newest, done.text().to_owned()]
    });
    table::write(out, ["CUSTOMER", "SITE", "NEWEST ROW", "RESULT"], rows, &[])
}
