//! `check`: checks whether the settings are right and whether every service that they name can be reached and used. It
//! writes and registers nothing.

mod advice;
mod backend;
mod commands;
mod database;
mod hub;
mod print;
mod progress;
mod report;
mod webhooks;

use std::{
    io::{self, BufWriter, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use chrono::TimeDelta;
use iothub_connector::{
    config::{
        self, Config, KEY_VAULT, Problems, Settings,
        hub::Identity,
        key_vault::{self, Completed},
        storage,
    },
    queue::{Lengths, UplinkQueues},
    support::{http_client::HttpClient, kind::Kind, logging},
};

use self::report::{Checked, Row, Summary, Verdict};
use super::settings::Source;

const EXAMPLES: &str = "\
Examples:
  iothub-connector check                      # all settings, and every service that they name
  iothub-connector check --offline            # the settings alone
  iothub-connector check --site \"Well 7\"      # of the sites, only this one
  iothub-connector check --json | jq -r 'select(.result == \"failed\").what'

Nothing is written or registered anywhere. The hub is asked over the transport of
the settings, as the device that sends: an app that is connected as that device at
the time is disconnected, and connects again with its next message. Whether records
could be written is tried with a transaction that Cosmos DB has to refuse. The Device
Provisioning Service is asked for a device that does not exist. The Things Stack is
asked for its webhooks if ThingsStackUrl and ThingsStackApiKey are set.

The exit code is 0 if nothing failed (warnings do not count), 1 if something failed,
2 if the settings are wrong.";

/// The setting of the storage account, which the connector needs.
const STORAGE: &str = "AzureStorageConnectionString";
/// The names that the host reads. A suffix after `__` means an identity.
const STORAGE_NAMES: [&str; 2] = [STORAGE, "AzureWebJobsAzureStorageConnectionString"];
/// Rows are held back if they are ahead of the clock by more than this.
const NOTABLE_SKEW: TimeDelta = TimeDelta::minutes(1);
/// Azure's services refuse tokens beyond this.
const FATAL_SKEW: TimeDelta = TimeDelta::minutes(5);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Check only the settings and the files that they name; call no service
    #[arg(long, conflicts_with = "sites")]
    offline: bool,
    /// Check only this site; can be given several times
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<String>,
    /// Print each row as one line of JSON, and a summary, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// Checks everything and prints the result.
///
/// # Errors
/// The settings file cannot be read.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let own = options.source.read_own()?;
    let (rows, are_settings_wrong) = check(own, &options).await;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if options.json { print::json(&rows, &mut out) } else { print::table(&rows, &mut out) };
    match written.and_then(|()| out.flush()) {
        // The reader has closed the pipe (`| head`): the exit code still shows the result.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).context("cannot print"),
        _ => {}
    }
    Ok(match Summary::of(&rows).failed {
        _ if are_settings_wrong => ExitCode::from(crate::cli::exit::USAGE),
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Returns the rows, and whether the settings are wrong.
async fn check(own: Settings, options: &Options) -> (Vec<Row>, bool) {
    let mut rows = Vec::new();
    let has_vault = key_vault::is_wanted(&own);
    let settings = if has_vault && options.offline {
        rows.push(Row::skipped("Key Vault", "--offline: what is absent may be there"));
        own
    } else {
        match key_vault::complete(own).await {
            Ok(Completed { settings, from_vault }) => {
                if has_vault {
                    let names = from_vault.into_iter().collect::<Vec<_>>().join(", ");
                    let text =
                        if names.is_empty() { "no absent setting is there".to_owned() } else { format!("has {names}") };
                    rows.push(Row::ok("Key Vault", text));
                }
                settings
            }
            Err(problems) => {
                rows.extend(of_problems(&problems));
                rows.push(Row::skipped("other settings", format!("fix {KEY_VAULT} first")));
                return (rows, true);
            }
        }
    };
    rows.extend(
        config::misspelt(&settings)
            .map(|(name, right)| Row::warning(name, "unknown setting", &format!("did you mean {right}? Rename it"))),
    );
    let logging = of_logging(&settings);
    let is_logging_wrong = !logging.is_empty();
    rows.extend(logging);
    let config = match Config::from_settings(&settings) {
        Ok(config) => config,
        Err(problems) => {
            let may_be_in_vault = has_vault && options.offline;
            let is_absent = |text: &str| text.starts_with("is not set") || text == config::NO_SETTINGS;
            let are_wrong = problems.iter().any(|(_, text)| !(may_be_in_vault && is_absent(text)));
            rows.extend(problems.iter().map(|(name, text)| match may_be_in_vault && is_absent(text) {
                true => Row { result: Verdict::Warning, ..Row::setting(name, text) },
                false => Row::setting(name, text),
            }));
            rows.push(Row::skipped("services", "fix the settings first"));
            return (rows, are_wrong || is_logging_wrong);
        }
    };
    let halves = [("rapidM2M", config.rapidm2m.is_some()), ("The Things Network", config.things_network.is_some())];
    let halves: Vec<_> = halves.iter().filter(|(_, is_on)| *is_on).map(|(half, _)| *half).collect();
    if !is_logging_wrong {
        rows.push(Row::ok("settings", format!("complete, for {}", halves.join(" and "))));
    }
    rows.extend(hub::token(&config));
    rows.extend(commands::check(&config));
    if options.offline {
        rows.push(Row::skipped("services", "--offline"));
    } else {
        let of_stack = async {
            match &config.things_network {
                Some(things_network) => webhooks::check(&settings, &things_network.enrollments).await,
                None => Vec::new(),
            }
        };
        let (of_services, of_stack) = tokio::join!(services(&config, &options.sites), of_stack);
        rows.extend(of_services.into_iter().chain(of_stack));
    }
    if let Some(things_network) = &config.things_network {
        let replay = "look into them, fix the cause, then `iothub-connector replay --queue …`";
        let queue = &things_network.webhooks.queue;
        rows.push(storage("storage of the queues", &settings, queue, replay, options.offline).await);
    }
    if let Some(queue) = config.rapidm2m.as_ref().and_then(|rapidm2m| rapidm2m.queue.as_ref()) {
        let look = "look into them: they are no batches of sites, so something else uses the queue";
        rows.push(storage("queue of sites", &settings, &queue.name, look, options.offline).await);
    }
    (rows, is_logging_wrong)
}

fn of_problems(problems: &Problems) -> impl Iterator<Item = Row> {
    problems.iter().map(|(name, text)| Row::setting(name, text))
}

/// Checks the settings of the log. Faults in them stop the start before any other setting is read.
fn of_logging(settings: &Settings) -> Vec<Row> {
    let value = |name| settings.get(name, &mut Problems::default());
    let problems = [logging::filter(value("RUST_LOG")).map(drop), logging::format_of(value("LOG_FORMAT")).map(drop)];
    problems.into_iter().filter_map(Result::err).map(|(name, why)| Row::setting(name, &why)).collect()
}

/// Calls all services at once.
async fn services(config: &Config, sites: &[String]) -> Vec<Row> {
    let backend = async {
        match &config.rapidm2m {
            Some(rapidm2m) => backend::check(rapidm2m, sites).await,
            None => Checked::default(),
        }
    };
    let identity = config.hub.identity.as_ref();
    let needs_devices = config.things_network.is_some() || matches!(identity, Some(Identity::Provisioned(_)));
    let customer = config.rapidm2m.as_ref().map(|rapidm2m| rapidm2m.customer.as_str());
    let database = database::check(config.ledger.clone(), needs_devices, customer);
    let device = async {
        match identity.and_then(Identity::one) {
            Some(device) => hub::device(device, config.hub.transport, &config.hub.trusted_ca).await,
            None if identity.is_some() => {
                Checked::of(Row::skipped("hub", "a site's device learns its hub when it is registered"))
            }
            None => Checked::default(),
        }
    };
    let all = tokio::join!(backend, database, device, hub::enrollments(config));
    let all: [Checked; 4] = all.into();
    let clocks: Vec<_> = all.iter().filter_map(|checked| checked.clock).collect();
    let rows = all.into_iter().flat_map(|checked| checked.rows);
    rows.chain([clock(&clocks)]).collect()
}

/// Compares this machine's clock with the services' clocks.
fn clock(clocks: &[(&str, TimeDelta)]) -> Row {
    let what = "clock of this machine";
    let Some((whose, skew)) = clocks.iter().max_by_key(|(_, skew)| skew.abs()) else {
        return Row::skipped(what, "no service told the time");
    };
    let seconds = skew.num_seconds();
    let direction = if seconds > 0 { "fast" } else { "slow" };
    let text = match seconds.abs() {
        0..=5 => format!("agrees with {whose}"),
        seconds => format!("{seconds} s {direction}, says {whose}"),
    };
    let to_do = "correct it: tokens are valid only within 5 minutes";
    match skew.abs() {
        skew if skew > FATAL_SKEW => Row::failed(what, text, to_do),
        skew if skew > NOTABLE_SKEW => Row::warning(what, text, to_do),
        _ => Row::ok(what, text),
    }
}

/// Checks a queue with the two beside it, and counts the messages in them. `to_do` is for messages that were rejected.
async fn storage(what: &str, settings: &Settings, queue: &str, to_do: &str, is_offline: bool) -> Row {
    let is_set = settings.names().any(|name| STORAGE_NAMES.iter().any(|prefix| name.starts_with(prefix)));
    if !is_set {
        let text = format!("{STORAGE} is not set here");
        return Row::failed(what, text, "set it: without it the host starts no function");
    }
    let mut problems = Problems::default();
    let Some(account) = storage::read(settings, &mut problems) else {
        return Row::failed(what, problems.list(), "fix it: without it the host starts no function");
    };
    if is_offline {
        return Row::skipped(what, "--offline");
    }
    match UplinkQueues::new(&account, queue, &HttpClient::default()).lengths().await {
        Ok(Lengths { waiting, rejected: 0, poison: 0 }) => Row::ok(what, format!("{waiting} messages wait in {queue}")),
        Ok(Lengths { waiting, rejected, poison }) => Row::warning(
            what,
            format!("{waiting} messages wait in {queue}, {rejected} in {queue}-rejected, {poison} in {queue}-poison"),
            to_do,
        ),
        Err(error) => Row::fault(what, Kind::QueueUnusable, &error.to_string()),
    }
}
