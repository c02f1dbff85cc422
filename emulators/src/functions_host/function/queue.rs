//! Reads `queueTrigger` and `queue` bindings.

use anyhow::ensure;

use crate::{
    functions_host::{
        document::Node,
        function::name_of,
        settings::{self, Settings},
    },
    queues::{self, Account, StorageAccount},
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
    pub account: Account,
}

/// # Errors
/// Names the file, the member and the setting that are wrong.
pub fn parse(binding: &Node<'_>, direction: &str, settings: &Settings) -> anyhow::Result<QueueBinding> {
    if let Some(data_type) = binding.get("dataType") {
        let is_string = data_type.str()?.eq_ignore_ascii_case("string");
        ensure!(is_string, data_type.error("must be \"string\": this host has no other type for queues"));
    }
    let node = binding.required("queueName")?;
    let name = settings::interpolated(settings, node.str()?).map_err(|problem| node.error(problem))?;
    // The real host does this too.
    let name = name.to_lowercase();
    queues::check_name(&name).map_err(|problem| node.error(format_args!("is {name:?}: {problem}")))?;
    Ok(QueueBinding { binding: name_of(binding, direction)?, queue: name, account: account(binding, settings)? })
}

fn account(binding: &Node<'_>, settings: &Settings) -> anyhow::Result<Account> {
    let setting = |name: &str| settings.get(&format!("AzureWebJobs{name}")).or_else(|| settings.get(name));
    let Some(node) = binding.get("connection").filter(|node| node.value() != "") else {
        // Most settings files have `UseDevelopmentStorage=true` there. That is no request for an account.
        let full = setting(DEFAULT_CONNECTION).filter(|text| text.to_ascii_lowercase().contains("accountname="));
        return full.map_or(Ok(Account::Memory), |text| {
            let wrong = |problem| binding.error(format_args!("has no connection, and {DEFAULT_CONNECTION} {problem}"));
            StorageAccount::parse(text).map(Account::Storage).map_err(wrong)
        });
    };
    let name = node.str()?;
    if let Some(text) = setting(name) {
        let wrong = |problem| node.error(format_args!("is {name:?}, and that setting {problem}"));
        return StorageAccount::parse(text).map(Account::Storage).map_err(wrong);
    }
    let identity = settings.keys().find(|key| key.starts_with(&format!("{name}__")));
    ensure!(
        identity.is_none(),
        node.error(format_args!(
            "is {name:?}, and there is a setting {}: this host cannot use an identity, only a connection string in {name}",
            identity.map_or("", String::as_str)
        ))
    );
    Ok(Account::Memory)
}
