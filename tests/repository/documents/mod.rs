//! Checks the documents: links have targets, named files exist, and named settings are read by the code. Other content
//! is checked elsewhere: `docs/faults.md` by `tests/faults`, `docs/operations.md` by `tests/operations`,
//! `docs/reference/cli.md` by `command_line`.
//!
//! | Module | |
//! |---|---|
//! | `files`, `page` | finds and parses the documents |
//! | `places` | each setting, each kind of failure and each page has its place |
//! | `wording` | plain English |

mod files;
mod page;
mod places;
mod wording;

use std::{collections::BTreeSet, fs, path::Path};

pub use self::{files::Files, page::Page};
use super::infrastructure::settings;

/// The beginnings of settings' names. Hardly any other name begins like this.
const SETTINGS_BEGIN: [&str; 24] = [
    "AzureIotHub",
    "AzureStorage",
    "BackendRequests",
    "Base64encoded",
    "Channelnames",
    "DPS",
    "DeviceActivity",
    "DeviceIdTemplate",
    "Emulation",
    "FailedSites",
    "Forward",
    "Histdata",
    "IoTHub",
    "KeyVault",
    "M2M",
    "MarkWithin",
    "Overlap",
    "Poll",
    "RecordEmpty",
    "StartFrom",
    "Sweep",
    "ThingsNetwork",
    "ThingsStack",
    "UplinkQueue",
];
/// Names that begin like this but are no settings: a database, fields of documents, code.
const NO_SETTINGS: [&str; 7] = [
    "ForwardedAt",
    "Forwarder::backfill",
    "IoTHubMessage",
    "M2MBackendForwarderData",
    "PolledAt",
    "PollingTimestamp",
    "Polls",
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents. What tests have as input or put together is not one.
pub fn pages(files: &Files) -> Vec<Page> {
    let is_document = |path: &&String| path.ends_with(".md") && !path.starts_with("tests/");
    let paths = files.all.iter().filter(is_document);
    let pages: Vec<_> = paths.map(|path| Page::read(path, &fs::read_to_string(root().join(path)).unwrap())).collect();
    assert!(pages.len() > 40, "{} documents", pages.len());
    pages
}

fn broken_links(pages: &[Page], files: &Files) -> Vec<String> {
    let mut broken = Vec::new();
    for page in pages {
        for (line, link) in page.links.iter().filter(|(_, link)| !link.contains("://") && !link.starts_with("mailto:"))
        {
            let (path, anchor) = page.resolve(link);
            let there = pages.iter().find(|page| page.path == path);
            if there.is_none() && !files.has(&path) {
                broken.push(page.say(*line, &format!("{link} leads to no file")));
            } else if !anchor.is_none_or(|anchor| there.is_some_and(|there| there.anchors.contains(&anchor))) {
                broken.push(page.say(*line, &format!("{link} leads to no heading")));
            }
        }
    }
    broken
}

fn missing_files(pages: &[Page], files: &Files) -> Vec<String> {
    let mut missing = Vec::new();
    for page in pages {
        for (line, code) in page.codes.iter().filter(|(_, code)| files.is_path(code) && !files.are_named(code)) {
            missing.push(page.say(*line, &format!("there is no {code}")));
        }
    }
    missing
}

fn unknown_settings(pages: &[Page]) -> Vec<String> {
    let known = settings::known();
    let mut unknown = Vec::new();
    for page in pages {
        let by_name = page.codes.iter().filter(|(_, code)| {
            SETTINGS_BEGIN.iter().any(|begin| code.starts_with(begin))
                && code.contains(|letter: char| letter.is_ascii_lowercase())
                && !NO_SETTINGS.contains(&code.as_str())
        });
        // In a block of code, a line such as `PollQueueName=sites`.
        let in_blocks = page.blocks.iter().filter(|(_, line)| {
            line.trim().split_once('=').is_some_and(|(name, _)| {
                name.starts_with(|letter: char| letter.is_ascii_uppercase())
                    && name.contains(|letter: char| letter.is_ascii_lowercase())
                    && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
            })
        });
        for (line, code) in by_name.chain(&page.settings).chain(in_blocks) {
            let name = code.trim().split('=').next().unwrap();
            let is_known = match name.strip_suffix('…') {
                Some(begin) => known.iter().any(|known| known.starts_with(begin)),
                None => settings::is_one_of(&known, name),
            };
            if !is_known {
                unknown.push(page.say(*line, &format!("the code does not read the setting {name}")));
            }
        }
    }
    unknown
}

#[test]
fn links_lead_somewhere() {
    let files = Files::read();
    let pages = pages(&files);
    assert!(pages.iter().map(|page| page.links.len()).sum::<usize>() > 20);
    assert_eq!(broken_links(&pages, &files), [""; 0]);
}

#[test]
fn files_that_are_named_are_there() {
    let files = Files::read();
    let pages = pages(&files);
    let named: BTreeSet<_> =
        pages.iter().flat_map(|page| &page.codes).filter(|(_, code)| files.is_path(code)).collect();
    assert!(named.len() > 100, "{named:#?}");
    assert_eq!(missing_files(&pages, &files), [""; 0]);
}

#[test]
fn settings_that_are_named_are_read() {
    let pages = pages(&Files::read());
    assert!(pages.iter().map(|page| page.settings.len()).sum::<usize>() > 30);
    assert_eq!(unknown_settings(&pages), [""; 0]);
}

#[test]
fn what_is_wrong_is_found() {
    let files = Files::read();
    let text = "\
# A title: with `code`

[right](README.md) [right](../README.md#settings) [right](#a-title-with-code) [right](#a-title-with-code-1) [right](https://example.com/x)
[right](#histdata) [wrong](#histdata-2)

## A title, with `code`

[wrong](../NOWHERE.md)
[wrong](../README.md#no-such-heading) [wrong](#no-such-heading)

Right: `src/main.rs`, `src/`, `tests/fixtures/things_network/NAME.json`, `local.settings.json`, `target/x/y.json`, `POST /x/y`.
Wrong: `src/nowhere.rs`, `nowhere.rs`, `docs/nowhere/`.

`IoTHubURL`, `IoTHubTransport=https`, `DPSIDScope…` and `DPSIDScope__pumps__10` are read, `IoTHubUrl`, `IoTHubTransports=mqtt` and `DPSIDScopes…` not.

| Setting | Other |
|---|---|
| <a id=\"histdata\"></a>`Histdata`, `histdata` | `anything` |

```
PollQueueName=sites
PollQueuename=sites
```
";
    let pages = [
        Page::read("docs/planted.md", &text.replace("](README.md)", "](faults.md)")),
        Page::read("README.md", "## Settings"),
    ];
    let broken = broken_links(&pages, &files);
    assert_eq!(
        broken,
        [
            "docs/planted.md:4: #histdata-2 leads to no heading",
            "docs/planted.md:8: ../NOWHERE.md leads to no file",
            "docs/planted.md:9: ../README.md#no-such-heading leads to no heading",
            "docs/planted.md:9: #no-such-heading leads to no heading",
        ]
    );
    let missing = missing_files(&pages[..1], &files);
    assert_eq!(
        missing,
        ["src/nowhere.rs", "nowhere.rs", "docs/nowhere/"].map(|path| format!("docs/planted.md:12: there is no {path}"))
    );
    let unknown = unknown_settings(&pages[..1]);
    let of_line =
        |line: usize, name: &str| format!("docs/planted.md:{line}: the code does not read the setting {name}");
    let expected = [
        of_line(14, "IoTHubUrl"),
        of_line(14, "IoTHubTransports"),
        of_line(14, "DPSIDScopes…"),
        of_line(18, "histdata"),
        of_line(22, "PollQueuename"),
    ];
    assert_eq!(unknown, expected);
}
