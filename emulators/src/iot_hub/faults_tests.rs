use super::*;

const ACCEPT: OnPublish = OnPublish::Accept { delay: Duration::ZERO, cut: false, cut_after: None };

fn faults(json: &str) -> Faults {
    serde_json::from_str(json).unwrap()
}

#[test]
fn without_faults_everything_passes() {
    let mut none = faults("{}");
    assert_eq!(none, Faults::default());
    assert_eq!(none.on_connect("d"), None);
    assert!(!none.cuts_after_connect("d") && !none.loses_session("d"));
    assert_eq!(none.on_publish("d", true, 99), ACCEPT);
}

#[test]
fn counted_faults_run_out() {
    let mut counted =
        faults(r#"{"refuseTimes":2,"cutAfterConnectTimes":1,"dropBeforePubackTimes":1,"recordDropped":false}"#);
    assert_eq!(counted.on_connect("d"), Some(Refusal::NotAuthorized));
    assert_eq!(counted.on_connect("d"), Some(Refusal::NotAuthorized));
    assert_eq!(counted.on_connect("d"), None);
    assert!(counted.cuts_after_connect("d") && !counted.cuts_after_connect("d"));
    assert_eq!(counted.on_publish("d", false, 0), ACCEPT, "a message at QoS 0 has no PUBACK to drop");
    assert_eq!(counted.on_publish("d", true, 0), OnPublish::Cut { record: false });
    assert_eq!(counted.on_publish("d", true, 1), ACCEPT);
}

#[test]
fn faults_concern_only_the_devices_named() {
    let mut some = faults(r#"{"refuse":true,"ignorePublishes":true,"noSessionPresent":true,"devices":["a"]}"#);
    assert_eq!(some.on_connect("b"), None);
    assert_eq!(some.on_publish("b", true, 0), ACCEPT);
    assert!(!some.loses_session("b") && some.loses_session("a"));
    assert_eq!(some.on_connect("a"), Some(Refusal::NotAuthorized));
    assert_eq!(some.on_publish("a", true, 0), OnPublish::Ignore);
    assert_eq!(faults(r#"{"refuse":true,"devices":[]}"#).on_connect("a"), None);
}

#[test]
fn a_connection_is_cut_with_its_last_message() {
    let mut cutting = faults(r#"{"cutAfterMessages":2,"pubackDelayMs":5,"cutAfterMs":9}"#);
    let (delay, cut_after) = (Duration::from_millis(5), Some(Duration::from_millis(9)));
    assert_eq!(cutting.on_publish("d", true, 0), OnPublish::Accept { delay, cut: false, cut_after });
    assert_eq!(cutting.on_publish("d", true, 1), OnPublish::Accept { delay, cut: true, cut_after });
}

#[test]
fn a_misspelt_fault_is_refused() {
    for json in
        [r#"{"refused":true}"#, r#"{"cutAfterMessages":0}"#, r#"{"refuseTimes":-1}"#, r#"{"httpStatus":200}"#, "true"]
    {
        assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
    }
}

#[test]
fn requests_are_refused_in_the_terms_of_https() {
    let mut some = faults(
        r#"{"refuseTimes":1,"cutAfterConnectTimes":1,"httpStatus":429,"httpStatusTimes":1,"retryAfterSeconds":7,
            "httpDelayMs":5,"devices":["a"]}"#,
    );
    assert_eq!((some.on_request("b"), some.request_delay("b")), (None, Duration::ZERO));
    assert_eq!(some.request_delay("a"), Duration::from_millis(5));
    assert_eq!(some.on_request("a"), Some(OnRequest::Unauthorized));
    assert_eq!(some.on_request("a"), Some(OnRequest::QuotaExceeded));
    assert_eq!(some.on_request("a"), Some(OnRequest::Status { status: 429, code: None, retry_after: Some(7) }));
    assert_eq!(some.on_request("a"), None);
    assert_eq!(faults(r#"{"serverUnavailable":true}"#).on_request("a"), Some(OnRequest::Unavailable));
}

#[test]
fn messages_over_https_meet_the_same_trouble() {
    let mut dropping = faults(r#"{"httpDropBeforeAnswerTimes":1,"recordDropped":false,"pubackDelayMs":5}"#);
    assert_eq!(dropping.on_send("d"), OnSend::Cut { record: false });
    assert_eq!(dropping.on_send("d"), OnSend::Accept { delay: Duration::from_millis(5) });
    let mut silent = faults(r#"{"ignorePublishes":true,"devices":["a"]}"#);
    assert_eq!(silent.on_send("a"), OnSend::Ignore);
    assert_eq!(silent.on_send("b"), OnSend::Accept { delay: Duration::ZERO });
    assert!(silent.ignores("a") && !silent.ignores("b"));
}
