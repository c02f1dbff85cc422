//! Tests commands that do not wait for an uplink: the hub pushes them over the device's MQTT connection.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::things_network::support::{Host, World};

const LONG: &str = "timeout_ms=50000";
/// What a siren's user takes for "at once".
const AT_ONCE: Duration = Duration::from_secs(10);

/// A siren (class C) that has sent one uplink and sends no other.
async fn siren() -> (World, Host) {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "mqtt");
    let host = Host::start(&world.settings).await;
    let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": 1});
    world.stack.post("uplink", body).await;
    host.drained().await;
    (world, host)
}

async fn command(world: &World, id: &str, body: &str, properties: Value) {
    let message = json!({"messageId": id, "bodyBase64": body, "properties": properties});
    world.hub.post("c2d?device=siren-1", message).await;
}

async fn states(world: &World, wait: &str) -> Vec<String> {
    let all = world.hub.get(&format!("c2d?device=siren-1&wait={wait}&{LONG}")).await;
    all.as_array().unwrap().iter().map(|message| message["state"].as_str().unwrap().to_owned()).collect()
}

async fn requests(world: &World, count: usize) -> Vec<Value> {
    let all = world.stack.get(&format!("downlinks?wait={count}&{LONG}")).await;
    all.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_command_goes_out_at_once_and_is_completed() {
    let (world, host) = siren().await;
    let began = Instant::now();
    for (id, body) in [("on", "AQ=="), ("tone", "Ag=="), ("off", "AA==")] {
        command(&world, id, body, json!({"Port": "3", "Note": "ü &="})).await;
    }
    let sent = requests(&world, 3).await;
    assert_eq!(states(&world, "completed:3").await, ["completed"; 3], "{}", host.log());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let downlinks: Vec<_> = sent.iter().map(|request| request["downlinks"][0].clone()).collect();
    let expected = [("on", "AQ=="), ("tone", "Ag=="), ("off", "AA==")].map(|(id, body)| {
        json!({"f_port": 3, "frm_payload": body, "confirmed": false, "priority": "NORMAL",
               "correlation_ids": [format!("iothub:{id}")]})
    });
    assert_eq!(downlinks, expected, "in their order");
}

/// The connection is cut while The Things Stack takes its time: the hub pushes the command again, and it is completed, but
/// not scheduled again.
#[tokio::test]
async fn a_command_that_is_pushed_again_is_not_scheduled_twice() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"delayMs": 2000})).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    world.hub.post("cut", Value::Null).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
    // The connection is open again without any uplink, and it listens.
    command(&world, "off", "AA==", json!({"Port": "3"})).await;
    let sent = requests(&world, 2).await;
    let ids: Vec<_> = sent.iter().map(|request| &request["downlinks"][0]["correlation_ids"][0]).collect();
    assert_eq!(ids, ["iothub:on", "iothub:off"]);
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2]);
}

/// MQTT cannot reject. The hub takes everything back after a minute, and gives it out over HTTPS, in its order.
#[tokio::test]
async fn what_can_be_no_downlink_is_rejected_after_a_minute_and_nothing_overtakes() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"times": 3, "status": 503})).await;
    command(&world, "first", "AQ==", json!({"Port": "3"})).await;
    command(&world, "bad", "AQ==", json!({"Port": "300"})).await;
    command(&world, "last", "AA==", json!({"Port": "3"})).await;
    host.logged("a downlink waits, and is tried again").await;
    // Longer than the hub's lock and one wait of the test.
    states(&world, "completed:2").await;
    assert_eq!(states(&world, "completed:2").await, ["completed", "rejected", "completed"], "{}", host.log());
    let sent = requests(&world, 5).await;
    let ids = sent.iter().filter(|request| request["status"] == 200);
    let ids: Vec<_> = ids.map(|request| &request["downlinks"][0]["correlation_ids"][0]).collect();
    assert_eq!(ids, ["iothub:first", "iothub:last"]);
    // It listens again.
    let began = Instant::now();
    command(&world, "again", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 6).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

/// A switch is pressed twice, with one message id, and The Things Stack does not take the second press at once. When the hub
/// delivers that one again, it is no repeat of the first.
#[tokio::test]
async fn an_equal_command_is_sent_even_if_it_came_twice() {
    let (world, host) = siren().await;
    let press = async || command(&world, "press", "AQ==", json!({"Port": "3"})).await;
    press().await;
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
    world.stack.post("faults", json!({"times": 3, "status": 503})).await;
    press().await;
    host.logged("a downlink waits, and is tried again").await;
    // Longer than the hub's lock and one wait of the test.
    states(&world, "completed:2").await;
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2], "{}", host.log());
    let accepted = requests(&world, 5).await.into_iter().filter(|request| request["status"] == 200).count();
    assert_eq!(accepted, 2, "{}", host.log());
}

/// A switch is pressed twice, and what is between cannot be sent. The hub takes the second press back before anybody has looked at
/// it; when it comes again, it is no repeat of the first.
#[tokio::test]
async fn an_equal_command_behind_a_bad_one_is_sent() {
    let (world, host) = siren().await;
    // The bad one and the second press come while the first one is on its way.
    world.stack.post("faults", json!({"delayMs": 500})).await;
    for (id, port) in [("press", "3"), ("bad", "300"), ("press", "3")] {
        command(&world, id, "AQ==", json!({"Port": port})).await;
    }
    // Longer than the hub's lock and one wait of the test.
    states(&world, "completed:2").await;
    assert_eq!(states(&world, "completed:2").await, ["completed", "rejected", "completed"], "{}", host.log());
    assert_eq!(requests(&world, 2).await.len(), 2, "{}", host.log());
}

/// Commands that wait behind one that takes its time cost nothing meanwhile.
#[tokio::test]
async fn commands_that_wait_need_no_cpu() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"delayMs": 4000})).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    let before = cpu(host.handler());
    for id in ["tone", "off"] {
        command(&world, id, "AQ==", json!({"Port": "3"})).await;
    }
    assert_eq!(states(&world, "completed:3").await, ["completed"; 3], "{}", host.log());
    let used = cpu(host.handler()) - before;
    assert!(used < Duration::from_millis(500), "{used:?}");
}

/// CPU time of a process, all threads together.
fn cpu(pid: u32) -> Duration {
    const TICKS_A_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name of the program may have blanks in it.
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// Commands to more devices than may be on their way to The Things Stack at once wait for their turn, as long as their locks let
/// them.
#[tokio::test]
async fn commands_to_many_devices_wait_for_each_other() {
    const DEVICES: usize = 50;
    let (world, host) = siren().await;
    let name = |number: usize| format!("siren-{number}");
    for number in 2..=DEVICES {
        let body = json!({"target": host.target(), "application": "city", "device": name(number), "fCnt": 1});
        world.stack.post("uplink", body).await;
    }
    host.drained().await;
    world.stack.post("faults", json!({"times": DEVICES, "delayMs": 1500})).await;
    for number in 1..=DEVICES {
        let message = json!({"bodyBase64": "AQ==", "properties": {"Port": "3"}});
        world.hub.post(&format!("c2d?device={}", name(number)), message).await;
    }
    requests(&world, DEVICES).await;
    for number in 1..=DEVICES {
        world.hub.get(&format!("c2d?device={}&wait=completed:1&{LONG}", name(number))).await;
    }
    let log = host.log();
    assert!(!log.contains("a downlink waits"), "{log}");
}

/// The process is told to end while The Things Stack takes its time with a command: the command is completed first, so that the
/// next process does not send it again.
#[tokio::test]
async fn a_command_that_is_on_its_way_at_the_end_is_completed() {
    let (world, host) = siren().await;
    world.stack.post("faults", json!({"delayMs": 1500})).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    let handler = host.handler();
    assert!(Command::new("kill").args(["-TERM", &handler.to_string()]).status().unwrap().success());
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
    // The host starts the handler again.
    host.until(async || host.handler() != handler).await;
    let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": 2});
    world.stack.post("uplink", body).await;
    world.received(2).await;
    host.drained().await;
    assert_eq!(requests(&world, 1).await.len(), 1, "{}", host.log());
}

/// A hub that ends each connection which subscribes to commands, as those without commands may do, gets the telemetry
/// all the same.
#[tokio::test]
async fn a_hub_without_commands_gets_telemetry() {
    let mut world = World::start().await;
    world.set("IoTHubTransport", "mqtt");
    world.hub.put("faults", json!({"cutOnSubscribe": true})).await;
    let host = Host::start(&world.settings).await;
    let uplink = async |device: &str, counter: u32| {
        let body = json!({"target": host.target(), "application": "city", "device": device, "fCnt": counter});
        world.stack.post("uplink", body).await;
        host.drained().await;
    };
    for (device, counter) in [("siren-1", 1), ("siren-2", 1), ("siren-1", 2), ("siren-2", 2)] {
        uplink(device, counter).await;
    }
    world.received(4).await;
    let log = host.log();
    assert_eq!(log.matches("does not let devices subscribe to commands").count(), 1, "{log}");
    // What nobody pushes is fetched.
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    uplink("siren-1", 3).await;
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
}

/// A world in which a timer fetches commands over HTTPS, and a siren in it that has sent one uplink.
async fn polled(settings: &[(&str, &str)]) -> (World, Host) {
    let mut world = World::start_fetching().await;
    for (name, value) in [("DownlinkPollSeconds", "5"), ("DownlinkPollDevices", "city/siren-1")].iter().chain(settings)
    {
        world.set(name, value);
    }
    let host = Host::start(&world.settings).await;
    for device in ["siren-1", "sensor-1"] {
        let body = json!({"target": host.target(), "application": "city", "device": device, "fCnt": 1});
        world.stack.post("uplink", body).await;
    }
    host.drained().await;
    (world, host)
}

#[tokio::test]
async fn a_timer_fetches_the_commands_of_the_devices_that_want_it() {
    let (world, host) = polled(&[]).await;
    world.hub.post("c2d?device=sensor-1", json!({"body": "x", "properties": {"Port": "3"}})).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    // The list of devices may be older than the siren, by half a minute.
    let sent = requests(&world, 1).await;
    assert_eq!(sent[0]["downlinks"][0]["correlation_ids"], json!(["iothub:on"]), "{}", host.log());
    let began = Instant::now();
    command(&world, "off", "AA==", json!({"Port": "3"})).await;
    requests(&world, 2).await;
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2], "{}", host.log());
    // The timer's interval, and a busy machine.
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(host.invoke("thingsNetworkDownlinks").await["status"], 200);
    let waiting = world.hub.get("c2d?device=sensor-1").await;
    assert_eq!((&waiting[0]["state"], &waiting[0]["deliveryCount"]), (&json!("enqueued"), &json!(0)));
}

/// The process has seen no webhook, as the timer's own process on plans that scale.
#[tokio::test]
async fn a_process_without_webhooks_sends_commands_to_the_address_of_the_settings() {
    let mut world = World::start_fetching().await;
    let host = Host::start(&world.settings).await;
    let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": 1});
    world.stack.post("uplink", body).await;
    host.drained().await;
    host.stop().await;
    for (name, value) in [
        ("DownlinkPollSeconds", "5"),
        ("ThingsStackUrl", &*world.stack.ready("endpoint").to_owned()),
        ("ThingsStackDownlinkApiKey", &*world.stack.ready("apikey").to_owned()),
    ] {
        world.set(name, value);
    }
    let host = Host::start(&world.settings).await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    let sent = requests(&world, 1).await;
    assert_eq!(sent[0]["downlinks"][0]["correlation_ids"], json!(["iothub:on"]));
    assert_eq!(states(&world, "completed:1").await, ["completed"], "{}", host.log());
}

/// The hub has kept the session of an earlier process, with its subscription. The first uplink of the next process opens a
/// connection that listens at once: what the hub pushes is not left to it for a minute.
#[tokio::test]
async fn a_command_that_waited_for_the_next_process_goes_out_with_its_first_connection() {
    let (world, host) = siren().await;
    command(&world, "on", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    states(&world, "completed:1").await;
    host.stop().await;
    command(&world, "off", "AA==", json!({"Port": "3"})).await;
    let host = Host::start(&world.settings).await;
    let began = Instant::now();
    let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": 2});
    world.stack.post("uplink", body).await;
    assert_eq!(states(&world, "completed:2").await, ["completed"; 2], "{}", host.log());
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
}

/// Prints how long it takes from a service's call at the hub to the arrival at The Things Stack:
/// `cargo test --test e2e -- --ignored --nocapture latency_of_commands`, about four minutes.
#[tokio::test]
#[ignore = "it measures; nothing can be expected of a shared machine"]
async fn latency_of_commands() {
    const QUICK: usize = 100;
    const SLOW: usize = 15;
    let (world, _host) = siren().await;
    report("class C over MQTT, pushed", measured(&world, QUICK, async |_| {}).await);
    let (world, _host) = polled(&[]).await;
    // From here on the timer knows the siren.
    command(&world, "first", "AQ==", json!({"Port": "3"})).await;
    requests(&world, 1).await;
    world.stack.delete("downlinks").await;
    // Commands come at any time between two ticks of 10 s.
    let at_any_time = async |_| tokio::time::sleep(Duration::from_millis(fastrand::u64(..10_000))).await;
    report("class C over HTTPS, timer of 10 s", measured(&world, SLOW, at_any_time).await);
    let mut world = World::start_fetching().await;
    world.unset("RUST_LOG");
    let host = Host::start(&world.settings).await;
    // The uplink follows at once: this is what the connector adds to the device's own interval.
    let uplink = async |counter| {
        let body = json!({"target": host.target(), "application": "city", "device": "siren-1", "fCnt": counter});
        world.stack.post("uplink", body).await;
    };
    uplink(0).await;
    host.drained().await;
    let mut times = Vec::new();
    for counter in 1..=QUICK {
        command(&world, &counter.to_string(), "AQ==", json!({"Port": "3"})).await;
        let began = Instant::now();
        uplink(counter).await;
        requests(&world, counter).await;
        times.push(began.elapsed());
        host.drained().await;
    }
    report("class A over HTTPS, from its next uplink", times);
}

async fn measured(world: &World, count: usize, before: impl AsyncFn(usize)) -> Vec<Duration> {
    let mut times = Vec::new();
    for counter in 1..=count {
        before(counter).await;
        let began = Instant::now();
        command(world, &counter.to_string(), "AQ==", json!({"Port": "3"})).await;
        requests(world, counter).await;
        times.push(began.elapsed());
    }
    times
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("{what}: {} commands, p50 {:?}, p99 {:?}, max {:?}", times.len(), at(50), at(99), at(100));
}
