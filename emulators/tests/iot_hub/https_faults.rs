use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{HUB, Hub, Identity, answer, error_code, now};

/// Sends a message. Returns status, Microsoft's code and `Retry-After` of the answer.
async fn send(hub: &Hub) -> (u16, String, Option<String>) {
    let response = hub.post("d", "x").send().await.unwrap();
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let code = match status {
        204 => String::new(),
        _ => error_code(&serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap()),
    };
    (status, code, retry_after)
}

#[tokio::test]
async fn a_request_is_refused_as_asked_for() {
    let hub = Hub::start().await;
    for (faults, status, code, retry_after) in [
        (r#"{"refuseTimes":1}"#, 401, "401003", None),
        (r#"{"cutAfterConnectTimes":1}"#, 403, "403002", None),
        (r#"{"httpStatusTimes":1}"#, 503, "ServiceUnavailable", None),
        (r#"{"httpStatusTimes":1,"httpStatus":429}"#, 429, "429001", None),
        (r#"{"httpStatusTimes":1,"httpStatus":429,"retryAfterSeconds":7}"#, 429, "429001", Some("7")),
        (r#"{"httpStatusTimes":1,"httpStatus":403}"#, 403, "403002", None),
        (r#"{"httpStatusTimes":1,"httpStatus":404}"#, 404, "404001", None),
        (r#"{"httpStatusTimes":1,"httpStatus":400}"#, 400, "ArgumentInvalid", None),
        (r#"{"httpStatusTimes":1,"httpErrorCode":400001}"#, 400, "400001", None),
        (r#"{"httpStatusTimes":1,"httpErrorCode":413001}"#, 413, "413001", None),
        (r#"{"httpStatusTimes":1,"httpStatus":500,"retryAfterSeconds":0}"#, 500, "ServerError", Some("0")),
    ] {
        hub.faults(faults).await;
        assert_eq!(send(&hub).await, (status, code.into(), retry_after.map(str::to_owned)), "{faults}");
        assert_eq!(send(&hub).await.0, 204, "{faults}: once only");
    }
    hub.faults(r#"{"serverUnavailable":true,"devices":["d"]}"#).await;
    assert_eq!(send(&hub).await.0, 503);
    assert_eq!(answer(hub.https("GET", "d", "/messages/devicebound")).await.0, 503);
    assert_eq!(answer(hub.post("e", "x")).await.0, 204);
    assert_eq!(hub.get("counts").await["httpsFailures"], 13);
}

#[tokio::test]
async fn answers_come_late() {
    let hub = Hub::start().await;
    for faults in [r#"{"httpDelayMs":300}"#, r#"{"pubackDelayMs":300}"#] {
        hub.faults(faults).await;
        let start = Instant::now();
        assert_eq!(send(&hub).await.0, 204);
        assert!(start.elapsed() >= Duration::from_millis(300), "{faults}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn the_connection_ends_instead_of_an_answer() {
    let hub = Hub::start().await;
    for (faults, recorded) in
        [(r#"{"httpDropBeforeAnswerTimes":1,"recordDropped":false}"#, 0), (r#"{"httpDropBeforeAnswerTimes":1}"#, 1)]
    {
        hub.faults(faults).await;
        hub.post("d", "x").send().await.unwrap_err();
        assert_eq!(hub.get("counts").await["messages"], recorded);
    }
    assert_eq!(send(&hub).await.0, 204);
}

#[tokio::test]
async fn a_hub_that_hangs_gives_no_answer() {
    let hub = Hub::start().await;
    hub.faults(r#"{"ignorePublishes":true}"#).await;
    let error = hub.post("d", "x").timeout(Duration::from_millis(300)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(hub.get("received").await, json!([]));
}

#[tokio::test]
async fn throttled_then_cut() {
    let hub = Hub::start().await;
    let mut device = hub.connected("d").await;
    hub.faults(r#"{"pubackDelayMs":200,"cutAfterMs":500}"#).await;
    let start = Instant::now();
    device.send("devices/d/messages/events/", "1").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
    hub.faults(r#"{"pubackDelayMs":60000}"#).await;
    device.publish("devices/d/messages/events/", "2").await;
    device.ended().await;
    assert!(start.elapsed() >= Duration::from_millis(500));
    assert_eq!(hub.bodies(2).await, ["1", "2"]);
}

#[tokio::test]
async fn a_broken_emulator_lets_everybody_in() {
    let hub = Hub::start().await;
    let token = hub.token("somewhere.else", "e", now() - 10);
    let identity = Identity { password: token.clone(), ..hub.identity("d") };
    assert!(hub.connect(&identity).await.is_err());
    assert_eq!(answer(hub.post_with("d", &token, "x")).await.0, 401);
    hub.faults(r#"{"acceptAnyToken":true}"#).await;
    hub.connect(&identity).await.unwrap().0.send("devices/d/messages/events/", "x").await.unwrap();
    let no_token = Identity { password: HUB.into(), ..identity };
    hub.connect(&no_token).await.unwrap();
    assert_eq!(answer(hub.post_with("d", &token, "x")).await.0, 204);
}
