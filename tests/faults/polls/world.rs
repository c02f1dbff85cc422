//! Starts a site, a backend, a ledger and a hub for each cell.

use std::{sync::LazyLock, time::Duration};

use emulators::{cosmos, iot_hub, rapidm2m};
use serde_json::{Value, json};
use tokio::{join, time::Instant};

use crate::{
    faults::{cell::normal, secrets::Secrets},
    support::{Answer, Authority, Emulator, Handler, Ledger, World, rows},
};

pub const SITE: &str = "well-7";
const DATABASE: &str = "M2MBackendForwarderData";
/// The secrets' check includes what libraries log at `trace`.
const EVERYTHING: &str = "trace,mio=info";
/// The pause between two runs while a fault or back-off lasts.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a log line may take to arrive, and how often to look for it.
const LOGGED: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The number of rows that are added at once.
const ROWS: i64 = 3;

pub struct Polled {
    pub world: World,
    pub handler: Handler,
    rows: i64,
    answers: Vec<Value>,
}

/// The result of a run.
pub struct Run {
    pub answer: Answer,
    /// The new records, oldest first; those of the pseudo site `*` before those of the site.
    pub recorded: Vec<Value>,
}

pub async fn world() -> World {
    let backend =
        rapidm2m::Options { site: vec![SITE.into()], no_generate: true, channels: 2, ..rapidm2m::Options::default() };
    let (backend, cosmos, hub) = join!(
        Emulator::rapidm2m(backend),
        Emulator::cosmos(cosmos::Options::default()),
        Emulator::iot_hub(iot_hub::Options::default())
    );
    let mut world = World::of(backend, cosmos, hub, &[SITE]);
    world.set("RUST_LOG", EVERYTHING);
    world.set("SSL_CERT_FILE", &platform());
    world
}

/// Replaces the platform's certificate authorities: one instead of a hundred and fifty, which each start would read.
/// The hub's authority is not among them.
pub fn platform() -> String {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("platform"));
    AUTHORITY.path().to_owned()
}

impl Polled {
    pub async fn start(world: World) -> Self {
        let handler = world.handler().await;
        Self { world, handler, rows: 0, answers: Vec::new() }
    }

    pub async fn restart(&mut self) {
        let handler = self.world.handler().await;
        std::mem::replace(&mut self.handler, handler).kill().await;
    }

    pub async fn add_rows(&mut self) {
        self.world.add(SITE, self.rows..self.rows + ROWS).await;
        self.rows += ROWS;
    }

    pub async fn invoke(&mut self) -> Answer {
        let answer = self.handler.invoke().await;
        self.answers.push(answer.body.clone());
        answer
    }

    pub async fn invoke_ok(&mut self) {
        let answer = self.invoke().await;
        assert_eq!(answer.status, 200, "{}", self.told(&answer));
    }

    /// The records of the site and the pseudo site.
    pub async fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for document in self.world.all_documents().await {
            if document["Kind"] == "poll" {
                records.push(document);
            }
        }
        records.sort_by_key(|record| (record["Site_Id"] != "*", record["id"].to_string()));
        records
    }

    /// The devices in the ledger.
    async fn devices(&self) -> Vec<Value> {
        let (endpoint, key) = (self.world.cosmos.ready("endpoint"), self.world.cosmos.ready("key"));
        let ledger = Ledger::find(endpoint, key, DATABASE, "devices").await;
        ledger.expect("container devices").all().await
    }

    /// One run. Its records are read afterwards, when `heal` is done.
    pub async fn observe(
        &mut self,
        running: impl AsyncFnOnce(&mut Self) -> Answer,
        heal: impl AsyncFnOnce(&World),
    ) -> Run {
        let before: Vec<_> = self.records().await.iter().map(|record| record["id"].clone()).collect();
        let runs = self.runs_told();
        let answer = running(self).await;
        heal(&self.world).await;
        until(|| self.runs_told() > runs, "the run's summary").await;
        let mut recorded = self.records().await;
        recorded.retain(|record| !before.contains(&record["id"]));
        Run { answer, recorded }
    }

    /// Runs until one run succeeds. Returns how many did not.
    pub async fn invoke_until_ok(&mut self, within: Duration) -> usize {
        let give_up = Instant::now() + within;
        for failed in 0.. {
            let answer = self.invoke().await;
            // A run with a pending registration is no failure, but its rows have not arrived yet.
            let is_there = answer.status == 200 && self.world.cursor(SITE).await["Unforwarded"] == json!([]);
            if is_there {
                return failed;
            }
            assert!(Instant::now() < give_up, "no success within {within:?}: {}", self.told(&answer));
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!()
    }

    /// Asserts that nothing is lost, all is in order, repeats have the same id, the ledger is settled, and no output
    /// contains a secret.
    pub async fn assert_all_is_well(&mut self) {
        self.add_rows().await;
        self.invoke_ok().await;
        self.world.assert_rows(SITE, &rows(0..self.rows)).await;
        self.world.assert_settled().await;
        let cursor = self.world.cursor(SITE).await;
        let trouble = ["LastError", "NotBefore"].map(|name| &cursor[name]);
        assert_eq!((trouble, &cursor["ConsecutiveFailures"]), ([&Value::Null; 2], &json!(0)), "{cursor}");
        self.assert_no_secrets().await;
    }

    async fn assert_no_secrets(&self) {
        let secrets = Secrets::of(&self.world, &[SITE]);
        secrets.assert_absent("the log", &self.world.output());
        secrets.assert_absent_in("an answer", &self.answers);
        secrets.assert_absent_in("a document", &self.world.all_documents().await);
        if self.world.settings.contains_key("DPSIDScope") {
            secrets.assert_absent_in("a document", &self.devices().await);
        }
    }

    /// Waits until this was logged: the lines come through a pipe.
    pub async fn logged(&self, text: &str) {
        until(|| self.world.output().contains(text), text).await;
    }

    /// The number of run summaries in the log.
    fn runs_told(&self) -> usize {
        self.world.output().matches(": rapidM2MForwarding: ").count()
    }

    pub fn told(&self, answer: &Answer) -> String {
        let ours: Vec<_> = self
            .world
            .output()
            .lines()
            .filter(|line| ["error: ", "warn: ", "info: "].iter().any(|level| line.starts_with(level)))
            .map(str::to_owned)
            .collect();
        format!("{} {}\n{}", answer.status, answer.body, ours[ours.len().saturating_sub(15)..].join("\n"))
    }
}

async fn until(is_logged: impl Fn() -> bool, what: &str) {
    let give_up = Instant::now() + LOGGED;
    while !is_logged() {
        assert!(Instant::now() < give_up, "{what:?} is not in the log");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The text of the last summary without its numbers.
fn notes(log: &str) -> String {
    let summary = log.lines().rfind(|line| line.starts_with("info: rapidM2MForwarding: ")).unwrap_or_default();
    let behind = summary.split_once(" failed, ").map_or("", |(_, behind)| behind);
    let notes = behind.split(", ").take_while(|note| !note.starts_with("in "));
    notes.map(|note| format!(", {note}")).collect()
}

impl Run {
    pub fn outcomes(&self) -> String {
        let outcomes: Vec<_> = self.recorded.iter().map(|record| record["Outcome"].as_str().unwrap()).collect();
        if outcomes.is_empty() { "-".into() } else { outcomes.join(", ") }
    }

    /// The records, as the user reads them.
    pub fn recorded_text(&self) -> String {
        let text = |record: &Value| {
            let outcome = format!("`{}`", record["Outcome"].as_str().unwrap());
            let kind = record["Error"]["Kind"].as_str().map(|kind| format!(" (`{kind}`)")).unwrap_or_default();
            let site = if record["Site_Id"] == "*" { " under the site `*`" } else { "" };
            format!("{outcome}{kind}{site}")
        };
        let texts: Vec<_> = self.recorded.iter().map(text).collect();
        if texts.is_empty() { "nothing".into() } else { texts.join(", ") }
    }

    /// The kinds of the failures.
    pub fn kinds(&self) -> String {
        if self.answer.status == 200 {
            return "-".into();
        }
        let kinds: Vec<_> = self.answer.failed().into_iter().map(|(_, kind)| kind).collect();
        kinds.join(", ")
    }

    /// The texts of the failures.
    pub fn texts(&self) -> Vec<String> {
        let failed = self.answer.body["Failed"].as_array().cloned().unwrap_or_default();
        failed.iter().map(|one| one["Text"].as_str().unwrap().to_owned()).collect()
    }

    /// What the user sees of the run, as text.
    pub fn seen_text(&self, world: &World) -> String {
        if self.answer.status == 200 {
            return format!("200{}", notes(&world.output()));
        }
        let failed = self.answer.body["Failed"].as_array().unwrap().iter();
        let text =
            |one: &Value| format!("`{}`: {}", one["Kind"].as_str().unwrap(), normal(one["Text"].as_str().unwrap()));
        format!("{}, {}", self.answer.status, failed.map(text).collect::<Vec<_>>().join("; "))
    }
}
