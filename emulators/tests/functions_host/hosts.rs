//! Tests several hosts with one storage account: a timer runs in one of them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use emulators::{
    functions_host::{Emulator, Event, Options},
    storage,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    PATIENCE,
    app::{App, NEVER, host, timer},
    client,
    handler::Handler,
};

const CONTAINER: &str = "azure-webjobs-hosts";
const LOCK: &str = "locks/my-app/Host.Functions.poll.Listener";
const STATUS: &str = "timers/my-app/Host.Functions.poll/status";
const SECOND: &str = "* * * * * *";
const HOUR: &str = "0 0 * * * *";
/// What a host without the lock does meanwhile is seen after so many runs of the other.
const RUNS: usize = 3;

struct Account(storage::Emulator);

impl Account {
    async fn start() -> Self {
        Self(storage::start(storage::Options::default()).await.unwrap())
    }

    async fn host(&self, app: &App, handler: &Handler) -> Emulator {
        self.host_with(app, handler, Options::default()).await
    }

    async fn host_with(&self, app: &App, handler: &Handler, options: Options) -> Emulator {
        let connection = self.0.ready().connection.clone();
        let env =
            vec![("AzureWebJobsStorage".to_owned(), connection), ("WEBSITE_SITE_NAME".to_owned(), "My-App".to_owned())];
        handler.hosted(app, Options { env, lock_retry: Duration::from_millis(50), ..options }).await
    }

    async fn set_clock(&self, ahead: i64) {
        self.set("clock", json!({ "aheadSeconds": ahead })).await;
    }

    async fn set(&self, switch: &str, value: Value) {
        let url = format!("{}{switch}", self.0.ready().control);
        client().put(url).json(&value).send().await.unwrap().error_for_status().unwrap();
    }

    /// How many requests were hit by the first rule of trouble.
    async fn met(&self) -> u64 {
        let url = format!("{}trouble", self.0.ready().control);
        client().get(url).send().await.unwrap().json::<Value>().await.unwrap()[0]["met"].as_u64().unwrap()
    }

    /// Waits until the hosts have asked for the lock so often from now on.
    async fn asked_for(&self, times: u64) {
        // A pause of no time hits a request and does nothing to it.
        self.set("trouble", json!([{ "path": "comp=lease", "effect": { "delayMs": 0 } }])).await;
        eventually(async || self.met().await >= times).await;
    }

    fn leased_until(&self) -> Option<DateTime<Utc>> {
        self.0.blobs().leased_until(CONTAINER, LOCK)
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.0.blobs().text(CONTAINER, STATUS).unwrap()).unwrap()
    }

    /// As if the last host had run the timer some hours ago.
    fn age(&self, hours: i64) {
        let age = |name: &str| {
            let time: DateTime<Utc> = self.status()[name].as_str().unwrap().parse().unwrap();
            (time - TimeDelta::hours(hours)).to_rfc3339()
        };
        let status = json!({ "Last": "0001-01-01T00:00:00", "Next": age("Next"), "LastUpdated": age("LastUpdated") });
        self.0.blobs().put(CONTAINER, STATUS, &status.to_string());
    }
}

async fn eventually(is_so: impl AsyncFn() -> bool) {
    let becomes_so = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, becomes_so).await.expect("it must become so");
}

#[tokio::test]
async fn a_timer_runs_in_one_host_and_in_the_other_once_that_one_has_stopped() {
    let (account, app) = (Account::start().await, App::new(host(), &[("poll", timer(SECOND))]));
    let (mut first, mut second) = (Handler::start().await, Handler::start().await);
    let host = account.host(&app, &first).await;
    let _other = account.host(&app, &second).await;
    for _ in 0..RUNS {
        first.next().await;
    }
    assert!(!second.has_next(), "the other host has it, too");
    host.stop().await;
    // No time has passed for the account: the lease was released.
    let call = second.next().await.json();
    assert_eq!(call["Data"]["myTimer"]["IsPastDue"], false);
    assert!(account.leased_until().is_some());
}

#[tokio::test]
async fn after_a_host_was_killed_the_other_makes_up_for_the_missed_run_when_the_lease_is_over() {
    let (account, app) = (Account::start().await, App::new(host(), &[("poll", timer(HOUR))]));
    let (first, mut second) = (Handler::start().await, Handler::start().await);
    let host = account.host(&app, &first).await;
    let _other = account.host(&app, &second).await;
    drop(host);
    account.age(2);
    account.asked_for(3).await;
    account.set_clock(59).await;
    account.asked_for(3).await;
    assert!(!second.has_next(), "the lease of the killed host is not over");
    account.set_clock(61).await;
    let timer = second.next().await.json()["Data"]["myTimer"].clone();
    assert_eq!(
        (&timer["IsPastDue"], &timer["ScheduleStatus"]["Last"]),
        (&json!(true), &json!("0001-01-01T00:00:00+00:00"))
    );
    let next: DateTime<Utc> = timer["ScheduleStatus"]["Next"].as_str().unwrap().parse().unwrap();
    assert!(next < Utc::now() - TimeDelta::minutes(50), "{next}");
    // The run is over for the next host, too.
    eventually(async || account.status()["Last"] != "0001-01-01T00:00:00").await;
    let next: DateTime<Utc> = account.status()["Next"].as_str().unwrap().parse().unwrap();
    assert!(next > Utc::now(), "{next}");
}

#[tokio::test]
async fn a_host_that_lives_keeps_the_lock() {
    let (account, app) = (Account::start().await, App::new(host(), &[("poll", timer(NEVER))]));
    let (first, second) = (Handler::start().await, Handler::start().await);
    let renewed = Options { lock_renewal: Duration::from_millis(50), ..Options::default() };
    let _host = account.host_with(&app, &first, renewed).await;
    let other = account.host(&app, &second).await;
    let mut events = other.events();
    for step in 1..=3 {
        let before = account.leased_until().unwrap();
        // Less than the minute of a lease: it must never have ended when the other host asks for it.
        account.set_clock(50 * step).await;
        eventually(async || account.leased_until().is_some_and(|end| end > before + TimeDelta::seconds(40))).await;
    }
    assert!(!std::iter::from_fn(|| events.try_recv().ok()).any(|event| matches!(event, Event::Stopped { .. })));
}

#[tokio::test]
async fn a_host_that_has_lost_the_lock_ends() {
    let (account, app) = (Account::start().await, App::new(host(), &[("poll", timer(NEVER))]));
    let (first, second) = (Handler::start().await, Handler::start().await);
    let renewed = Options { lock_renewal: Duration::from_millis(50), ..Options::default() };
    let host = account.host_with(&app, &first, renewed).await;
    // Only renewals fail, they alone name a lease.
    let failure = json!([{ "header": "x-ms-lease-id", "effect": { "answer": { "status": 503 } } }]);
    account.set("trouble", failure).await;
    account.set_clock(61).await;
    let _other = account.host(&app, &second).await;
    assert!(account.leased_until().is_some(), "the other has it");
    account.set("trouble", json!([])).await;
    let reason = timeout(PATIENCE, host.stopped()).await.unwrap();
    assert!(reason.contains("the lock locks/my-app/Host.Functions.poll.Listener cannot be kept"), "{reason}");
}

#[tokio::test]
async fn without_its_account_a_timer_never_runs_and_the_rest_works() {
    let (account, app) = (Account::start().await, App::new(host(), &[("poll", timer(SECOND))]));
    account.set("away", json!(true)).await;
    let mut handler = Handler::start().await;
    let host = account.host(&app, &handler).await;
    let mut events = host.events();
    let line = loop {
        if let Event::Line { text, .. } = timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            break text;
        }
    };
    assert!(line.starts_with("The listener for function 'poll' was unable to start: no answer"), "{line}");
    host.invoke("poll").await.unwrap();
    assert_eq!(handler.next().await.uri.path(), "/poll");
}
