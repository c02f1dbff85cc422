//! Makes one fault, and checks the row about it and that all other rows are well.

use std::borrow::Cow;

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntime, RoutingStrategy,
    models::{ContainerProperties, PartitionKeyDefinition, TimeToLive},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    check::services::{Report, world},
    support::{Emulator, World},
};

/// The number of worlds that run at a time.
const AT_ONCE: usize = 4;
const DATABASE: &str = "M2MBackendForwarderData";

#[derive(Clone, Debug)]
pub enum Wrong {
    Setting(&'static str, String),
    Unset(&'static str),
    /// The `trouble` of a service for requests to a path.
    Trouble(Service, &'static str, Value),
    /// The `faults` of a service.
    Faults(Service, Value),
    Away(Service),
    /// A container that an operator made.
    Container(Box<ContainerProperties>),
}

#[derive(Clone, Copy, Debug)]
pub enum Service {
    Backend,
    Cosmos,
    Hub,
}

pub struct Case {
    what: &'static str,
    result: &'static str,
    wrong: Vec<Wrong>,
    kind: Option<&'static str>,
    text: &'static str,
    to_do: &'static str,
}

/// A case whose failed row is about something that begins with `what`.
pub fn failed(what: &'static str) -> Case {
    Case { what, result: "failed", wrong: Vec::new(), kind: None, text: "", to_do: "" }
}

pub fn warning(what: &'static str) -> Case {
    Case { result: "warning", ..failed(what) }
}

pub fn set(name: &'static str, value: &str) -> Wrong {
    Wrong::Setting(name, value.to_owned())
}

pub fn answer(status: u16) -> Value {
    json!({ "answer": { "status": status } })
}

pub fn container(id: &'static str, paths: &[&'static str], ttl: TimeToLive) -> Wrong {
    let paths = paths.iter().map(|path| Cow::from(*path)).collect::<Vec<_>>();
    let properties = ContainerProperties::new(id, PartitionKeyDefinition::new(paths)).with_default_ttl(ttl);
    Wrong::Container(Box::new(properties))
}

impl Case {
    pub fn when(mut self, wrong: Wrong) -> Self {
        self.wrong.push(wrong);
        self
    }

    pub fn kind(self, kind: &'static str) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Texts that the row's text and its advice must contain.
    pub fn says(self, text: &'static str, to_do: &'static str) -> Self {
        Self { text, to_do, ..self }
    }

    async fn run(self) {
        let Self { what, result, wrong, kind, text, to_do } = self;
        let mut world = world().await;
        for wrong in &wrong {
            spoil(&mut world, wrong).await;
        }
        let report = Report::of(&world, &[]).await;
        let row = report.row(what, result);
        assert_eq!(row["kind"].as_str(), kind, "{wrong:?}: {row}");
        for (member, expected) in [("text", text), ("toDo", to_do)] {
            let said = row[member].as_str().unwrap_or_default();
            assert!(said.contains(expected), "{wrong:?}: {expected:?} is not in {said:?}");
        }
        assert!(row["toDo"].as_str().is_some_and(|to_do| !to_do.is_empty()), "{wrong:?}: nothing to do? {row}");
        let others = report.rows.iter().filter(|other| *other != row && other["result"] == "failed");
        assert_eq!(others.count(), 0, "{wrong:?} spoils something else: {:#?}", report.rows);
    }
}

/// Runs the cases, some at a time.
pub async fn run(cases: impl IntoIterator<Item = Case>) {
    stream::iter(cases).for_each_concurrent(AT_ONCE, Case::run).await;
}

async fn spoil(world: &mut World, wrong: &Wrong) {
    match wrong {
        Wrong::Setting(name, value) => world.set(name, value),
        Wrong::Unset(name) => world.unset(name),
        Wrong::Trouble(service, path, effect) => {
            service.of(world).put("trouble", json!([{ "path": path, "effect": effect }])).await;
        }
        Wrong::Faults(service, faults) => service.of(world).put("faults", faults.clone()).await,
        Wrong::Away(service) => service.of(world).away(true).await,
        Wrong::Container(properties) => make(world, (**properties).clone()).await,
    }
}

impl Service {
    fn of(self, world: &World) -> &Emulator {
        match self {
            Self::Backend => &world.backend,
            Self::Cosmos => &world.cosmos,
            Self::Hub => &world.hub,
        }
    }
}

async fn make(world: &World, properties: ContainerProperties) {
    let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
    let account = AccountReference::with_authentication_key(endpoint.parse().unwrap(), Secret::new(key.to_owned()));
    let runtime = CosmosRuntime::builder().build().await.unwrap();
    let routing = RoutingStrategy::PreferredRegions(Vec::new());
    let client = CosmosClient::builder().with_runtime(runtime).build(account, routing).await.unwrap();
    client.create_database(DATABASE, None).await.unwrap();
    client.database_client(DATABASE).create_container(properties, None).await.unwrap();
}
