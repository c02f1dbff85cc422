use std::time::Duration;

use super::*;
use crate::{
    iot_hub::devices::{Owner, activity},
    rapidm2m::{
        Selection, Site,
        ledger::{Cursor, Fault, LedgerError, Request, SiteKey},
        polling::record::{PollContext, failed_poll},
    },
    status::{Scope, detail::Readings},
    support::kind::Kind,
};

const LARGEST: usize = 100 * 1024;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

fn scope() -> Scope {
    Scope { rapidm2m: Some(("c".into(), Selection::All)), has_things_network: true, records_empty_polls: true }
}

fn cursor(name: &str, text: &str) -> Cursor {
    let mut cursor = Cursor::new(&SiteKey { customer: "c".into(), site: name.into() });
    cursor.consecutive_failures = 2;
    cursor.last_error = Some(Fault { kind: Kind::Timeout, text: text.into() });
    let activity = cursor.activity.get_or_insert_default();
    activity.polls = "rfe".repeat(8);
    activity.polled_at = now();
    (0..24).for_each(|hour| activity.rows.add(now() - TimeDelta::hours(23 - hour), 10_000));
    cursor
}

/// Returns the sites shown, from page to page.
fn walk(all: &Overview) -> Vec<String> {
    let (mut seen, mut query) = (Vec::new(), Query { limit: 50, ..Query::default() });
    loop {
        let page = overview(all, &query, None, now());
        assert!(page.html.len() <= LARGEST, "{} bytes from {}", page.html.len(), query.from);
        seen.extend(page.html.split("?site=").skip(1).map(|link| link.split('&').next().unwrap().to_owned()));
        let Some(next) = page.html.split("rel=\"next\" href=\"").nth(1) else { return seen };
        let from = next.split("from=").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        assert!(from > query.from, "the way leads on");
        query.from = from;
    }
}

#[test]
fn every_site_is_on_one_page_and_no_page_is_large() {
    let short = (0..1_234).map(|number| cursor(&format!("site-{number:04}"), "no answer"));
    let mut seen = walk(&Overview::new(short.collect(), Vec::new(), &scope(), now()));
    assert_eq!(seen.len(), 1_234);
    assert_eq!(refresh(&Overview::new(Vec::new(), Vec::new(), &scope(), now())), 30);
    let many = (0..10_000).map(|number| cursor(&number.to_string(), "t")).collect();
    assert_eq!(refresh(&Overview::new(many, Vec::new(), &scope(), now())), 200);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1_234);

    let [name, text] = ["\"ü".repeat(120), "<&".repeat(5_000)];
    let long = (0..60).map(|number| cursor(&format!("{number:02}{name}"), &text));
    assert_eq!(walk(&Overview::new(long.collect(), Vec::new(), &scope(), now())).len(), 60);
}

#[test]
fn a_common_cause_is_told_once_at_the_top() {
    let mut cursors =
        vec![cursor("a", "no answer from a"), cursor("b", "no answer from b"), cursor("c", "none from c")];
    let at = |minute| now() - TimeDelta::minutes(minute);
    for (cursor, since) in cursors.iter_mut().zip([at(27), at(7), at(17)]) {
        cursor.activity.as_mut().unwrap().failing_since = Some(since);
    }
    cursors[2].last_error = Some(Fault { kind: Kind::NotFound, text: "none from c".into() });
    let scope = Scope { has_things_network: false, ..scope() };
    let all = Overview::new(cursors, Vec::new(), &scope, now() + TimeDelta::hours(1));
    let html = overview(&all, &Query { limit: 50, ..Query::default() }, None, now() + TimeDelta::hours(1)).html;
    assert!(html.contains("<title>3 failing · IoT Hub Connector</title>"), "{html}");
    let (head, rows) = html.split_once("<ul").unwrap();
    assert!(head.contains("The backend cannot be reached since ") && head.contains("2025-12-31 23:53"), "{html}");
    assert!(head.contains("2 of 3 sites affected"), "{html}");
    assert!(!rows.contains("no answer from"), "{rows}");
    assert!(rows.contains("none from c") && rows.contains("23:43"), "{rows}");
}

#[test]
fn what_is_old_says_so() {
    let all = Overview::new(vec![cursor("a", "t")], Vec::new(), &scope(), now());
    let away = Away { since: now() + TimeDelta::minutes(2), text: "connection refused".into() };
    let later = now() + TimeDelta::minutes(9);
    let query = Query { limit: 50, ..Query::default() };
    let detail_of =
        Detail { item: all.select(&query).items[0], polls: PollList::default(), readings: Readings::default() };
    for page in [overview(&all, &query, Some(&away), later), detail(&detail_of, &all, Some(&away), later)] {
        for part in ["As of ", ">00:00<", "Cosmos DB cannot be read since ", ">00:02<", "connection refused"] {
            assert!(page.html.contains(part), "{part} is missing in {}", page.html);
        }
    }
}

#[test]
fn what_was_rejected_comes_with_the_command_that_sends_it_again() {
    let mut all = Overview::new(Vec::new(), Vec::new(), &scope(), now());
    let query = Query { limit: 50, ..Query::default() };
    all.queues = Some(Lengths { waiting: 5, rejected: 2, poison: 0 });
    let html = overview(&all, &query, None, now()).html;
    assert!(html.contains("iothub-connector replay --queue rejected"), "{html}");
    assert!(!html.contains("--queue poison") && !html.contains("--local"), "{html}");
    all.is_local_session = true;
    let html = overview(&all, &query, None, now()).html;
    assert!(html.contains("iothub-connector replay --queue rejected --local<"), "{html}");
}

#[test]
fn rejected_messages_of_sites_come_with_the_command_too() {
    let mut all = Overview::new(vec![cursor("Well 7", "t"), cursor("b", "t")], Vec::new(), &scope(), now());
    let query = Query { limit: 50, ..Query::default() };
    assert!(!overview(&all, &query, None, now()).html.contains("rejected"));
    all.rejected.sites = [("Well 7".to_owned(), 2), ("$(rm)".to_owned(), 1)].into();
    let html = overview(&all, &query, None, now()).html;
    assert!(html.contains("3 messages of 2 sites were rejected"), "{html}");
    assert!(
        html.contains("iothub-connector replay &quot;Well 7&quot; --all<"),
        "a shell takes no name for code: {html}"
    );
    let item = all.find(&Wanted { system: Owner::RAPIDM2M, group: None, name: "Well 7".into() }).unwrap();
    let detail_of = Detail { item, polls: PollList::default(), readings: Readings::default() };
    let html = detail(&detail_of, &all, None, now()).html;
    assert!(html.contains("2 messages. To send them again") && html.contains("&quot;Well 7&quot; --all<"), "{html}");

    all.rejected.sites = (0..9).map(|number| (format!("{number}{}", "x".repeat(100)), 200)).collect();
    (all.rejected.is_more, all.is_local_session) = (true, true);
    let html = overview(&all, &query, None, now()).html;
    assert!(html.contains("More than 1800 messages of 9 sites were rejected"), "{html}");
    assert!(html.contains("--all --local<") && html.contains("(these are 5 of the sites)"), "{html}");
}

#[test]
fn the_footer_says_what_runs() {
    let mut all = Overview::new(vec![cursor("a", "t")], Vec::new(), &scope(), now());
    (all.sends_to, all.schedule) = ("hub.net over MQTT".into(), Some("0 */5 * * * *".into()));
    let html = overview(&all, &Query { limit: 50, ..Query::default() }, None, now()).html;
    let (_, footer) = html.split_once("<footer").unwrap();
    for part in [env!("CARGO_PKG_VERSION"), "hub.net over MQTT", "Timer 0 */5 * * * *", "Last recorded poll"] {
        assert!(footer.contains(part), "{part} is missing in {footer}");
    }
}

#[test]
fn names_and_texts_are_no_markup() {
    let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let all = Overview::new(vec![cursor(evil, evil)], Vec::new(), &scope(), now());
    let query = Query { search: "<script>".into(), ..Query { limit: 50, ..Query::default() } };
    let item = all.select(&query).items[0];
    let detail = Detail { item, polls: PollList::default(), readings: Readings::default() };
    for page in [
        overview(&all, &query, None, now()),
        super::detail(&detail, &all, None, now()),
        problem(StatusCode::NOT_FOUND, evil),
    ] {
        let html = page.html.replace(&format!("<script>{SCRIPT}</script>"), "");
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    }
}

#[test]
fn a_site_with_everything_is_not_large_either() {
    let [name, text] = ["\"ü".repeat(120), "<&".repeat(5_000)];
    let mut readings = Readings::default();
    let channels: Vec<_> = (0..200).map(|channel| format!("\"<ü{channel}{}\":-123456.789", "<".repeat(100))).collect();
    let row = |minute| {
        let at = (now() + TimeDelta::minutes(minute)).to_rfc3339();
        format!("{{\"Timestamp\":\"{at}\",\"Channels\":{{{}}}}}", channels.join(","))
    };
    readings.add_message(&format!("{{\"Timeseries\":[{}]}}", (0..300).map(row).collect::<Vec<_>>().join(",")));
    readings.sort();
    let all = Overview::new(vec![cursor(&name, &text)], Vec::new(), &scope(), now());
    let query = Query { limit: 50, ..Query::default() };
    let key = SiteKey { customer: "c".into(), site: name.clone() };
    let asked = PollContext {
        site: Site::of_key(key.clone()),
        at: now(),
        request: Request::default(),
        status: None,
        bytes: 0,
        took: Duration::from_secs(1),
        backfill: None,
        rows_ahead: 0,
        correction: false,
    };
    let fault = Fault { kind: Kind::Timeout, text: text.clone() };
    let polls = vec![failed_poll(&asked, fault, &Cursor::new(&key), None); 40];
    let unreadable = vec![LedgerError::Foreign { id: name.clone(), site: name.clone(), text: text.clone() }; 40];
    let polls = PollList { polls, unreadable };
    let page = detail(&Detail { item: all.select(&query).items[0], polls, readings }, &all, None, now());
    assert!(page.html.len() <= LARGEST, "{}", page.html.len());
    assert!(page.html.contains(" more channels are not shown"));
    assert!(page.html.contains("40 of the last polls cannot be read; the first: "));
}

#[test]
fn a_device_shows_its_uplinks() {
    let mut document = activity::Document::new((&Owner::things_network("pumps", "pump-7", "pump-7")).into());
    document.activity.uplink(now(), [("level".to_owned(), 1.5)]);
    let readings = Readings::of_series(document.activity.series.clone());
    let all = Overview::new(Vec::new(), vec![document], &scope(), now());
    let item = all.select(&Query { limit: 1, ..Query::default() }).items[0];
    let page =
        detail(&Detail { item, polls: PollList::default(), readings }, &all, None, now() + TimeDelta::minutes(5));
    for part in ["Device of application", "pump-7", "5 min ago", "1 uplinks in 24 hours", "<strong>level</strong> 1.5"]
    {
        assert!(page.html.contains(part), "{part} is missing in {}", page.html);
    }
}

#[test]
fn the_chosen_group_has_a_link_though_there_are_many() {
    let device = |number: usize| {
        activity::Document::new((&Owner::things_network(&format!("app-{number:02}"), "device", "device")).into())
    };
    let all = Overview::new(Vec::new(), (0..30).map(device).collect(), &scope(), now());
    let group = Some("app-27".to_owned());
    let query = Query { limit: 50, within: Some(Within { system: Owner::THINGS_NETWORK, group }), ..Query::default() };
    let html = overview(&all, &query, None, now()).html;
    let (_, links) = html.split_once("nav class=\"groups\"").unwrap();
    let (links, _) = links.split_once("</nav>").unwrap();
    assert_eq!(links.matches("aria-current").count(), 1, "{links}");
    assert!(links.contains(">app-27 <") && links.contains("18 more"), "{links}");
    assert_eq!(links.matches("<a ").count(), MAX_GROUPS, "{links}");
}

#[test]
fn spans_of_time_are_in_their_largest_unit() {
    for (seconds, text) in
        [(-5, "0 s"), (179, "179 s"), (180, "3 min"), (10_799, "179 min"), (10_800, "3 h"), (259_200, "3 days")]
    {
        assert_eq!(ago(seconds), text);
    }
}
