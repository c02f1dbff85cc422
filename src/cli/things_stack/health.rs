//! `things-stack health`: shows the health of the webhooks of an application, as The Things Stack notes it.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use iothub_connector::{
    config::Problems,
    things_network::registry::{Webhook, address, health::State},
};
use serde::Serialize;

use crate::cli::{settings::Source, similar, table};

const EXAMPLES: &str = "\
Examples:
  iothub-connector things-stack health --application pumps
  iothub-connector things-stack health --application pumps --webhook iot-hub
  iothub-connector things-stack health --application pumps --json \\
    | jq -r 'select(.state == \"unhealthy\") | .webhook'

The exit code is 0 if all of them are well, and 1 if one is unhealthy or paused.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// The application in The Things Stack
    #[arg(long, value_name = "ID")]
    application: String,
    /// Only this webhook
    #[arg(long, value_name = "ID")]
    webhook: Option<String>,
    /// Print each webhook as one line of JSON, for scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// The health of a webhook.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health<'a> {
    application: &'a str,
    webhook: &'a str,
    base_url: String,
    state: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_attempts: Option<u64>,
    /// What the app answered to the last attempt that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<&'static str>,
}

/// # Errors
/// Settings are wrong, The Things Stack refuses to tell or cannot be reached, or the output cannot be printed.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let settings = options.source.read()?;
    let mut problems = Problems::default();
    let registry = super::registry(&settings, &mut problems);
    let Some(registry) = registry.filter(|_| problems.is_empty()) else { return Err(problems.into()) };
    let application = options.application.as_str();
    let mut webhooks = registry.webhooks(application).await?;
    if let Some(id) = &options.webhook
        && !webhooks.iter().any(|webhook| webhook.id() == id)
    {
        let meant = similar::meant(id, webhooks.iter().map(Webhook::id));
        bail!("application {application} has no webhook {id}{meant}: `iothub-connector things-stack setup` makes one");
    }
    webhooks.retain(|webhook| options.webhook.as_deref().is_none_or(|id| webhook.id() == id));
    if webhooks.is_empty() {
        bail!("application {application} has no webhook: `iothub-connector things-stack setup` makes one");
    }
    let all: Vec<_> = webhooks.iter().map(|webhook| Health::of(application, webhook)).collect();
    print(&all, options.json)?;
    Ok(if all.iter().all(Health::is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a table, or lines of JSON.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(all: &[Health<'_>], is_json: bool) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if is_json { json(all, &mut out) } else { text(all, &mut out) };
    match written.and_then(|()| out.flush()) {
        // The reader has closed the pipe (`| head`).
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

fn json(all: &[Health<'_>], out: &mut impl Write) -> io::Result<()> {
    for health in all {
        serde_json::to_writer(&mut *out, health)?;
        writeln!(out)?;
    }
    Ok(())
}

fn text(all: &[Health<'_>], out: &mut impl Write) -> io::Result<()> {
    let cells = all.iter().map(|health| {
        let state = format!("{}: {} (leads to {})", health.state, health.text, health.base_url);
        [health.webhook.to_owned(), state, health.to_do.unwrap_or_default().to_owned()]
    });
    table::write(out, ["WEBHOOK", "HEALTH", "TO DO"], cells, &[])
}

impl<'a> Health<'a> {
    pub fn of(application: &'a str, webhook: &'a Webhook) -> Self {
        let base = |state, text: &str, to_do| Self {
            application,
            webhook: webhook.id(),
            base_url: address::shown(&webhook.base_url),
            state,
            text: text.to_owned(),
            failed_attempts: None,
            status: None,
            to_do,
        };
        if webhook.paused {
            return base("paused", "somebody has paused it: nothing is sent", Some("resume it in the console"));
        }
        match webhook.health_status.state() {
            State::Unknown => base("unknown", "nothing was sent since it was made or set up", None),
            State::Healthy => base("healthy", "the connector takes what it sends", None),
            State::Unhealthy(failures) => Self {
                failed_attempts: Some(failures.attempts),
                status: failures.status,
                ..base("unhealthy", &failures.text(), Some(failures.to_do()))
            },
        }
    }

    pub fn is_well(&self) -> bool {
        self.to_do.is_none()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(id: &str, changes: serde_json::Value) -> Webhook {
        let mut webhook = changes;
        webhook["ids"] = json!({ "webhook_id": id });
        webhook["base_url"] = "https://my-app.azurewebsites.net/api/uplink?code=hunter2".into();
        serde_json::from_value(webhook).unwrap()
    }

    #[test]
    fn the_table_has_no_keys() {
        let unhealthy = json!({"failed_attempts": "12", "last_failed_attempt_at": "2026-03-02T10:15:30Z",
            "last_failed_attempt_details": {"attributes": {"status_code": 401},
                "details": [{"value": {"body": "{\"title\":\"Unauthorized\",\"detail\":\"x-functions-key: hunter2 is wrong, so the webhook is refused\"}"}}]}});
        let webhooks = [
            webhook("a-webhook-with-the-longest-possible-i", json!({"health_status": {"unhealthy": unhealthy}})),
            webhook("new", json!({})),
            webhook("paused", json!({"paused": true, "health_status": {"healthy": {}}})),
            webhook("well", json!({"health_status": {"healthy": {}}})),
        ];
        let all: Vec<_> = webhooks.iter().map(|webhook| Health::of("pumps", webhook)).collect();
        let mut out = Vec::new();
        text(&all, &mut out).unwrap();
        json_lines_have_no_keys(&all);
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains("hunter2"), "{out}");
        for part in ["unhealthy: 12 attempts failed", "answered 401", "paused: somebody", "unknown: nothing was sent"] {
            assert!(out.contains(part), "{part} is missing in\n{out}");
        }
        assert_eq!(all.iter().map(Health::is_well).collect::<Vec<_>>(), [false, true, false, true]);
    }

    fn json_lines_have_no_keys(all: &[Health<'_>]) {
        let mut out = Vec::new();
        json(all, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains("hunter2"), "{out}");
        let first: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["state"], &first["failedAttempts"], &first["status"]),
            (&json!("unhealthy"), &json!(12), &json!(401))
        );
    }
}
