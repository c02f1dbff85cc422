//! `things-stack setup`: makes or changes the webhook that sends an application's uplinks to this app, and tries it out.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use iothub_connector::{
    config::{Problems, things_stack},
    things_network::registry::{
        Registry, Webhook, address,
        health::State,
        plan::{self, Change, Plan, Wanted},
    },
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::health::{self, Health};
use crate::cli::{exit::usage, settings::Source, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector things-stack setup --application pumps        # a dry run
  iothub-connector things-stack setup --application pumps --yes
  iothub-connector things-stack setup --application pumps --device pump-7 --yes
  az functionapp function keys list --resource-group GROUP --name MY_APP \\
    --function-name thingsNetworkUplink --query default --output tsv \\
    | iothub-connector things-stack setup --application pumps \\
      --app-url https://MY_APP.azurewebsites.net --function-key-stdin --yes

It needs ThingsStackUrl and ThingsStackApiKey: a key with the rights \"Edit basic
application settings\", \"Read application traffic\" and \"Write downlink
application traffic\"; with --device also \"View devices in application\" and
\"Write uplink application traffic\". The app is FunctionAppUrl, its key
FunctionAppKey; ThingsStackDownlinkApiKey is the webhook's key for downlinks.
A key is never given as an option: other users could see it.

Nothing is changed without --yes. What others have set in the webhook is kept.
With --device, The Things Stack simulates an uplink of this device. The app
forwards it to the hub like any other: it has no payload and no port, and says
Simulated if ThingsNetworkMembers has \"simulated\".";

/// The webhook's id if no webhook leads here.
const ID: &str = "iot-hub";
/// Longer than The Things Stack waits for the app's answer.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Bytes of a key on standard input.
const LONGEST_KEY: u64 = 4096;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The application in The Things Stack
    #[arg(long, value_name = "ID")]
    application: String,
    /// The webhook [default: the one that leads here, else iot-hub]
    #[arg(long, value_name = "ID")]
    webhook: Option<String>,
    /// The app's URL, instead of FunctionAppUrl
    #[arg(long, value_name = "URL")]
    app_url: Option<String>,
    /// Read the function key from standard input, instead of FunctionAppKey
    #[arg(long)]
    function_key_stdin: bool,
    /// Change the webhook even if it leads to another server
    #[arg(long)]
    take_over: bool,
    /// Afterwards simulate an uplink of this device, and see whether it arrives
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Do it; without this, what would be done is only shown
    #[arg(long)]
    yes: bool,
    /// Print the changes, and the webhook's health, as a line of JSON each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// # Errors
/// Settings are wrong, the webhook is another's, The Things Stack refuses something or cannot be reached, or the output cannot
/// be printed.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let (registry, wanted) = read(&options).map_err(usage)?;
    let application = options.application.as_str();
    let webhooks = registry.webhooks(application).await?;
    let id = id(&options, &webhooks, &wanted)?;
    let there = webhooks.iter().find(|webhook| webhook.id() == id);
    if let Some(webhook) = there
        && !options.take_over
    {
        ensure!(
            address::leads_to_server(webhook, &wanted.address),
            "webhook {id} of application {application} leads to {}, so it may be another's: give another id with --webhook, or \
             --take-over to change it",
            address::shown(&webhook.base_url)
        );
    }
    let plan = plan::plan(there, &wanted)?;
    print(&options, id, there.is_none(), &plan)?;
    for remark in &plan.remarks {
        eprintln!("note: {remark}");
    }
    if !options.yes {
        if let Some(device) = &options.device {
            eprintln!("note: then an uplink of {device} would be simulated, which the connector forwards to the hub");
        }
        eprintln!("Nothing is changed: add --yes");
        return Ok(ExitCode::SUCCESS);
    }
    if !plan.changes.is_empty() {
        registry.set(application, id, &plan.request).await?;
        let done = if there.is_none() { "made" } else { "changed" };
        eprintln!("webhook {id} of application {application} is {done}");
    }
    if let Some(device) = &options.device {
        simulate(&registry, application, id, device).await?;
    }
    let webhook = registry.webhook(application, id).await?.context("the webhook is gone: somebody has deleted it")?;
    let left = plan::plan(Some(&webhook), &wanted)?;
    let is_kept = |change: &&Change| change.what != plan::Part::Health;
    if let Some(Change { what, wanted, .. }) = left.changes.iter().find(is_kept) {
        bail!("The Things Stack has not kept all that was set: {what} is not {wanted}");
    }
    let health = Health::of(application, &webhook);
    let is_well = health.is_well();
    health::print(&[health], options.json)?;
    if options.device.is_none() {
        eprintln!("note: give --device to see whether an uplink arrives");
    } else if webhook.health_status.state() == State::Unknown {
        bail!(
            "The Things Stack says nothing of the simulated uplink within {} s: look at the live data of the application in the \
             console, and at the app's log",
            PATIENCE.as_secs()
        );
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The client, and what the webhook shall be.
fn read(options: &Options) -> anyhow::Result<(Registry, Wanted)> {
    let settings = options.source.read()?;
    let mut problems = Problems::default();
    let registry = super::registry(&settings, &mut problems);
    let wanted = super::wanted(&settings, &mut problems);
    let (Some(registry), Some((address, with_address)), true) = (registry, wanted, problems.is_empty()) else {
        return Err(problems.into());
    };
    let address = match &options.app_url {
        Some(url) => things_stack::address(url).map_err(|why| anyhow!("--app-url {why}"))?,
        None => address.with_context(|| {
            format!(
                "no app: give --app-url, or set {}, such as https://MY_APP.azurewebsites.net",
                things_stack::APP_URL
            )
        })?,
    };
    let mut wanted = with_address(address);
    if options.function_key_stdin {
        let mut key = String::new();
        io::stdin().take(LONGEST_KEY).read_to_string(&mut key).context("the function key cannot be read")?;
        ensure!(!key.trim().is_empty(), "there is no function key on standard input");
        wanted.function_key = Some(key.trim().into());
    }
    Ok((registry, wanted))
}

/// Which webhook it is. Two that lead here would send each uplink twice.
fn id<'a>(options: &'a Options, webhooks: &'a [Webhook], wanted: &Wanted) -> anyhow::Result<&'a str> {
    let application = &options.application;
    let leading: Vec<_> =
        webhooks.iter().filter(|webhook| address::leads_to(webhook, &wanted.address)).map(Webhook::id).collect();
    match (options.webhook.as_deref(), &leading[..]) {
        (Some(id), [] | [_]) if leading.iter().all(|leading| *leading == id) => Ok(id),
        (None, []) => Ok(ID),
        (None, [id]) => Ok(id),
        _ => bail!(
            "each uplink of application {application} would come twice, because {} leads here, too: delete in the console what is \
             not needed, or name the one with --webhook",
            leading.join(" and ")
        ),
    }
}

fn print(options: &Options, id: &str, is_new: bool, plan: &Plan) -> anyhow::Result<()> {
    let Options { application, yes, json: is_json, .. } = options;
    let mut out = io::stdout().lock();
    let written = if *is_json {
        let line = json!({
            "application": application, "webhook": id, "isNew": is_new, "isDryRun": !yes, "changes": plan.changes,
            "notes": plan.remarks,
        });
        writeln!(out, "{line}")
    } else if plan.changes.is_empty() {
        writeln!(out, "webhook {id} of application {application} needs no change")
    } else {
        let of_old = if is_new { "new webhook" } else { "webhook" };
        let cells = plan.changes.iter().map(|Change { what, now, wanted }| {
            [what.to_string(), now.clone().unwrap_or_else(|| "-".into()), wanted.clone()]
        });
        writeln!(out, "{of_old} {id} of application {application}")
            .and_then(|()| table::write(&mut out, ["WHAT", "NOW", "NEW"], cells, &[]))
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// Has an uplink simulated, and waits until The Things Stack says what became of its webhook. A healthy webhook stays healthy
/// without a trace of what is sent, so that its health is forgotten first.
async fn simulate(registry: &Registry, application: &str, id: &str, device: &str) -> anyhow::Result<()> {
    ensure!(
        registry.has_device(application, device).await?,
        "application {application} has no device {device}: no uplink is simulated, because the connector would register the device"
    );
    registry.set(application, id, &plan::forget_health()).await?;
    registry.simulate(application, device).await?;
    eprintln!("an uplink of {device} is simulated; the connector forwards it to the hub");
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let webhook = registry.webhook(application, id).await?;
        if webhook.is_none_or(|webhook| webhook.health_status.state() != State::Unknown) {
            break;
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
