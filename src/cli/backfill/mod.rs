//! `backfill`: fetches a range of a site's rows, again or for the first time, and sends it.
//!
//! | Part | |
//! |---|---|
//! | `range` | the range of a site's backfill |
//! | `site` | one site: from the start of the range, or from where it stopped, to the end |
//! | `storage` | instead of a site: uplinks that The Things Stack has stored |
//! | `progress`, `summary` | the output during the backfill and at its end |

mod progress;
mod range;
mod site;
mod storage;
mod summary;
mod totals;

use std::{process::ExitCode, sync::Arc};

use chrono::Utc;
use iothub_connector::{
    app::App,
    config::{Config, Problems, Settings, hub::Identity, rapidm2m::SourceConfig},
    iot_hub::Transport,
};

use self::{progress::Progress, site::Backfilling};
use super::{
    exit,
    settings::Source,
    time::{self, Moment},
};

const EXAMPLES: &str = "\
Examples:
  iothub-connector backfill \"Well 7\" --from 2026-01-01 --until 2026-02-01
  iothub-connector backfill \"Well 7\" \"Well 8\" --from 2025-01-01   # to where the connector is
  iothub-connector backfill \"Well 7\" --from 2026-01-01 --dry-run   # counts, changes nothing
  iothub-connector backfill \"Well 7\" --from 2026-01-01 --again     # repeat it
  iothub-connector backfill \"Well 7\" --from 2026-01-01 --drop      # give it up
  iothub-connector backfill --storage pumps --since 6h --dry-run    # LoRaWAN

It fetches the rows of the range from the backend, records them in Cosmos DB and sends
them to the hub. The connector may run meanwhile: its own polling is not touched. Rows that
the connector has forwarded before are sent again, in other messages: a consumer tells them
by site and Timestamp. All messages have the property Backfill = true.

It can be stopped at any moment, by Ctrl-C too: the same command resumes where it
stopped. The same range makes the same messages with the same ids, as long as the
backend has the same rows: a consumer that drops ids it has seen counts nothing twice.

Messages go over HTTPS, whatever IoTHubTransport says: over MQTT a device can be
connected only once, and the connector and this command would cut each other off. Use
--transport mqtt (or mqtt-ws) only while the connector is stopped.

--storage puts the uplinks of an application into the queue of uplinks that The Things
Stack's Storage Integration has kept, with the message ids of their webhooks: what had
arrived before comes again under its id. It needs ThingsStackUrl and ThingsStackApiKey
(a key that may read application traffic), UplinkQueueName and
AzureStorageConnectionString.

Exit codes: 0 all of it is at the hub (or in the queue); 1 it is not, or rows could not be used, or the
hub rejected messages; 2 settings or options are wrong; 130 Ctrl-C.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Names of the sites, as in the setting Site_ID
    #[arg(required_unless_present = "storage", conflicts_with = "storage", value_name = "SITE")]
    sites: Vec<String>,
    /// Start of the range: a date (its midnight, UTC) or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::moment, required_unless_present = "storage", conflicts_with = "storage")]
    from: Option<Moment>,
    /// End of the range, exclusive: a date or a time; with --storage also an age such as 2h [default: just after the newest row
    /// that the connector has recorded; with --storage now]
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<Moment>,
    /// An application of The Things Stack whose stored uplinks are put into the queue; can be given several times
    #[arg(long, value_name = "APPLICATION", requires = "since")]
    storage: Vec<String>,
    /// Only uplinks of this device of the application
    #[arg(long, value_name = "DEVICE", requires = "storage")]
    device: Option<String>,
    /// Start of the range of --storage: an age (2h, 7d), a date or a time
    #[arg(long, value_name = "TIME", value_parser = time::moment, requires = "storage")]
    since: Option<Moment>,
    /// Only count rows and messages; nothing is recorded, sent or queued
    #[arg(long)]
    dry_run: bool,
    /// Fetch the range once more if its backfill is done or was dropped
    #[arg(long, conflicts_with_all = ["dry_run", "storage"])]
    again: bool,
    /// Give up the backfill: messages that are recorded but not yet sent are marked as rejected
    #[arg(long, conflicts_with_all = ["dry_run", "again", "storage"])]
    drop: bool,
    /// How the messages go to the hub
    #[arg(long, value_enum, default_value_t = Way::Https)]
    transport: Way,
    /// How often in a row a service may fail before the backfill gives up
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    attempts: u32,
    /// Print progress and summary as lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    Https,
    Mqtt,
    MqttWs,
}

impl From<Way> for Transport {
    fn from(way: Way) -> Self {
        match way {
            Way::Https => Self::Https,
            Way::Mqtt => Self::Mqtt,
            Way::MqttWs => Self::MqttWs,
        }
    }
}

/// Serves one site after the other. A site that fails does not stop the others.
///
/// # Errors
/// The output cannot be printed, or settings cannot be read.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    if !options.storage.is_empty() {
        let progress = Progress::new(options.json);
        let what_then = "Run the same command to begin again; what comes twice has one message id";
        return interruptible(&progress, what_then, async {
            let is_well = storage::run(&options, &settings).await?;
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
        .await;
    }
    let (from, until) = range::given(options.from, options.until, Utc::now())?;
    let config = config(&settings, options.transport)?;
    let app = App::new(config, iothub_connector::support::ending::Ending::default());
    let Some(polling) = app.polling else { unreachable!("a configuration without this half is refused") };
    let progress = Progress::new(options.json);
    let what_then = "Run the same command to resume";
    interruptible(&progress, what_then, async {
        let mut is_well = true;
        for site in &options.sites {
            let backfilling = Backfilling {
                forwarder: &polling.forwarder,
                customer: &polling.options.customer,
                site,
                from,
                until,
                options: &options,
                progress: &progress,
            };
            match backfilling.run().await {
                Ok(all) => is_well &= all,
                Err(error) => {
                    is_well = false;
                    progress.failed(site, &error)?;
                }
            }
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
    .await
}

/// Does the work, unless Ctrl-C ends it.
async fn interruptible(
    progress: &Progress,
    what_then: &str,
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        ended = work => ended,
        () = crate::cli::interrupt::interrupted() => {
            progress.interrupted(what_then);
            Ok(ExitCode::from(exit::INTERRUPTED))
        }
    }
}

/// The app's settings, with this command's transport to the hub.
fn config(settings: &Settings, way: Way) -> Result<Config, Problems> {
    let mut config = Config::from_settings(settings)?;
    let mut problems = Problems::default();
    match config.rapidm2m.as_ref().map(|rapidm2m| &rapidm2m.source) {
        Some(SourceConfig::Backend { .. }) => {}
        Some(SourceConfig::Emulation) => {
            problems.add("EmulationMode", "is true: there is no backend to fetch anything from");
        }
        None => {
            problems.add("M2MBackendURL", "is not set, nor is Customer_ID: there is no backend to fetch anything from")
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    config.hub.transport = way.into();
    // The setting may contain the port of the app's own transport.
    if let Some(Identity::One(device)) = &mut config.hub.identity
        && let Some(device) = Arc::get_mut(device)
        && matches!(device.endpoint.port, Some(8883 | 443))
    {
        device.endpoint.port = None;
    }
    Ok(config)
}
