//! Tests settings that stop the start, and the answers to invalid calls.

use super::support::{Settings, TIMER, World, start_and_wait_for_exit};

/// The minimum of settings. The handler calls no service with them.
fn enough() -> Settings {
    [
        ("M2MBackendURL", "http://127.0.0.1:9/api/1/"),
        ("Base64encodedUsernamePassword", "ZGVtbzpodW50ZXIy"),
        ("Customer_ID", "Demo Water Utility"),
        ("Site_ID", "Well 7"),
        ("Channelnames", "ch0"),
        ("M2MDocumentsDBUri", "http://127.0.0.1:9/"),
        ("M2MDocumentsDBPrimaryKey", "c2VjcmV0IGtleSBvZiBjb3Ntb3M="),
        ("IoTHubURL", "127.0.0.1:9"),
        ("IoTHubDeviceId", "gateway-1"),
        ("IoTHubDeviceKey", "c2VjcmV0IGRldmljZSBrZXk="),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The message with which the start fails.
async fn refused(settings: &Settings) -> String {
    let (code, text) = start_and_wait_for_exit(settings).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    for secret in ["ZGVtbzpodW50ZXIy", "hunter2", "c2VjcmV0"] {
        assert!(!text.contains(secret), "{text}");
    }
    text
}

#[tokio::test]
async fn without_settings_the_message_says_what_is_needed() {
    let text = refused(&Settings::new()).await;
    for name in ["M2MBackendURL", "Customer_ID", "UplinkQueueName"] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
}

#[tokio::test]
async fn every_absent_setting_is_named_alone_and_together() {
    // Cosmos DB's key is absent if the app uses a managed identity.
    let optional = ["M2MDocumentsDBPrimaryKey"];
    let required: Vec<_> = enough().into_keys().filter(|name| !optional.contains(&name.as_str())).collect();
    for name in &required {
        let mut settings = enough();
        settings.remove(name);
        let text = refused(&settings).await;
        assert!(text.contains(&format!("{name} is not set")), "{name}: {text}");
        for other in &required {
            assert!(other == name || !text.contains(&format!("{other} is")), "{other} is not at fault: {text}");
        }
    }
    let alone = enough().into_iter().filter(|(name, _)| name == "M2MBackendURL").collect();
    let text = refused(&alone).await;
    for name in required.iter().filter(|name| *name != "M2MBackendURL") {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
}

#[tokio::test]
async fn every_malformed_setting_is_named_at_once() {
    let malformed = [
        ("M2MBackendURL", "ftp://me:hunter2@host"),
        ("Base64encodedUsernamePassword", "hunter2"),
        ("Site_ID", "a,,b"),
        ("Histdata", "10"),
        ("StartFrom", "yesterday"),
        ("PollConcurrency", "none"),
        ("PollTimeoutSeconds", "0"),
        ("PollHistoryDays", "-1"),
        ("EmulationMode", "perhaps"),
        ("RecordEmptyPolls", ""),
        ("M2MDocumentsDBUri", "http://a.documents.azure.com/"),
        ("M2MDocumentsDBName", "a/b"),
        ("IoTHubURL", "host:port"),
        ("IoTHubDeviceId", "a+b"),
        ("IoTHubDeviceKey", "hunter2!"),
        ("IoTHubTransport", "pigeon"),
        ("IoTHubTrustedCa", "/nowhere/ca.pem"),
    ];
    for (name, value) in malformed {
        let mut settings = enough();
        settings.insert(name.to_owned(), value.to_owned());
        let text = refused(&settings).await;
        assert!(text.contains(name), "{name} is missing in {text}");
    }
    let mut settings = enough();
    settings.extend(malformed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let text = refused(&settings).await;
    let missing: Vec<_> = malformed.iter().filter(|(name, _)| !text.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {text}");
}

#[tokio::test]
async fn what_is_said_about_logging_is_checked_too() {
    let mut settings = enough();
    settings.insert("RUST_LOG".to_owned(), "not=a=filter".to_owned());
    assert!(refused(&settings).await.contains("RUST_LOG"));
    settings.insert("RUST_LOG".to_owned(), "info".to_owned());
    settings.insert("LOG_FORMAT".to_owned(), "xml".to_owned());
    assert!(refused(&settings).await.contains("LOG_FORMAT"));
}

#[tokio::test]
async fn what_is_no_call_of_a_function_is_refused_in_json() {
    let world = World::with_sites(&["Well 7"]).await;
    let handler = world.handler().await;
    assert_eq!(handler.get("/").await.status, 200);
    for path in ["/rapidM2mForwarding", "/rapidM2MForwarding/", "/api/rapidM2MForwarding", "/x"] {
        let answer = handler.post(path, TIMER).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body["Error"].as_str().unwrap().contains(path), "{}", answer.body);
    }
    for broken in ["{", "[]", "7", "not json"] {
        let answer = handler.post("/rapidM2MForwarding", broken).await;
        assert_eq!(answer.status, 400, "{broken}: {}", answer.body);
        assert!(answer.body["Error"].as_str().unwrap().contains("envelope"), "{}", answer.body);
    }
    assert_eq!(world.backend.get("counts").await["requests"], 0, "none of these polls anything");
    let late = r#"{"Data":{"t":{"Schedule":{},"ScheduleStatus":null,"IsPastDue":true,"New":[1]}},"Metadata":null}"#;
    assert_eq!(handler.post("/rapidM2MForwarding", late).await.status, 200);
    assert_eq!(world.outcomes("Well 7").await, ["empty"]);
}
