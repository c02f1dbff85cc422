//! Tests faults of Cosmos DB.

use azure_data_cosmos::models::TimeToLive;
use serde_json::json;

use super::case::{Service::Cosmos, Wrong, container, failed, run, set, warning};

const POLLS: &str = "container pollingAttempts";
const DEVICES: &str = "container devices";

fn polls(ttl: TimeToLive) -> Wrong {
    container("pollingAttempts", &["/Customer_Id", "/Site_Id"], ttl)
}

fn devices(ttl: TimeToLive) -> Wrong {
    container("devices", &["/id"], ttl)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_account_is_refusing_or_away() {
    let (account, key) = ("Cosmos DB", "M2MDocumentsDBPrimaryKey");
    let identity = || set("IDENTITY_HEADER", "secret-of-the-app");
    let nobody = || failed(account).when(Wrong::Unset(key)).kind("ledger_unauthorized");
    run([
        failed(account).when(set(key, "d3Jvbmc=")).kind("ledger_unauthorized").says("(401)", key),
        failed(account).when(Wrong::Away(Cosmos)).kind("ledger_unreachable").says("reached", "check M2MDocumentsDBUri"),
        nobody().says("cannot sign in", "run `az login`"),
        nobody()
            .when(set("IDENTITY_ENDPOINT", "http://127.0.0.1:9/msi/token"))
            .when(identity())
            .says("cannot sign in", "switch on the app's system-assigned managed identity"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_not_as_it_must_be() {
    let other = container("pollingAttempts", &["/id"], TimeToLive::NoDefault);
    run([
        failed(POLLS).when(other).says("/id, not /Customer_Id, /Site_Id", "name another container"),
        failed(POLLS).when(polls(TimeToLive::Seconds(60))).says("60 s: records that wait for the hub", "to -1"),
        warning(POLLS).when(polls(TimeToLive::Forever)).says("never removed", "PollHistoryDays=0"),
        warning(POLLS).when(polls(TimeToLive::NoDefault)).says("indexes /IoTHubMessage", "exclude the path"),
        failed(DEVICES)
            .when(container("devices", &["/deviceId"], TimeToLive::Forever))
            .says("/deviceId, not /id", "name another"),
        failed(DEVICES).when(devices(TimeToLive::Seconds(60))).says("registered again", "switch its time to live off"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_can_not_be_read_or_written() {
    let good = || polls(TimeToLive::NoDefault);
    let refused = |faults| Wrong::Faults(Cosmos, faults);
    let key = "check M2MDocumentsDBPrimaryKey, or the managed identity's role";
    let cannot = |what| failed(what).kind("ledger_unauthorized").says("(403)", key);
    run([
        cannot(POLLS).when(good()).when(refused(json!({"status": 403}))),
        cannot(POLLS).when(good()).when(refused(json!({"status": 403, "writesOnly": true}))),
        cannot(DEVICES).when(devices(TimeToLive::Forever)).when(refused(json!({"status": 403, "writesOnly": true}))),
    ])
    .await;
}
