//! `devices move` and `devices forget`: changes to which LoRaWAN device the documents belong, many at once.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use iothub_connector::iot_hub::devices::{
    Owner, Store, StoreError,
    documents::Document,
    store::{Stored, Written},
};

use super::table;
use crate::cli::{settings::Source, similar};

/// Documents that are changed at once.
const CONCURRENCY: usize = 8;

const AFTER_MOVE: &str = "\
Examples:
  iothub-connector devices move --application trial --to production          # what would be done
  iothub-connector devices move --application trial --to production --yes
  iothub-connector replay --queue rejected                                   # what was rejected meanwhile

It is for LoRaWAN devices that were moved to another application, or to another tenant (--to is then the same application),
and whose ids at the hub stay the same. With {dev_eui} in DeviceIdTemplate it is not needed.";

const AFTER_FORGET: &str = "\
Examples:
  iothub-connector devices forget --application trial                        # what would be done
  iothub-connector devices forget --application trial --device probe-5 --yes

A device that sends again is registered anew. The app remembers devices while it runs: restart it.";

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_MOVE)]
pub struct Move {
    #[command(flatten)]
    which: Which,
    /// The application that the devices have moved to
    #[arg(long, value_name = "APPLICATION")]
    to: String,
}

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_FORGET)]
pub struct Forget {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The application of the devices, as the list shows it
    #[arg(long)]
    application: String,
    /// Only this device of the application, by its id in The Things Stack; can be given several times
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Do it; without this, what would be done is only shown
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    source: Source,
}

/// Gives devices to another application. Their tenants are learned anew.
///
/// # Errors
/// The container of devices cannot be read or written.
pub async fn move_devices(options: Move) -> anyhow::Result<ExitCode> {
    let Move { which, to } = options;
    let moved = |document: Document| {
        let owner = iothub_connector::iot_hub::devices::StoredOwner { group: to.clone(), ..document.owner.clone() };
        Document { owner, tenant: None, ..document }
    };
    which
        .change("moved", async |store, Stored { document, etag }| store.write(&moved(document), etag.as_deref()).await)
        .await
}

/// Deletes documents.
///
/// # Errors
/// The container of devices cannot be read or written.
pub async fn forget(options: Forget) -> anyhow::Result<ExitCode> {
    let delete = async |store: &Store, Stored { document, etag }: Stored| {
        store.delete(&document.id, etag.as_deref().unwrap_or_default()).await
    };
    options.which.change("forgotten", delete).await
}

impl Which {
    fn has(&self, document: &Document) -> bool {
        document.owner.system == Owner::THINGS_NETWORK
            && document.owner.group == self.application
            && (self.device.is_empty() || self.device.contains(&document.owner.name))
    }

    /// The text if none of `all` is meant.
    fn unknown(&self, all: &[Document]) -> String {
        let application = &self.application;
        let owners =
            || all.iter().map(|document| &document.owner).filter(|owner| owner.system == Owner::THINGS_NETWORK);
        let applications: BTreeSet<_> = owners().map(|owner| owner.group.as_str()).collect();
        if !applications.contains(application.as_str()) {
            let meant = similar::meant(application, applications.into_iter());
            return format!("application {application} has no devices{meant}");
        }
        let names: BTreeSet<_> =
            owners().filter(|owner| owner.group == *application).map(|owner| owner.name.as_str()).collect();
        let meant = self.device.iter().map(|device| similar::meant(device, names.iter().copied())).collect::<String>();
        format!("application {application} has no device {}{meant}", self.device.join(", "))
    }

    /// Shows the documents, and does `change` to them if that was asked for.
    async fn change(
        &self,
        done: &str,
        change: impl AsyncFn(&Store, Stored) -> Result<Written, StoreError>,
    ) -> anyhow::Result<ExitCode> {
        let (store, _) = super::store(&self.source)?;
        let all = store.list().await?.unwrap_or_default().documents;
        let documents: Vec<_> = all.iter().filter(|document| self.has(document)).cloned().collect();
        if documents.is_empty() {
            bail!("{}", self.unknown(&all));
        }
        let count = documents.iter().filter(|document| !document.is_claim()).count();
        let mut out = io::stdout().lock();
        table(&documents, &mut out).and_then(|()| out.flush()).context("cannot print")?;
        drop(out);
        if !self.yes {
            eprintln!("{count} devices would be {done}. Nothing is changed: add --yes");
            return Ok(ExitCode::SUCCESS);
        }
        let changes = documents.iter().map(|document| async {
            let Some(stored) = store.read(&document.id).await?.filter(|stored| self.has(&stored.document)) else {
                return Ok(Written::Conflict);
            };
            change(&store, stored).await
        });
        let results: Vec<_> = futures::stream::iter(changes).buffered(CONCURRENCY).collect().await;
        let mut is_complete = true;
        for (document, result) in documents.iter().zip(&results) {
            let why = match result {
                Ok(Written::Yes) => continue,
                Ok(Written::Conflict) => "it was changed meanwhile: try again".to_owned(),
                Err(error) => error.to_string(),
            };
            is_complete = false;
            eprintln!("error: document {} of {}: {why}", document.id, document.owner);
        }
        let changed = documents.iter().zip(&results);
        let changed =
            changed.filter(|(document, result)| !document.is_claim() && matches!(result, Ok(Written::Yes))).count();
        eprintln!("{changed} of {count} devices are {done}");
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
