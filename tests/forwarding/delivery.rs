//! Tests that rows reach the hub once, in order and unchanged, and that every poll leaves its record.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::support::{CUSTOMER, World, row, rows, stamp};

const SITES: [&str; 3] = ["Energy meter 1", "Well 7", "Tank"];

#[tokio::test]
async fn every_row_arrives_once_and_every_poll_has_its_record() {
    let mut options = vec!["--no-generate", "--channels", "4"];
    options.extend(SITES.iter().flat_map(|site| ["--site", site]));
    let mut world = World::start(&options, &SITES).await;
    world.set("Channelnames", "ch0,ch1,ch2,ch3");
    let handler = world.handler().await;

    let values = |poll: i64, minute: i64| {
        let all = [
            (
                json!([minute, 21.37, "Pump \"1\" läuft", "NAN"]),
                json!({ "ch0": minute, "ch1": 21.37, "ch2": "Pump \"1\" läuft" }),
            ),
            (json!([-minute, "NAN", null, 1.5e-3]), json!({ "ch0": -minute, "ch3": 1.5e-3 })),
            (json!(["NAN", null, "NAN", null]), json!({})),
            (
                json!([9_007_199_254_740_993_i64, 0, "", "17"]),
                json!({ "ch0": 9_007_199_254_740_993_i64, "ch1": 0, "ch2": "", "ch3": "17" }),
            ),
        ];
        all[usize::try_from(poll + minute).unwrap() % all.len()].clone()
    };
    let mut expected: Vec<Vec<Value>> = vec![Vec::new(); SITES.len()];
    for poll in 0..5 {
        for (index, site) in SITES.iter().enumerate() {
            // The third poll finds nothing at any site, the second poll nothing at the second site.
            if poll == 2 || (poll == 1 && index == 1) {
                continue;
            }
            let minutes = poll * 100 + 1..poll * 100 + 6;
            let mut raw = Vec::new();
            for minute in minutes {
                let (cells, channels) = values(poll, minute);
                let mut cells = cells.as_array().unwrap().clone();
                cells.insert(0, stamp(minute).into());
                raw.push(Value::from(cells));
                expected[index].push(row(minute, channels));
            }
            world.add_raw(site, raw.into()).await;
        }
        handler.invoke_ok().await;
    }

    for (index, site) in SITES.iter().enumerate() {
        world.assert_rows(site, &expected[index]).await;
        let empty = if index == 1 { vec![1, 2] } else { vec![2] };
        let outcomes: Vec<_> = (0..5).map(|poll| if empty.contains(&poll) { "empty" } else { "forwarded" }).collect();
        assert_eq!(world.outcomes(site).await, outcomes, "{site}");
        let cursor = world.cursor(site).await;
        assert_eq!(cursor["LastValueFrom"], expected[index].last().unwrap()["Timestamp"]);
        assert_eq!((&cursor["ConsecutiveFailures"], &cursor["LastError"]), (&json!(0), &Value::Null));
    }
    assert_eq!(world.delivered().await.repeats, 0);
    world.assert_settled().await;
}

#[tokio::test]
async fn message_and_record_have_the_documented_members() {
    let site = "Energy meter 1";
    let world = World::with_sites(&[site]).await;
    let handler = world.handler().await;
    world.add(site, [1, 2]).await;
    handler.invoke_ok().await;
    world.add(site, [3]).await;
    handler.invoke_ok().await;

    let messages = world.hub.get("received").await;
    let polls = world.polls(site).await;
    let uid = world.cursor(site).await["Site_Uid"].as_str().unwrap().to_owned();
    assert_eq!((messages.as_array().unwrap().len(), polls.len()), (2, 2));
    for (index, (message, poll)) in messages.as_array().unwrap().iter().zip(&polls).enumerate() {
        assert_eq!(message["deviceId"], "gateway-1");
        assert_eq!(message["properties"], json!({ "Customer_Id": CUSTOMER, "Site_Id": site, "Site_Uid": uid }));
        let system = &message["systemProperties"];
        assert_eq!((&system["$.ct"], &system["$.ce"]), (&json!("application/json"), &json!("utf-8")));
        // The record holds exactly what was sent.
        assert_eq!((&poll["IoTHubMessage"], &poll["MessageId"]), (&message["body"], &message["messageId"]));
        assert_eq!((&poll["Kind"], &poll["Outcome"]), (&json!("poll"), &json!("forwarded")));
        assert_eq!((&poll["Customer_Id"], &poll["Site_Id"]), (&json!(CUSTOMER), &json!(site)));
        assert_eq!((&poll["Site_Uid"], poll.get("Site_Name")), (&json!(uid), None));
        assert_eq!(poll["Result"]["Rows"], [2, 1][index]);
        assert_eq!(poll["Result"]["HttpStatus"], 200);
        assert_eq!(poll["Request"]["Path"], format!("customers/Demo%20Water%20Utility/sites/{uid}/histdata0"));
        assert_eq!(poll["Request"]["Select"], json!(["ch0", "ch1"]));
        assert_eq!(poll["ttl"], 30 * 24 * 60 * 60);
        // Compares times, not texts: a whole second is written without a fraction.
        let [polled, forwarded] = ["PollingTimestamp", "ForwardedAt"]
            .map(|field| poll[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap());
        assert!(forwarded >= polled, "{poll}");
        let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
        let begin = ["0001-01-01T00:00:00Z".into(), rows([2])[0]["Timestamp"].clone()];
        assert_eq!(body["Timerange"]["begin"], begin[index], "the cursor before the poll");
        // The same point in time, to the millisecond that a message has.
        let millis =
            |time: &Value| chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).unwrap().timestamp_millis();
        assert_eq!(millis(&body["Timerange"]["end"]), millis(&poll["PollingTimestamp"]));
        assert_eq!(millis(&system["$.ctime"]), millis(&poll["PollingTimestamp"]));
    }
    assert_eq!(polls[1]["LastValueFrom"], rows([3])[0]["Timestamp"]);
    let cursor = world.cursor(site).await;
    for (member, value) in [("Kind", "cursor"), ("Customer_Id", CUSTOMER), ("Site_Id", site)] {
        assert_eq!(cursor[member], value);
    }
}

#[tokio::test]
async fn sites_may_have_any_name() {
    let sites = ["Well 7 / Level", "th@x.com", "Reservoir Süd", "\"quoted\" & 50% + #1?", "a\\b", "ä=ö;ü"];
    let world = World::with_sites(&sites).await;
    let handler = world.handler().await;
    for round in 0..2 {
        for site in sites {
            world.add(site, round * 10..round * 10 + 3).await;
        }
        handler.invoke_ok().await;
    }
    for site in sites {
        world.assert_rows(site, &rows((0..3).chain(10..13))).await;
    }
    world.assert_settled().await;
}

/// A poll with so many messages that they take more than one transaction. The messages behind the refused one must be
/// sent before those that are recorded next.
#[tokio::test]
async fn a_message_that_is_refused_does_not_let_newer_ones_overtake() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("IoTHubTransport", "https");
    world.set(
        "IoTHubURL",
        world.hub.ready("https").trim_start_matches("https://").trim_end_matches('/').to_owned().as_str(),
    );
    world.set("PollTimeoutSeconds", "60");
    let text = "x".repeat(60_000);
    let wide: Vec<_> = (0..40).map(|minute| json!([stamp(minute), minute, text])).collect();
    world.add_raw("Well 7", wide.into()).await;
    let refusal = json!({ "method": "POST", "path": "/messages/events", "skip": 1, "times": 1,
        "effect": { "answer": { "status": 400, "body": r#"{"Message":"ErrorCode:ArgumentInvalid;no"}"# } } });
    world.hub.put("trouble", json!([refusal])).await;
    let failed = world.handler().await.invoke_failing().await;
    assert_eq!(failed, [("Well 7".to_owned(), "hub_message_rejected".to_owned())]);
    let polls = world.polls("Well 7").await;
    let rejected: Vec<_> = polls.iter().filter(|poll| poll["Outcome"] == "rejected").collect();
    assert_eq!(rejected.len(), 1, "{}", world.output());
    let left_out = usize::try_from(rejected[0]["Result"]["Rows"].as_u64().unwrap()).unwrap();
    let delivered = world.delivered().await;
    let minutes: Vec<_> = delivered.rows["Well 7"].iter().map(|row| row["Channels"]["ch0"].as_i64().unwrap()).collect();
    assert!(minutes.is_sorted(), "{minutes:?}");
    assert_eq!(minutes.len(), 40 - left_out);
    assert_eq!(world.cursor("Well 7").await["Unforwarded"], json!([]));
}

#[tokio::test]
async fn a_hub_that_rejects_a_message_is_not_away_any_more() {
    let mut world = World::with_sites(&["Well 7"]).await;
    world.set("IoTHubTransport", "https");
    let https = world.hub.ready("https").trim_start_matches("https://").trim_end_matches('/').to_owned();
    world.set("IoTHubURL", &https);
    world.add("Well 7", 0..3).await;
    world.hub.away(true).await;
    let handler = world.handler().await;
    // The first run finds out, the second one writes it down.
    for _ in 0..2 {
        handler.invoke_failing().await;
    }
    let error = &world.cursor("Well 7").await["Activity"]["HubError"];
    assert_eq!(error["Kind"], "hub_unreachable", "{}", world.output());

    world.hub.away(false).await;
    let refusal = json!({ "method": "POST", "path": "/messages/events",
        "effect": { "answer": { "status": 400, "body": r#"{"Message":"ErrorCode:ArgumentInvalid;no"}"# } } });
    world.hub.put("trouble", json!([refusal])).await;
    while !world.cursor("Well 7").await["Unforwarded"].as_array().unwrap().is_empty() {
        handler.invoke().await;
    }
    assert_eq!(world.outcomes("Well 7").await[0], "rejected", "{}", world.output());
    assert_eq!(world.cursor("Well 7").await["Activity"]["HubError"], Value::Null);
}
