//! Reads the queries and fields of `docs/operations.md`.

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

#[derive(Debug)]
pub struct Query {
    pub name: String,
    pub text: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/operations.md")).unwrap()
}

pub fn queries() -> Vec<Query> {
    let page = page();
    let queries = Regex::new(r"(?s)<!-- query ([a-z-]+) -->\n```kusto\n(.*?)```").unwrap();
    let queries: Vec<_> =
        queries.captures_iter(&page).map(|found| Query { name: found[1].into(), text: found[2].into() }).collect();
    assert_eq!(queries.len(), page.matches("```kusto").count(), "a query has no name");
    queries
}

/// The filters of a query, from `where message has "a" or message has "b"`: each line must contain one of a filter's
/// texts.
pub fn filters(query: &str) -> Vec<Vec<String>> {
    let (line, text) = (Regex::new("(?m)^\\| where (message has .*)$").unwrap(), Regex::new("\"([^\"]*)\"").unwrap());
    let texts = |part: &str| text.captures_iter(part).map(|found| found[1].to_owned()).collect::<Vec<_>>();
    let lines = line.captures_iter(query).map(|found| found[1].to_owned());
    lines.flat_map(|line| line.split(" and ").map(texts).collect::<Vec<_>>()).collect()
}

/// The patterns of `extract(@'…', …)` and `extract_all(@'…', …)`, also in double quotes.
pub fn patterns(query: &str) -> Vec<String> {
    let literal = Regex::new(r#"extract(?:_all)?\(@(?:'([^']*)'|"([^"]*)")"#).unwrap();
    let pattern = |found: regex::Captures<'_>| found.get(1).or(found.get(2)).unwrap().as_str().to_owned();
    literal.captures_iter(query).map(pattern).collect()
}

/// The names in the first columns of the tables of fields.
pub fn fields() -> BTreeSet<String> {
    let page = page();
    let (_, fields) = page.split_once("\n## Fields\n").expect("a chapter of fields");
    let (fields, _) = fields.split_once("\n## ").expect("a chapter behind it");
    let name = Regex::new("`([a-z0-9_.]+)`").unwrap();
    let first = fields.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    first.flat_map(|cell| name.captures_iter(cell).map(|found| found[1].to_owned())).collect()
}

/// The table of alerts: each with its query, how often it is evaluated, and how far it looks back.
pub fn alerts() -> BTreeSet<[String; 4]> {
    let page = page();
    let (_, alerts) = page.split_once("\n## Alerts\n").expect("a chapter of alerts");
    let rows = Regex::new(r"(?m)^\| ([a-z-]+) \| ([a-z-]+) \| (\d+ \w+) \| (\d+ \w+) \|").unwrap();
    rows.captures_iter(alerts).map(|found| [1, 2, 3, 4].map(|at| found[at].to_owned())).collect()
}

/// The parameters that conditions name with their defaults, from the table of alerts: `name` (number).
pub fn thresholds() -> BTreeSet<(String, String)> {
    let page = page();
    let (_, alerts) = page.split_once("\n## Alerts\n").expect("a chapter of alerts");
    let named = Regex::new(r"`(\w+)` \((\d+)\)").unwrap();
    named.captures_iter(alerts).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// The arguments of the logging macros.
pub fn logging(code: &str) -> Vec<&str> {
    let begins = Regex::new(r"(?:tracing::(?:event|error|warn|info|debug|trace|error_span)|summary_line)!\(").unwrap();
    let inside = |found: regex::Match<'_>| {
        let mut depth = 1;
        let rest = &code[found.end()..];
        let end = rest.find(|letter| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            depth == 0
        });
        &rest[..end.expect("parentheses that close")]
    };
    begins.find_iter(code).map(inside).collect()
}
