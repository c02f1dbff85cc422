//! Describes one cell: a fault and its expected result.

use super::fault::Fault;

/// How the connector recovers once the fault is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovers {
    /// Nothing has to recover: the run under the fault succeeds.
    SameRun,
    /// With the next run.
    NextRun,
    /// With the next run after the requested time is over.
    WhenAsked,
    /// The connector backs off for a minute, then longer, up to an hour. After a restart it tries again at once.
    BackOff,
    /// With a run some seconds later.
    Soon,
}

/// The expected result of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub fault: Fault,
    /// The outcomes that the run records, in order; `-` for nothing.
    pub recorded: &'static str,
    /// The kind of the failure; `-` if the run succeeds.
    pub kind: &'static str,
    /// A text that the user must read, among others.
    pub says: &'static str,
    pub recovers: Recovers,
}

pub const fn cell(
    fault: Fault,
    recorded: &'static str,
    kind: &'static str,
    says: &'static str,
    recovers: Recovers,
) -> Cell {
    Cell { fault, recorded, kind, says, recovers }
}

/// A line of the table in `docs/faults.md`.
#[derive(Clone, Debug)]
pub struct Line {
    pub fault: String,
    pub recorded: String,
    pub seen: String,
    pub recovers: &'static str,
}

impl Recovers {
    pub fn text(self) -> &'static str {
        match self {
            Self::SameRun => "nothing to recover from",
            Self::NextRun => "next run",
            Self::WhenAsked => "first run after the time that was asked for",
            Self::BackOff => "after 1 minute, then longer, up to an hour; a restart asks at once",
            Self::Soon => "by itself, some seconds later",
        }
    }
}

/// The text without the parts that differ from run to run: ports, times, ids.
pub fn normal(text: &str) -> String {
    let mut words = Vec::new();
    // Headers come in any order, and ids are made anew.
    let (text, page) = text.split_once(PAGE).map_or((text, ""), |(text, _)| (text, PAGE));
    for word in text.split(' ') {
        let (bare, tail) = word.split_at(word.trim_end_matches([',', ';', ':', ')']).len());
        let open = bare.len() - bare.trim_start_matches('(').len();
        let (head, bare) = bare.split_at(open);
        let bare = if bare.parse::<chrono::DateTime<chrono::Utc>>().is_ok() {
            "TIME".to_owned()
        } else if is_id(bare) {
            "ID".to_owned()
        } else {
            ports(bare)
        };
        words.push(format!("{head}{bare}{tail}"));
    }
    let end = if page.is_empty() { "" } else { " …" };
    seconds(&words.join(" ")) + page + end
}

/// The beginning of the page that shows the request.
const PAGE: &str = "something went wrong with";

/// The id of a record: `1795355527933-0000-290fa077`.
fn is_id(word: &str) -> bool {
    let lengths: Vec<_> = word.split('-').map(str::len).collect();
    lengths == [13, 4, 8] && word.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-')
}

/// `to wait 29 s` becomes `to wait N s`: the number is the rest of a requested time.
fn seconds(text: &str) -> String {
    let Some((before, behind)) = text.split_once("to wait ") else { return text.to_owned() };
    let behind = behind.trim_start_matches(|letter: char| letter.is_ascii_digit());
    if behind.starts_with(" s") { format!("{before}to wait N{behind}") } else { text.to_owned() }
}

/// `127.0.0.1:4711` becomes `HOST`.
fn ports(word: &str) -> String {
    let mut text = String::new();
    let mut rest = word;
    while let Some(at) = rest.find("127.0.0.1:") {
        text += &rest[..at];
        text += "HOST";
        rest = rest[at + "127.0.0.1:".len()..].trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    text + rest
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    let text =
        "cannot be reached (127.0.0.1:4711: no), at http://127.0.0.1:1/, until 2026-01-31T12:00:00.5Z, after 5 s";
    assert_eq!(normal(text), "cannot be reached (HOST: no), at http://HOST/, until TIME, after 5 s");
}
