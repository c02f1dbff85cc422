//! Reads `queueTrigger` and `queue` bindings.

use anyhow::ensure;

use crate::{
    functions_host::{
        document::Node,
        function::{MissingSetting, name_of},
        settings::{self, Settings},
    },
    queues::{self, StorageAccount},
};

/// The setting with the account for bindings without `connection`.
const DEFAULT_CONNECTION: &str = "AzureWebJobsStorage";

/// A binding to a queue, in either direction.
#[derive(Clone, Debug)]
pub struct QueueBinding {
    /// The binding's name.
    pub binding: String,
    /// The queue's name.
    pub queue: String,
    /// `None`: the host has to provide one, see `setting`.
    pub account: Option<StorageAccount>,
    /// The setting with the account's connection string.
    pub setting: String,
}

/// # Errors
/// Names the file, the member and the setting that are wrong.
pub fn parse(binding: &Node<'_>, direction: &str, settings: &Settings) -> anyhow::Result<QueueBinding> {
    if let Some(data_type) = binding.get("dataType") {
        let is_string = data_type.str()?.eq_ignore_ascii_case("string");
        ensure!(is_string, data_type.error("must be \"string\": this host has no other type for queues"));
    }
    let node = binding.required("queueName")?;
    let name = settings::interpolated(settings, node.str()?).map_err(|problem| match problem {
        settings::Uninterpolated::Missing(_) => anyhow::Error::new(MissingSetting(node.error(problem).to_string())),
        settings::Uninterpolated::Unpaired => node.error(problem),
    })?;
    // The real host does this too.
    let name = name.to_lowercase();
    queues::check_name(&name).map_err(|problem| node.error(format_args!("is {name:?}: {problem}")))?;
    let (account, setting) = account(binding, settings)?;
    Ok(QueueBinding { binding: name_of(binding, direction)?, queue: name, account, setting })
}

/// The account of `AzureWebJobsStorage`. `None` if that names none.
pub fn default_account(settings: &Settings) -> Option<Result<StorageAccount, &'static str>> {
    // Most settings files have `UseDevelopmentStorage=true` there. That is not a request for an account.
    let text = setting(settings, DEFAULT_CONNECTION)?;
    text.to_ascii_lowercase().contains("accountname=").then(|| StorageAccount::parse(text))
}

fn setting<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.get(&format!("AzureWebJobs{name}")).or_else(|| settings.get(name)).map(String::as_str)
}

fn account(binding: &Node<'_>, settings: &Settings) -> anyhow::Result<(Option<StorageAccount>, String)> {
    let Some(node) = binding.get("connection").filter(|node| node.value() != "") else {
        let wrong = |problem| binding.error(format_args!("has no connection, and {DEFAULT_CONNECTION} {problem}"));
        let account = default_account(settings).transpose().map_err(wrong)?;
        return Ok((account, DEFAULT_CONNECTION.to_owned()));
    };
    let name = node.str()?;
    if let Some(text) = setting(settings, name) {
        let wrong = |problem| node.error(format_args!("is {name:?}, and that setting {problem}"));
        return Ok((Some(StorageAccount::parse(text).map_err(wrong)?), name.to_owned()));
    }
    let identity = settings.keys().find(|key| key.starts_with(&format!("{name}__")));
    ensure!(
        identity.is_none(),
        node.error(format_args!(
            "is {name:?}, and there is a setting {}: this host cannot use an identity, only a connection string in {name}",
            identity.map_or("", String::as_str)
        ))
    );
    Ok((None, name.to_owned()))
}
