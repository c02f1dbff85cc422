//! Tests faults of the backend, its customers, sites and channels, and of the clock.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::case::{Case, Service::Backend, Wrong, answer, failed, run, set, warning};
use crate::check::services::{Report, world};

fn of_me(effect: Value) -> Wrong {
    Wrong::Trouble(Backend, "/me", effect)
}

/// The case with only one of the sites polled.
fn one_site(case: Case) -> Case {
    case.when(set("Site_ID", "Well 7"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_is_refusing_or_away() {
    let (backend, check) = ("backend", "check M2MBackendURL");
    let wrong = set("Base64encodedUsernamePassword", "YTpi");
    run([
        failed(backend).when(wrong).kind("unauthorized").says("(401)", "check Base64encodedUsernamePassword"),
        failed(backend).when(Wrong::Away(Backend)).kind("connect").says("cannot be reached", check),
        failed(backend).when(of_me(answer(404))).kind("not_found").says("(404)", "M2MBackendURL"),
        failed(backend).when(of_me(answer(429))).kind("rate_limited").says("slow down", "lower PollConcurrency"),
        failed(backend).when(of_me(answer(500))).kind("http_status").says("status 500", "try again"),
        failed(backend).when(of_me(json!("echo"))).kind("http_status").says("status 500", "try again"),
        failed(backend).when(of_me(json!("garbage"))).kind("not_json").says("", check),
        warning(backend).when(of_me(answer(403))).kind("forbidden").says("(403)", "has the user access"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_or_its_channels_are_not_there() {
    let (well, none) = ("site Well 7", "no channels for histdata5");
    let sites = Wrong::Trouble(Backend, "/sites$", answer(500));
    let missing = "does not list ch99 for histdata0, but ch0, ch1";
    run([
        failed("site Well 8").when(set("Site_ID", "Well 7,Well 8")).kind("not_found").says("(404)", "Site_ID"),
        failed(well).when(set("Channelnames", "ch0,CH1,ch99")).says(missing, "check Channelnames"),
        failed(well).when(set("Histdata", "5")).kind("no_channels").says(none, "check Histdata"),
        failed(well)
            .when(set("Histdata", "5"))
            .when(set("Channelnames", "*"))
            .kind("no_channels")
            .says("histdata5", "check Histdata"),
        warning("customer").when(sites).kind("http_status").says("cannot be listed", "try again"),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, case)| if index == 0 { case } else { one_site(case) }))
    .await;

    // A customer that does not exist has no sites either.
    let mut world = world().await;
    world.set("Customer_ID", "Nobody");
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.row("customer Nobody", "failed")["kind"], "not_found");
    assert_eq!(report.row("site Well 7", "failed")["kind"], "not_found");
}

#[tokio::test]
async fn channels_that_have_names_may_have_numbers_too() {
    let mut world = world().await;
    world.set("Site_ID", "Well 7");
    let blueprint = json!({"histdata0": {"Level": {}, "Flow": {}}}).to_string();
    let effect = json!({"answer": {"status": 200, "body": blueprint}});
    world.backend.put("trouble", json!([{ "path": "/blueprint", "effect": effect }])).await;
    let report = Report::of(&world, &[]).await;
    assert_eq!(report.ran.code, 0, "{report:#?}");
    let text = "its blueprint does not list ch0, ch1 for histdata0, but Flow, Level";
    assert_eq!(report.row("site Well 7", "warning")["text"], text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_is_wrong() {
    let at = |minutes| {
        let date = (Utc::now() + TimeDelta::minutes(minutes)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let body = json!({"customers": ["Demo Water Utility"]}).to_string();
        of_me(json!({"answer": {"status": 200, "headers": {"date": date}, "body": body}}))
    };
    let clock = "clock of this machine";
    run([
        failed(clock).when(at(-10)).says("s fast, says the backend", "correct it"),
        failed(clock).when(at(10)).says("s slow, says the backend", "correct it"),
        warning(clock).when(at(3)).says("s slow, says the backend", "correct it"),
    ])
    .await;
}
