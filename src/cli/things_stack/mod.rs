//! `things-stack`: sets up the webhook of an application in The Things Stack, and shows the health of webhooks.

mod health;
mod setup;

use std::process::ExitCode;

use iothub_connector::{
    config::{Problems, Settings, hub, things_network, things_stack},
    things_network::registry::{Registry, plan::Wanted},
};
use url::Url;

const EXAMPLES: &str = "\
Examples:
  iothub-connector things-stack setup --application pumps        # a dry run
  iothub-connector things-stack setup --application pumps --yes
  iothub-connector things-stack health --application pumps

They need ThingsStackUrl and ThingsStackApiKey. Nothing is changed, except by
setup with --yes. docs/how-to/set-up-the-things-stack.md has the whole story.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Creates or changes the webhook that sends an application's uplinks to this app
    Setup(setup::Options),
    /// Shows the health of the webhooks of an application
    Health(health::Options),
}

/// # Errors
/// Settings are wrong, The Things Stack refuses something or cannot be reached, or the output cannot be printed.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.command {
        Command::Setup(options) => setup::run(options).await,
        Command::Health(options) => health::run(options).await,
    }
}

/// The client for The Things Stack of the settings. Adds faults to `problems`.
pub fn registry(settings: &Settings, problems: &mut Problems) -> Option<Registry> {
    let stack = things_stack::read(settings, problems);
    let trusted_ca = hub::trusted_ca(settings, problems);
    let stack = stack?;
    Some(Registry::new(stack.root, stack.api_key, trusted_ca?))
}

/// What a webhook shall be, by the settings, except its address. Adds faults to `problems`.
pub fn wanted(settings: &Settings, problems: &mut Problems) -> Option<(Option<Url>, impl Fn(Url) -> Wanted + use<>)> {
    let things_stack::Webhook { address, function_key, downlink_api_key } =
        things_stack::read_webhook(settings, problems);
    let things_network::Accepted { events, secret } = things_network::Accepted::read(settings, problems);
    let members = things_network::members(settings, problems)?;
    let with_address = move |address| Wanted {
        address,
        function_key: function_key.clone(),
        secret: secret.clone(),
        downlink_api_key: downlink_api_key.clone(),
        events,
        members: members.clone(),
    };
    Some((address, with_address))
}
