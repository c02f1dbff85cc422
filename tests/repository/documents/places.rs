//! Checks that everything has its place: each setting, each kind of failure, each page; and that the first pages stay short.

use std::{collections::BTreeSet, fs};

use regex::Regex;

use super::{Page, files::Files, pages, root};
use crate::infrastructure::settings;

const SETTINGS: &str = "docs/reference/settings.md";
const TROUBLESHOOTING: &str = "docs/troubleshooting.md";
/// The pages that a reader or an engineer reads first, with the most lines that they may have.
const SHORT: [(&str, usize); 2] = [("README.md", 200), ("ARCHITECTURE.md", 200)];

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page(path: &str) -> Page {
    Page::read(path, &text(path))
}

#[test]
fn the_first_pages_are_short() {
    for (path, most) in SHORT {
        let lines = text(path).lines().count();
        assert!(lines <= most, "{path} has {lines} lines: move what is over {most} to docs/");
    }
}

/// It has never run against live services. A reader must learn that before anything else.
#[test]
fn the_first_page_says_at_once_what_is_not_proven() {
    let text = text("README.md");
    let first: Vec<_> = text.lines().take(40).collect();
    assert!(first.iter().any(|line| line.contains("never run against live Azure")), "{first:#?}");
}

/// The rows of the table whose heading begins with this cell.
fn table<'a>(page: &'a Page, heading: &str) -> Vec<&'a [String]> {
    let at = page.rows.iter().position(|(_, cells)| cells[0] == heading);
    let at = at.unwrap_or_else(|| panic!("{} has no table {heading:?}", page.path));
    // A line of dashes is between the heading and the rows.
    let first = page.rows[at].0 + 2;
    let rows = page.rows[at + 1..].iter().zip(first..).take_while(|((line, _), expected)| line == expected);
    rows.map(|((_, cells), _)| &cells[..]).collect()
}

#[test]
fn prices_and_figures_of_the_first_page_are_those_of_their_pages() {
    let (first, costs, reliability) = (page("README.md"), text("docs/costs.md"), text("docs/reliability.md"));
    let prices = table(&first, "A month, list prices");
    assert!(prices.len() > 3, "{prices:?}");
    for row in prices {
        let line = costs.lines().find(|line| line.starts_with(&format!("| {} |", row[0])));
        let line = line.unwrap_or_else(|| panic!("docs/costs.md has no row {:?}", row[0]));
        assert!(line.contains(&format!("| **{}** |", row[1])), "{row:?} is not what is bold in {line}");
    }
    let number = Regex::new(r"\b\d[\d,]{2,}").unwrap();
    let figures: Vec<_> = table(&first, "Proven on emulators").into_iter().map(|row| &row[1]).collect();
    let numbers: Vec<_> = figures.iter().flat_map(|text| number.find_iter(text)).map(|found| found.as_str()).collect();
    assert!(numbers.len() > 4, "{figures:?}");
    let unknown: Vec<_> = numbers.into_iter().filter(|number| !reliability.contains(number)).collect();
    assert_eq!(unknown, [""; 0], "docs/reliability.md does not have these figures");
}

#[test]
fn every_setting_has_a_row_with_an_anchor() {
    let page = page(SETTINGS);
    let rows: BTreeSet<_> = page.settings.iter().map(|(_, name)| name.trim_end_matches('…')).collect();
    let read = settings::of_the_app();
    assert!(read.len() > 40, "{read:?}");
    let without: Vec<_> = read.iter().filter(|name| !rows.contains(name.as_str())).collect();
    assert_eq!(without, [""; 0], "{SETTINGS} has no row of these settings");
    let without: Vec<_> = rows.iter().filter(|name| !page.anchors.contains(&name.to_lowercase())).collect();
    assert_eq!(without, [&""; 0], "{SETTINGS} has no anchor in the rows of these settings: the name in small letters");
}

/// The numbers of `settings.number("Name", 30, 0..=60, …)` in the code: name, default, least, most.
fn numbers() -> Vec<(String, String, String, String)> {
    let (mut found, mut constants) = (Vec::new(), Vec::new());
    let call = Regex::new(r#"number\(\s*"(\w+)",\s*(\w+),\s*(\w+)\.\.=(\w+),"#).unwrap();
    let constant = Regex::new(r"const (\w+): u64 = ([0-9_* ]+);").unwrap();
    for file in Files::read().all.iter().filter(|path| path.starts_with("src/config/") && path.ends_with(".rs")) {
        let code = text(file);
        let product =
            |text: &str| text.split('*').map(|part| plain(part.trim()).parse::<u64>().unwrap()).product::<u64>();
        constants.extend(constant.captures_iter(&code).map(|seen| (seen[1].to_owned(), product(&seen[2]).to_string())));
        found.extend(call.captures_iter(&code).map(|seen| [1, 2, 3, 4].map(|at| seen[at].to_owned())));
    }
    let value = |text: String| {
        let of_constant = constants.iter().find(|(name, _)| *name == text);
        of_constant.map_or_else(|| plain(&text), |(_, value)| value.clone())
    };
    let resolved = found.into_iter().filter(|[name, ..]| name != "Number");
    resolved.map(|[name, default, least, most]| (name, value(default), value(least), value(most))).collect()
}

fn plain(number: &str) -> String {
    number.replace('_', "")
}

#[test]
fn defaults_and_bounds_are_those_of_the_code() {
    let page = page(SETTINGS);
    let numbers = numbers();
    assert!(numbers.len() > 12, "{numbers:?}");
    for (name, default, least, most) in numbers {
        let row = page.rows.iter().find(|(_, cells)| cells[0] == name);
        let (_, cells) = row.unwrap_or_else(|| panic!("{SETTINGS} has no row of {name}"));
        let [_, _, of_page, values] = &cells[..] else { panic!("{name}: {cells:?}") };
        assert_eq!(*of_page, default, "the default of {name}");
        assert!(values.starts_with(&format!("{least} to {most}")), "{name} is {least} to {most}, not {values}");
    }
}

#[test]
fn every_kind_of_failure_has_a_row_with_an_anchor() {
    let kind = Regex::new(r#"(?m)^    \w+ = "([a-z0-9_]+)",$"#).unwrap();
    let kinds: BTreeSet<_> =
        kind.captures_iter(&text("src/support/kind.rs")).map(|found| found[1].to_owned()).collect();
    assert!(kinds.len() > 80, "{kinds:?}");
    let page = page(TROUBLESHOOTING);
    let rows: BTreeSet<_> = page
        .rows
        .iter()
        .filter(|(_, cells)| cells.len() == 4 && cells[0] != "Kind" && cells.iter().all(|cell| !cell.is_empty()))
        .flat_map(|(_, cells)| cells[0].split(", ").map(str::to_owned))
        .collect();
    assert_eq!(rows, kinds, "{TROUBLESHOOTING} has a row for each kind, with cause, effect and what to do");
    let without: Vec<_> = kinds.iter().filter(|kind| !page.anchors.contains(*kind)).collect();
    assert_eq!(without, [""; 0], "{TROUBLESHOOTING} has no anchor of these kinds");
}

#[test]
fn every_page_is_in_the_map_and_in_the_book() {
    let files = Files::read();
    let pages = pages(&files);
    let summary = "docs/SUMMARY.md";
    for map in ["docs/README.md", summary] {
        let page = pages.iter().find(|page| page.path == map).unwrap_or_else(|| panic!("there is no {map}"));
        let linked: BTreeSet<_> = page.links.iter().map(|(_, link)| page.resolve(link).0).collect();
        let of_docs = pages.iter().filter(|page| page.path.starts_with("docs/") && page.path != summary);
        let missing: Vec<_> =
            of_docs.map(|page| &page.path).filter(|path| *path != map && !linked.contains(*path)).collect();
        assert_eq!(missing, [""; 0], "{map} has no link to these pages");
    }
}
