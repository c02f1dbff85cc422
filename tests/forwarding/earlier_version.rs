//! Tests a start on the documents of an earlier version, whose cursors know no `_uid` and no `Histdata`.
//!
//! `tests/fixtures/ledger/without-identity.json` has what that version wrote:
//!
//! | Site | |
//! |---|---|
//! | `Well 7` | all is forwarded; a list of recorded rows, without values, from `OverlapSeconds=3600` |
//! | `Tank` | all is forwarded; no list; a backfill whose one message waits |
//! | `Reservoir Süd` | two messages wait |
//! | two sites called `Pump` | all is forwarded; their documents are at their `_uid` |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::support::{CUSTOMER, Handler, Ledger, World, binary, client, rows};

const DOCUMENTS: &str = include_str!("../fixtures/ledger/without-identity.json");
/// The backend's emulator needs names of its own for sites that its list calls alike.
const SITES: [&str; 5] = ["Well 7", "Tank", "Reservoir Süd", "Pump A", "Pump B"];
const BACKFILL: [&str; 4] = ["backfill", "Tank", "--from=2024-02-29T00:00:00Z", "--until=2024-03-01T00:00:00Z"];

struct Installation {
    world: World,
    handler: Handler,
    uids: BTreeMap<&'static str, String>,
}

impl Installation {
    /// The documents are loaded, and the backend has the rows that they tell of.
    async fn new() -> Self {
        let mut world = World::with_sites(&SITES).await;
        world.set("Site_ID", "*");
        let url = format!("{}customers/{}/sites", world.backend.ready("endpoint"), CUSTOMER.replace(' ', "%20"));
        let request = client().get(url).basic_auth(world.backend.ready("user"), Some(world.backend.ready("password")));
        let listed: Vec<Value> = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        let uid =
            |site: &&str| listed.iter().find(|one| one["name"] == **site).unwrap()["_uid"].as_str().unwrap().to_owned();
        let uids = SITES.iter().map(|site| (*site, uid(site))).collect();

        let (endpoint, key) = (world.cosmos.ready("endpoint"), world.cosmos.ready("key"));
        let paths = ["/Customer_Id", "/Site_Id"];
        let ledger = Ledger::make(endpoint, key, "M2MBackendForwarderData", "pollingAttempts", &paths).await;
        for document in documents() {
            let part = |name: &str| document[name].as_str().unwrap().to_owned();
            ledger.create((part("Customer_Id"), part("Site_Id")), &document).await;
        }
        world.add("Well 7", [0, 1, 2, 4, 5]).await;
        world.add("Tank", [-10, -9, 0, 1, 2, 3]).await;
        world.add("Reservoir Süd", 0..5).await;
        world.add("Pump A", 0..3).await;
        world.add("Pump B", 0..3).await;
        let handler = world.handler().await;
        let installation = Self { world, handler, uids };
        installation.list("Tank").await;
        installation
    }

    /// The backend lists the sites: two with one name, and `Tank` under this name.
    async fn list(&self, tank: &str) {
        let name = |site: &'static str| match site {
            "Tank" => tank.to_owned(),
            site => site.replace(" A", "").replace(" B", ""),
        };
        let listed = SITES.map(|site| json!({ "_uid": self.uids[site], "name": name(site), "device": null }));
        let listed = serde_json::to_string(&listed).unwrap();
        self.world.backend.put("faults", json!({ "rules": [{ "resource": "sites", "rawBody": listed }] })).await;
    }

    /// Each message once, in the order of arrival: its id, its site's `_uid`, and its body.
    async fn received(&self) -> Vec<(String, Option<String>, String)> {
        let received = self.world.hub.get("received").await;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let read = |message: &Value| {
            let [id, body] = ["messageId", "body"].map(|name| text(&message[name]).unwrap());
            (id, text(&message["properties"]["Site_Uid"]), body)
        };
        received.as_array().unwrap().iter().map(read).collect()
    }

    /// The rows that arrived, by the sites' names in the emulator, without those of the messages with these ids.
    async fn rows(&self, without: &BTreeSet<String>) -> BTreeMap<&'static str, Vec<Value>> {
        let mut rows: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for (id, uid, body) in self.received().await {
            if without.contains(&id) {
                continue;
            }
            let (site, _) = self.uids.iter().find(|(_, known)| Some(*known) == uid.as_ref()).unwrap();
            let body: Value = serde_json::from_str(&body).unwrap();
            rows.entry(*site).or_default().extend(body["Timeseries"].as_array().unwrap().iter().cloned());
        }
        rows
    }

    /// Where the documents of a site are.
    fn place(&self, site: &'static str) -> &str {
        if site.starts_with("Pump") { &self.uids[site] } else { site }
    }
}

fn documents() -> Vec<Value> {
    serde_json::from_str(DOCUMENTS).unwrap()
}

/// Id and body of each message that waits, the oldest first.
fn pending(site: &str) -> Vec<(String, String)> {
    let mut polls = documents();
    polls.retain(|document| document["Outcome"] == "pending" && document["Site_Id"] == site);
    polls.sort_by_key(|poll| poll["id"].as_str().unwrap().to_owned());
    let text = |poll: &Value, name: &str| poll[name].as_str().unwrap().to_owned();
    polls.iter().map(|poll| (text(poll, "MessageId"), text(poll, "IoTHubMessage"))).collect()
}

#[tokio::test]
async fn the_documents_of_an_earlier_version_go_on_without_a_gap_or_a_repeat() {
    let installation = Installation::new().await;
    let Installation { world, handler, uids } = &installation;
    // A late row within the list of recorded rows, and new ones.
    world.add("Well 7", [3, 6, 7]).await;
    world.add("Tank", [4]).await;
    world.add("Reservoir Süd", [5]).await;
    world.add("Pump A", [3]).await;
    world.add("Pump B", [3, 4]).await;
    for _ in 0..3 {
        handler.invoke_ok().await;
    }

    let waiting = pending("Reservoir Süd");
    assert_eq!(waiting.len(), 2);
    // The message of a backfill that nobody goes on with is sent, too.
    let of_backfill = pending("Tank");
    let ids: BTreeSet<String> = waiting.iter().chain(&of_backfill).map(|(id, _)| id.clone()).collect();
    let of_site = |messages: Vec<(String, Option<String>, String)>, site: &str| -> Vec<(String, String)> {
        let name = json!(site).to_string();
        let messages = messages.into_iter().filter(|(_, _, body)| body.contains(&name));
        messages.map(|(id, _, body)| (id, body)).collect()
    };
    let messages = of_site(installation.received().await, "Reservoir Süd");
    assert_eq!(messages[..2], waiting, "as they were recorded, and before newer rows");
    let sent = installation.received().await.into_iter().map(|(id, _, body)| (id, body)).collect::<Vec<_>>();
    assert!(of_backfill.iter().all(|message| sent.contains(message)), "as it was recorded");
    let mut expected = BTreeMap::from([
        ("Well 7", rows([3, 6, 7])),
        ("Tank", rows([4])),
        ("Reservoir Süd", rows([5])),
        ("Pump A", rows([3])),
        ("Pump B", rows([3, 4])),
    ]);
    assert_eq!(installation.rows(&ids).await, expected, "each new row once\n{}", world.output());

    for site in SITES {
        let cursor = world.cursor(installation.place(site)).await;
        assert_eq!((&cursor["Site_Uid"], &cursor["Histdata"]), (&json!(uids[site]), &json!(0)), "{site}");
        assert_eq!(cursor["Unforwarded"], json!([]), "{site}");
    }
    world.printed("the cursors of 5 sites have their _uid now: they continue if the site is renamed", 1).await;

    // A rename in the backend.
    installation.list("Basin").await;
    world.add("Tank", [5]).await;
    for _ in 0..2 {
        handler.invoke_ok().await;
    }
    expected.insert("Tank", rows([4, 5]));
    assert_eq!(installation.rows(&ids).await, expected);
    let (cursor, newest) = (world.cursor("Tank").await, installation.received().await.pop().unwrap().2);
    assert_eq!((&cursor["Site_Name"], &cursor["Earlier_Names"]), (&json!("Basin"), &json!(["Tank"])));
    assert!(newest.contains(r#""site_id":"Basin""#), "{newest}");
}

#[tokio::test]
async fn a_backfill_of_an_earlier_version_is_finished() {
    let installation = Installation::new().await;
    let world = &installation.world;
    let mut command = binary();
    let ran = command.args(BACKFILL).envs(&world.settings).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let received: Vec<_> = installation.received().await.into_iter().map(|(id, _, body)| (id, body)).collect();
    assert_eq!(received, pending("Tank"), "as it was recorded, and nothing else");
    let documents = world.documents("Tank").await;
    let backfill = documents.iter().find(|document| document["Kind"] == "backfill").unwrap();
    assert!(backfill["Backfill"]["FinishedAt"].is_string() && backfill["Unforwarded"] == json!([]), "{backfill}");
}
