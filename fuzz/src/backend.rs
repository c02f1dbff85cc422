//! Laws for the answers of the rapidM2M backend.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDateTime, Timelike as _};
use iothub_connector::rapidm2m::{
    Rows, Site, Stamp,
    directory::Directory,
    ledger::SiteKey,
    polling::split::{Heading, Part, Splitter},
    site::Listed,
    wire,
};
use serde_json::{Map, Value, value::RawValue};

use super::bounds::{LONGEST_ERROR, check_error, is_json, now};

/// Filled-up digits are read as chrono reads them. They are written back as short as possible.
pub fn stamp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let stamp = Stamp::parse(text);
    let is_digits = (1..=17).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let full = format!("{text:0<17}");
    let expected = is_digits.then(|| NaiveDateTime::parse_from_str(&full, "%Y%m%d%H%M%S%3f").ok()).flatten();
    let expected = expected.filter(|time| !full.starts_with("0000") && time.nanosecond() < 1_000_000_000);
    assert_eq!(stamp.map(Stamp::time), expected.map(|time| time.and_utc()), "{text:?}");
    let Some(stamp) = stamp else { return };
    let short = text.trim_end_matches('0');
    assert_eq!(stamp.to_string(), short);
    assert_eq!(Stamp::parse(short), Some(stamp));
    let rfc3339 = stamp.rfc3339();
    assert_eq!(DateTime::parse_from_rfc3339(&rfc3339).expect("RFC 3339").to_utc(), stamp.time());
    assert_eq!(Stamp::from_time(stamp.time()), stamp);
}

/// The first byte is the number of requested channels, the second gives the largest size of a message.
pub fn rows(data: &[u8]) {
    let [channels, size, body @ ..] = data else { return };
    let (channels, max_body) = (usize::from(channels % 5), 200 + 16 * usize::from(*size));
    let brackets = body.iter().filter(|byte| **byte == b'[').count();
    let prefix = Rows::read_prefix(body, channels);
    assert!(prefix.rows.len() < brackets.max(1));
    let rows = match read(body, channels) {
        Ok(rows) => rows,
        Err(error) => return check_error(&error.to_string()),
    };
    assert!(rows.rows.len() <= brackets, "a row has a bracket");
    assert!(rows.flaws.first.len() <= rows.flaws.count.min(5));
    assert!(rows.flaws.first.iter().all(|flaw| flaw.text.chars().count() <= 200));
    for row in &rows.rows {
        assert_eq!(rows.values(row).len(), channels);
        for text in rows.values(row).flatten() {
            assert!(body.windows(text.len()).any(|part| part == text.as_bytes()), "a value is the backend's own text");
            assert!(is_json(text) && !text.starts_with(['[', '{']) && !matches!(text, "null" | "\"NAN\""), "{text}");
        }
    }
    check_prefixes(body, channels, &rows);
    check_order(body, channels);
    check_messages(body, channels, max_body);
}

fn read(body: &[u8], channels: usize) -> Result<Rows, wire::WireError> {
    Rows::read(body.to_vec().into(), channels)
}

/// The stamps of rows, with their values.
fn contents(rows: &Rows) -> Vec<(Stamp, Vec<Option<String>>)> {
    let values = |row| rows.values(row).map(|value| value.map(str::to_owned)).collect();
    rows.rows.iter().map(|row| (row.stamp, values(row))).collect()
}

/// Whatever part of a body has arrived: its complete rows are the first rows of the whole body.
fn check_prefixes(body: &[u8], channels: usize, rows: &Rows) {
    // `["2017012",5]` is a row only if nothing follows it.
    let is_array_of_arrays = contents(&Rows::read_prefix(body, channels)).len() == rows.rows.len();
    if rows.flaws.count == 0 && rows.rows.len() > 1 {
        assert!(is_array_of_arrays, "a body without flaws is its own prefix");
    }
    if !is_array_of_arrays {
        return;
    }
    let whole = contents(rows);
    for cut in (0..body.len()).step_by(1 + body.len() / 16) {
        let prefix = contents(&Rows::read_prefix(&body[..cut], channels));
        assert_eq!(prefix, whole[..prefix.len()], "cut at {cut}");
    }
}

fn check_order(body: &[u8], channels: usize) {
    let mut rows = read(body, channels).expect("read before");
    let mut expected = contents(&rows);
    expected.sort_by_key(|(stamp, _)| *stamp);
    let mut seen = HashSet::new();
    expected.retain(|row| seen.insert(row.clone()));
    rows.sort();
    assert_eq!(contents(&rows), expected);
}

#[derive(serde::Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "Timeseries")]
    rows: Vec<MessageRow<'a>>,
}

#[derive(serde::Deserialize)]
struct MessageRow<'a> {
    #[serde(rename = "Timestamp")]
    stamp: &'a str,
    #[serde(borrow, rename = "Channels")]
    values: BTreeMap<String, &'a RawValue>,
}

/// Every row is in exactly one message, in order, with unchanged values. The same rows have the same message id.
fn check_messages(body: &[u8], channels: usize, max_body: usize) {
    let mut rows = read(body, channels).expect("read before");
    rows.sort();
    let names: Vec<_> = (0..channels).map(|index| format!("ch\"{index}")).collect();
    let site = Site::of_key(SiteKey { customer: "Wässer \"&\" Co".into(), site: "Well\\7".into() });
    let split = |end| {
        let heading = Heading { site: &site, begin: None, end, channels: &names, correction: false };
        Splitter::new(&heading, &rows, max_body).collect::<Vec<Part>>()
    };
    let (parts, later) = (split(now()), split(now() + chrono::TimeDelta::days(1)));
    let ids = |parts: &[Part]| parts.iter().map(|part| part.message_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&parts), ids(&later));
    let mut next = 0;
    for part in &parts {
        assert_eq!(part.rows.start, next);
        next = part.rows.end;
        assert!(part.body.len() <= max_body || part.rows.len() == 1);
        let message: Message<'_> = serde_json::from_str(&part.body).expect("a message is JSON");
        assert_eq!(message.rows.len(), part.rows.len());
        for (row, told) in rows.rows[part.rows.clone()].iter().zip(&message.rows) {
            assert_eq!(told.stamp, row.stamp.rfc3339());
            let values = names.iter().zip(rows.values(row)).filter_map(|(name, value)| Some((name.as_str(), value?)));
            assert!(values.eq(told.values.iter().map(|(name, value)| (name.as_str(), value.get()))));
        }
    }
    assert_eq!(next, rows.rows.len(), "no row is lost");
}

/// Laws for lists of sites and for blueprints.
pub fn lists(body: &[u8]) {
    match wire::json::<Vec<Listed>>(body, "an array of sites") {
        Ok(listed) => {
            let mut directory = Directory::new("c", []);
            let sites = directory.all(&listed);
            assert!(sites.len() <= listed.len() && sites.iter().all(|site| !site.path().is_empty()));
            let places: HashSet<_> = sites.iter().map(|site| &site.key).collect();
            assert_eq!(places.len(), sites.len(), "no site is polled twice");
            sites.iter().for_each(|site| directory.learn(site, 0));
            assert_eq!(directory.all(&listed), sites, "what is polled has its place");
        }
        Err(error) => check_error(&error.to_string()),
    }
    match wire::json::<Map<String, Value>>(body, "a blueprint") {
        Ok(blueprint) => {
            for histdata in 0..=9 {
                let channels = wire::channels(&blueprint, histdata);
                let container = &blueprint.get(&format!("histdata{histdata}"));
                assert!(channels.iter().all(|name| container.is_some_and(|container| container.get(name).is_some())));
            }
        }
        Err(error) => assert!(error.to_string().len() <= LONGEST_ERROR),
    }
}
