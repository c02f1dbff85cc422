//! Tests `PollQueueName`: the timer puts batches of sites into a storage queue, and any instance polls them. These tests carry
//! each batch to a handler themselves, as the Functions host does; `queue_hosts.rs` has hosts that do it.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::support::{Answer, Emulator, Handler, World, rows};

const QUEUE: &str = "polls";
const SITES: usize = 40;

fn name(number: usize) -> String {
    format!("site-{number:05}")
}

struct Fleet {
    world: World,
    storage: Emulator,
}

impl Fleet {
    /// With the default settings, 10 sites a batch, and a hub that any instance can use at the same time.
    async fn start() -> Self {
        Self::of(SITES).await
    }

    async fn of(sites: usize) -> Self {
        let names: Vec<_> = (0..sites).map(name).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let options = ["--no-generate", "--channels", "2", "--sites", &sites.to_string()];
        let (mut world, storage) = tokio::join!(World::start(&options, &names), Emulator::start("storage", &[]));
        for setting in ["RecordEmptyPolls", "SweepMinutes"] {
            world.unset(setting);
        }
        for (name, value) in [
            ("Site_ID", "*"),
            ("IoTHubTransport", "https"),
            ("PollQueueName", QUEUE),
            ("PollBatchSites", "10"),
            ("AzureStorageConnectionString", storage.ready("connection")),
        ] {
            world.set(name, value);
        }
        Self { world, storage }
    }

    async fn add(&self, minute: i64, sites: impl IntoIterator<Item = usize>) {
        for number in sites {
            self.world.add(&name(number), [minute]).await;
        }
    }

    /// Takes all batches out of the queue, as their texts.
    async fn take(&self) -> Vec<String> {
        let messages = self.storage.get(&format!("queues/{QUEUE}")).await;
        self.storage.delete(&format!("queues/{QUEUE}")).await;
        let text = |message: &Value| {
            let stored = message["text"].as_str().unwrap();
            assert!(stored.len() <= 64 * 1024, "{} bytes", stored.len());
            String::from_utf8(BASE64_STANDARD.decode(stored).unwrap()).unwrap()
        };
        messages.as_array().unwrap().iter().map(text).collect()
    }

    /// Puts batches, and has them polled by these handlers in turn. Returns how many sites were in them.
    async fn tick(&self, timer: &Handler, handlers: &[&Handler]) -> usize {
        timer.invoke_ok().await;
        let batches = self.take().await;
        for (batch, handler) in batches.iter().zip(handlers.iter().cycle()) {
            assert_eq!(poll(handler, batch).await.status, 200);
        }
        batches.iter().map(|batch| sites(batch).len()).sum()
    }

    /// All sites have had their turns.
    async fn settled(&self, timer: &Handler, one: &Handler) {
        self.add(0, 0..SITES).await;
        assert_eq!(self.tick(timer, &[one]).await, SITES);
        self.asked().await;
    }

    /// How often each site was asked for rows since the last call.
    async fn asked(&self) -> BTreeMap<String, usize> {
        let requests = self.world.backend.get("requests").await;
        self.world.backend.delete("requests").await;
        let mut asked = BTreeMap::new();
        for request in requests.as_array().unwrap() {
            if request["path"].as_str().unwrap().contains("/histdata") {
                *asked.entry(request["site"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        asked
    }
}

/// Calls the function as the host does: the message as a string in a string.
async fn poll(handler: &Handler, text: &str) -> Answer {
    let envelope = json!({ "Data": { "sites": json!(text).to_string() }, "Metadata": { "DequeueCount": "1" } });
    handler.post("/rapidM2MSites", envelope.to_string()).await
}

fn sites(batch: &str) -> Vec<Value> {
    let batch: Value = serde_json::from_str(batch).unwrap();
    batch["Sites"].as_array().unwrap().clone()
}

fn with(batch: &str, member: &str, value: Value) -> String {
    let mut batch: Value = serde_json::from_str(batch).unwrap();
    batch[member] = value;
    batch.to_string()
}

#[tokio::test]
async fn sites_with_news_are_polled_by_other_instances_until_their_cursors_say_that_they_are_done() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one, two) = tokio::join!(world.handler(), world.handler(), world.handler());
    fleet.add(0, 0..SITES).await;
    assert_eq!(fleet.tick(&timer, &[&one, &two]).await, SITES);
    assert_eq!(fleet.asked().await.values().sum::<usize>(), SITES, "each by one of them");
    assert_eq!(fleet.tick(&timer, &[&one, &two]).await, 0, "their cursors say it");
    for minute in 1..6 {
        fleet.add(minute, [7, 8]).await;
        // Each time another instance.
        let instances = if minute % 2 == 0 { [&one, &two] } else { [&two, &one] };
        assert_eq!(fleet.tick(&timer, &instances).await, 2, "{minute}: {}", world.output());
    }
    // A batch that nobody works on.
    fleet.add(6, [7]).await;
    timer.invoke_ok().await;
    assert_eq!(fleet.take().await.len(), 1);
    assert_eq!(fleet.tick(&timer, &[&one]).await, 1, "it is handed out again");
    assert_eq!(fleet.tick(&timer, &[&one]).await, 0);
    world.assert_rows(&name(7), &rows(0..7)).await;
    world.assert_rows(&name(8), &rows(0..6)).await;
    world.assert_rows(&name(9), &rows(0..1)).await;
    world.assert_settled().await;
    assert_eq!(world.delivered().await.repeats, 0);
    let output = world.output();
    assert!(!output.contains("served by another poller"), "no instance trusts what it remembers of a cursor");
    for part in ["rapidM2MForwarding: 2 of 40 sites put into the queue in 1 batches", "38 without a new contact"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert!(output.contains("rapidM2MSites: 2 of 2 sites polled"), "{output}");
}

#[tokio::test]
async fn messages_that_wait_are_sent_without_a_new_contact() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one) = tokio::join!(world.handler(), world.handler());
    fleet.settled(&timer, &one).await;
    world.hub.away(true).await;
    fleet.add(1, [3]).await;
    fleet.tick(&timer, &[&one]).await;
    world.hub.away(false).await;
    // The process that met the outage may wait with the next attempt.
    let two = world.handler().await;
    assert_eq!(fleet.tick(&timer, &[&two]).await, 1);
    assert_eq!(fleet.tick(&timer, &[&two]).await, 0);
    world.assert_rows(&name(3), &rows(0..2)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn rows_that_no_contact_has_announced_are_noticed_although_another_process_finds_them() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one) = tokio::join!(world.handler(), world.handler());
    let contact = "2026013112";
    for number in 0..SITES {
        world.backend.put(&format!("sites/{}", name(number)), json!({ "contact": contact })).await;
    }
    fleet.add(0, 0..SITES).await;
    for number in 0..SITES {
        world.backend.put(&format!("sites/{}", name(number)), json!({ "contact": contact })).await;
    }
    timer.invoke_ok().await;
    let batches = fleet.take().await;
    for batch in &batches {
        poll(&one, batch).await;
    }
    assert_eq!(fleet.tick(&timer, &[&one]).await, 0);
    fleet.add(1, [5]).await;
    world.backend.put(&format!("sites/{}", name(5)), json!({ "contact": contact })).await;
    // The sweep of that site.
    let sweep = batches.iter().find(|batch| batch.contains(&name(5))).unwrap();
    poll(&one, sweep).await;
    assert_eq!(fleet.tick(&timer, &[&one]).await, SITES, "the hint is not used any more");
    assert!(
        world.output().contains("the site had new rows, but the site list tells no new contact"),
        "{}",
        world.output()
    );
    world.assert_rows(&name(5), &rows(0..2)).await;
}

#[tokio::test]
async fn all_batches_together_keep_to_the_backends_limit() {
    let mut fleet = Fleet::of(120).await;
    fleet.world.set("BackendRequestsPerSecond", "40");
    let world = &fleet.world;
    let (timer, one, two, three) = tokio::join!(world.handler(), world.handler(), world.handler(), world.handler());
    fleet.add(0, 0..120).await;
    timer.invoke_ok().await;
    let batches = fleet.take().await;
    let shares: f64 = batches
        .iter()
        .map(|batch| serde_json::from_str::<Value>(batch).unwrap()["RequestsPerSecond"].as_f64().unwrap())
        .sum();
    assert!((shares - 40.0).abs() < 1e-6, "{shares}");
    world.backend.delete("requests").await;
    let calls =
        batches.iter().zip([&one, &two, &three].into_iter().cycle()).map(|(batch, handler)| poll(handler, batch));
    futures::future::join_all(calls).await;
    let requests = world.backend.get("requests").await;
    let at = |request: &Value| request["receivedAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let mut at: Vec<_> = requests.as_array().unwrap().iter().map(at).collect();
    at.sort();
    assert!(at.len() >= 120, "{}", at.len());
    let second = TimeDelta::seconds(1);
    let most =
        at.iter().map(|from| at.iter().filter(|other| *from <= **other && **other < *from + second).count()).max();
    // Three instances with 40 each would make 120. On a busy machine requests bunch.
    assert!(most <= Some(60), "{most:?} requests in a second");
    assert!(at[at.len() - 1] - at[0] < TimeDelta::seconds(8), "{:?}", at[at.len() - 1] - at[0]);
}

#[tokio::test]
async fn a_batch_that_is_too_old_is_dropped_and_said() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one) = tokio::join!(world.handler(), world.handler());
    fleet.settled(&timer, &one).await;
    fleet.add(1, [3]).await;
    timer.invoke_ok().await;
    let batch = fleet.take().await.remove(0);
    let until: DateTime<Utc> =
        serde_json::from_str::<Value>(&batch).unwrap()["Until"].as_str().unwrap().parse().unwrap();
    // The host's call says that runs are 5 minutes apart.
    assert!((200..=300).contains(&(until - Utc::now()).num_seconds()), "the next run has its sites: {until}");
    let old = with(&batch, "Until", json!(Utc::now() - TimeDelta::seconds(1)));
    assert_eq!(poll(&one, &old).await.status, 200, "it must not come again");
    world.printed("batches.dropped=1", 1).await;
    assert!(world.output().contains("1 batches with 1 sites were dropped"), "{}", world.output());
    assert!(fleet.asked().await.is_empty());
    fleet.tick(&timer, &[&one]).await;
    world.assert_rows(&name(3), &rows(0..2)).await;
}

#[tokio::test]
async fn what_is_no_batch_of_this_app_stops_nothing() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one) = tokio::join!(world.handler(), world.handler());
    fleet.settled(&timer, &one).await;
    fleet.add(1, [3]).await;
    timer.invoke_ok().await;
    let batch = fleet.take().await.remove(0);
    for foreign in ["", "hello", "{\"end_device_ids\":{}}", &with(&batch, "Sites", json!(7))] {
        let answer = poll(&one, foreign).await;
        assert_eq!(
            (answer.status, &answer.body["Outputs"]["rejected"]),
            (200, &json!([foreign])),
            "nobody knows what it is"
        );
    }
    world.printed("goes into its queue of rejected messages: it is not a batch of sites", 4).await;
    for (member, value) in [("Customer", json!("Another Water Utility")), ("Version", json!(2))] {
        let answer = poll(&one, &with(&batch, member, value)).await;
        assert_eq!((answer.status, &answer.body["Outputs"]), (200, &json!({})), "the next run has its sites");
    }
    world.printed("is dropped: it is a batch of the customer \"Another Water Utility\"", 1).await;
    assert!(fleet.asked().await.is_empty());
    poll(&one, &batch).await;
    world.assert_rows(&name(3), &rows(0..2)).await;
}

#[tokio::test]
async fn without_the_queue_the_runs_poll_the_sites_themselves_and_say_so_once() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let timer = world.handler().await;
    fleet.storage.away(true).await;
    for minute in 0..3 {
        fleet.add(minute, 0..SITES).await;
        timer.invoke_ok().await;
    }
    world.assert_rows(&name(3), &rows(0..3)).await;
    let said = "sites cannot be handed out to other instances";
    assert_eq!(world.output().matches(said).count(), 1, "{}", world.output());
    fleet.storage.away(false).await;
    fleet.add(3, [3]).await;
    assert_eq!(fleet.tick(&timer, &[&timer]).await, 1);
    world.printed("sites are handed out to other instances again", 1).await;
    world.assert_rows(&name(3), &rows(0..4)).await;
    world.assert_settled().await;
}

#[tokio::test]
async fn batches_that_nobody_takes_are_a_failure_and_the_run_polls_the_sites_itself() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let timer = world.handler().await;
    fleet.add(0, 0..SITES).await;
    timer.invoke_ok().await;
    let mut waiting = fleet.storage.get(&format!("queues/{QUEUE}")).await.as_array().unwrap().len();
    assert_eq!(waiting, SITES / 10);
    let mut failed = Vec::new();
    for minute in 1..8 {
        fleet.add(minute, 0..SITES).await;
        let answer = timer.invoke().await;
        if answer.status == 500 {
            failed = answer.failed();
            break;
        }
        let now = fleet.storage.get(&format!("queues/{QUEUE}")).await;
        waiting = now.as_array().unwrap().len();
        let (inserted, expires) = (&now[0]["insertionTime"], &now[0]["expirationTime"]);
        let time = |time: &Value| time.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        assert!(time(expires) - time(inserted) <= TimeDelta::minutes(15), "the queue forgets them");
    }
    assert_eq!(failed, [("*".to_owned(), "batches_not_taken".to_owned())]);
    assert!(waiting <= 4 * SITES / 10, "{waiting} are stacked up");
    let minutes = world.delivered().await.rows[&name(3)].len();
    assert!(minutes >= 3, "{minutes} rows");
    world.assert_settled().await;
}

/// The timer alone finds out whether the backend takes a password.
#[tokio::test]
async fn a_changed_password_costs_few_wrong_logins_however_many_instances_there_are() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (one, two) = tokio::join!(world.handler(), world.handler());
    let mut timer = world.handler().await;
    fleet.add(0, 0..SITES).await;
    fleet.tick(&timer, &[&one, &two]).await;
    fleet.add(1, 0..SITES).await;
    timer.invoke_ok().await;
    let batches = fleet.take().await;
    let batch = batches[0].clone();
    let mark = serde_json::from_str::<Value>(&batch).unwrap()["Credentials"].as_str().unwrap().to_owned();
    world.backend.put("faults", json!({ "rules": [{ "status": 401 }] })).await;
    world.backend.delete("requests").await;
    // Rotated between the list and the batches: each of the instances notices it.
    for batch in &batches {
        futures::future::join(poll(&one, batch), poll(&two, batch)).await;
    }
    let wrong = async || world.backend.get("requests").await.as_array().unwrap().len();
    assert_eq!(wrong().await, 2, "one for each of them");
    for restart in 0..6 {
        for _ in 0..3 {
            timer.invoke_failing().await;
            assert!(fleet.take().await.is_empty(), "no instance tries it");
        }
        assert!(wrong().await <= 5, "restart {restart}: {}", wrong().await);
        timer.kill().await;
        timer = world.handler().await;
    }
    // Corrected at the backend. An instance believes a timer with the same credentials.
    world.backend.heal().await;
    for (seconds, credentials, expected) in [(1, "those of another app", 0..=0), (2, mark.as_str(), 8..=10)] {
        let began = Utc::now() + TimeDelta::seconds(seconds);
        let again = with(&with(&batch, "Began", json!(began)), "Until", json!(began + TimeDelta::seconds(60)));
        poll(&one, &with(&again, "Credentials", json!(credentials))).await;
        let delivered = world.delivered().await;
        let places = sites(&batch).into_iter().map(|site| site["Place"].as_str().unwrap().to_owned());
        let has_all = places.filter(|place| delivered.rows[place].len() == 2).count();
        // A site whose request was refused waits by itself.
        assert!(expected.contains(&has_all), "{credentials}: {has_all}");
    }
}

/// One batch of a large fleet in which all sites with news fail is not a failed fleet.
#[tokio::test]
async fn a_batch_is_judged_as_its_part_of_the_fleet() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let (timer, one) = tokio::join!(world.handler(), world.handler());
    fleet.add(0, 0..SITES).await;
    fleet.tick(&timer, &[&one]).await;
    world.backend.put("faults", json!({ "rules": [{ "site": name(3), "status": 404 }] })).await;
    fleet.add(1, [3]).await;
    fleet.tick(&timer, &[&one]).await;
    world.printed("rapidM2MSites: 1 of 1 sites polled", 1).await;
    let output = world.output();
    let line = output.lines().find(|line| line.contains("rapidM2MSites: 1 of 1 sites polled")).unwrap();
    assert!(line.starts_with("info:") && line.contains("1 failed"), "{line}");
}

#[tokio::test]
async fn twenty_thousand_sites_are_handed_out() {
    let mut fleet = Fleet::of(20_000).await;
    fleet.world.unset("PollBatchSites");
    fleet.world.set("PollTimeoutSeconds", "200");
    let timer = fleet.world.handler().await;
    let began = std::time::Instant::now();
    timer.invoke_ok().await;
    let took = began.elapsed();
    let batches = fleet.take().await;
    assert_eq!(batches.len(), 100);
    let mut places: Vec<_> =
        batches.iter().flat_map(|batch| sites(batch)).map(|site| site["Place"].to_string()).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 20_000);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// `check` and the status page look into the queue.
#[tokio::test]
async fn check_and_the_status_page_count_the_batches() {
    let fleet = Fleet::start().await;
    let world = &fleet.world;
    let timer = world.handler().await;
    fleet.add(0, 0..SITES).await;
    timer.invoke_ok().await;
    let call = json!({ "Data": { "req": { "Url": "http://localhost/api/status?format=json", "Method": "GET", "Query": { "format": "json" }, "Headers": {} } } });
    let answer = timer.post("/status", call.to_string()).await;
    let body = &answer.body["Outputs"]["res"]["body"];
    let status: Value = body.as_str().map_or_else(|| body.clone(), |text| serde_json::from_str(text).unwrap());
    assert_eq!(status["PollQueues"], json!({ "Waiting": SITES / 10, "Rejected": 0, "Poison": 0 }), "{status}");
    let output = super::support::binary().arg("check").arg("--json").envs(&world.settings).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = text.lines().find(|line| line.contains("queue of sites")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("4 messages wait in polls"), "{row}");
}
