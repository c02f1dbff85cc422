//! Checks `docs/operations.md` and `infra/alerts.bicep` against lines that the connector writes: the queries' patterns
//! match them, in both formats; every field is in the document; every alert has the query that the document explains.
//!
//! | Module | |
//! |---|---|
//! | `page` | the queries and fields of the document |
//! | `captured` | log lines of both halves, with all kinds of faults |

mod captured;
mod page;

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

use self::page::Query;

/// The host's lines about a message that has failed too often, and about a handler that has crashed.
/// <https://github.com/Azure/azure-sdk-for-net/blob/main/sdk/storage/Microsoft.Azure.WebJobs.Extensions.Storage.Queues/src/QueueProcessor.cs>
/// <https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script/Workers/Http/HttpWorkerProcess.cs>
const OF_THE_HOST: [&str; 2] = [
    "Message has reached MaxDequeueCount of 1440. Moving message to queue 'uplinks-poison'.",
    "Language Worker Process exited. Pid=18956.",
];
/// The invocation id of every call in the tests.
const INVOCATION: &str = "5b2f9c6e-0000-4000-8000-000000000000";

async fn captured(format: &str) -> Vec<String> {
    let mut lines = captured::of_polls(format).await;
    lines.extend(captured::of_uplinks(format).await);
    lines
}

#[tokio::test]
async fn queries_read_what_is_logged_as_text() {
    let lines = captured("text").await;
    assert_queries(&lines);
    let names = Regex::new(r#" ([a-z_]+(?:\.[a-z0-9_]+)+|duration_ms|period_s)="#).unwrap();
    let found = lines.iter().flat_map(|line| names.captures_iter(line).map(|found| found[1].to_owned())).collect();
    assert_fields(&found);
    for line in lines.iter().filter(|line| line.contains("site.name=")) {
        assert!(line.contains(&format!("invocation.id=\"{INVOCATION}\"")), "{line}");
    }
}

#[tokio::test]
async fn queries_read_what_is_logged_as_json() {
    let lines = captured("json").await;
    assert_queries(&lines);
    let is_own = |name: &String| !["timestamp", "level", "message"].contains(&name.as_str());
    let mut found = BTreeSet::new();
    // A handler that cannot start prints plain text instead of JSON.
    for line in lines.iter().filter(|line| line.starts_with('{')) {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert!(fields.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
        found.extend(fields.into_iter().map(|(name, _)| name).filter(is_own));
    }
    assert_fields(&found);
}

/// Asserts that every query finds lines, and that each of its patterns matches in them.
fn assert_queries(lines: &[String]) {
    let queries = page::queries();
    assert!(queries.len() > 10, "{queries:?}");
    for Query { name, text, .. } in &queries {
        let filters = page::filters(text);
        let is_meant = |line: &&str| filters.iter().all(|any| any.iter().any(|part| line.contains(part)));
        let meant: Vec<_> = lines.iter().map(String::as_str).chain(OF_THE_HOST).filter(is_meant).collect();
        assert!(!meant.is_empty(), "{name} finds no line of\n{}", lines.join("\n"));
        let patterns = page::patterns(text);
        for pattern in &patterns {
            let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{name}: {error}"));
            let found = meant.iter().filter_map(|line| regex.captures(line)).collect::<Vec<_>>();
            assert!(!found.is_empty(), "{name}: {pattern} matches none of\n{}", meant.join("\n"));
            let is_empty = |group: Option<regex::Match<'_>>| group.is_none_or(|group| group.is_empty());
            assert!(found.iter().all(|found| !found.iter().any(is_empty)), "{name}: {pattern} finds nothing");
        }
        assert_eq!(patterns.len(), text.matches("extract").count(), "{name}: a pattern is not looked at");
    }
}

/// Asserts that the document has every logged field.
fn assert_fields(found: &BTreeSet<String>) {
    let documented = page::fields();
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in docs/operations.md: {unknown:?}");
    for name in ["site.name", "failure.count", "backend.p95_ms", "ledger.requests", "hub.unconfirmed", "dps.max_ms"] {
        assert!(found.contains(name), "{name} is in no line: {found:?}");
    }
}

#[test]
fn the_fields_of_the_document_are_those_of_the_code() {
    let documented = page::fields();
    let assigned = Regex::new(r"(?:^|[\s(,{])([a-z_]+(?:\.[a-z0-9_]+)+|duration_ms|period_s) = ").unwrap();
    let mut logged = BTreeSet::new();
    for file in sources(&page::root().join("src")) {
        let code = fs::read_to_string(&file).unwrap();
        for block in page::logging(&code) {
            logged.extend(assigned.captures_iter(block).map(|found| found[1].to_owned()));
        }
    }
    assert_eq!(documented, logged);
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Tests may log any field; `format` is tested with fields of its own.
        let is_left_out = path.ends_with("format.rs") || path.ends_with("tests");
        if path.is_dir() && !is_left_out {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_left_out {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_alert_has_a_query_of_the_document() {
    let queries = page::queries();
    let bicep = fs::read_to_string(page::root().join("infra/alerts.bicep")).unwrap();
    let rule = r"(?s)name: '([a-z-]+)'\n    description.*?every: '(\w+)'.*?window: '(\w+)'.*?column: '(\w+)'.*?query: '''\n(.*?)'''";
    let rules = Regex::new(rule).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in rules.captures_iter(&bicep) {
        let (alert, column, text) = (&rule[1], &rule[4], &rule[5]);
        let query = queries.iter().find(|query| query.text == text);
        let query = query.unwrap_or_else(|| panic!("{alert}: not a query of docs/operations.md:\n{text}"));
        assert!(
            query.text.contains(&format!("{column} = ")) || text.contains(&format!(", {column},")),
            "{alert}: {column}"
        );
        alerts.insert([alert.to_owned(), query.name.clone(), duration(&rule[2]), duration(&rule[3])]);
    }
    assert_eq!(alerts.len(), bicep.matches("query: '''").count());
    assert_eq!(alerts, page::alerts());
    let parameters = Regex::new(r"(?m)^param (\w+) int = (\d+)$").unwrap();
    let parameters = parameters.captures_iter(&bicep).map(|found| (found[1].to_owned(), found[2].to_owned()));
    assert_eq!(parameters.collect::<BTreeSet<_>>(), page::thresholds());
}

/// `PT5M` as the document writes it: `5 min`.
fn duration(iso: &str) -> String {
    let units = [("M", "min"), ("H", "h"), ("D", "d")];
    let found = units.iter().find_map(|(unit, word)| Some((iso.strip_suffix(unit)?, word)));
    let (number, word) = found.unwrap_or_else(|| panic!("{iso}"));
    format!("{} {word}", number.trim_start_matches(['P', 'T']))
}
