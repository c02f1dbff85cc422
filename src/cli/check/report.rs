//! The results of the checks. No I/O.

use chrono::TimeDelta;
use serde::Serialize;

use super::advice;

use iothub_connector::support::kind::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// The result for one checked item.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub what: String,
    pub result: Verdict,
    /// The same kind as in the log and in records: docs/troubleshooting.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_do: Option<String>,
}

impl Row {
    pub fn ok(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self { what: what.into(), result: Verdict::Ok, kind: None, text: text.into(), to_do: None }
    }

    pub fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { result: Verdict::Skipped, ..Self::ok(what, why) }
    }

    pub fn warning(what: impl Into<String>, text: impl Into<String>, to_do: &str) -> Self {
        Self { result: Verdict::Warning, to_do: Some(to_do.to_owned()), ..Self::ok(what, text) }
    }

    pub fn failed(what: impl Into<String>, text: impl Into<String>, to_do: &str) -> Self {
        Self { result: Verdict::Failed, to_do: Some(to_do.to_owned()), ..Self::ok(what, text) }
    }

    /// A fault. The advice comes from its text, or from its kind.
    pub fn fault(what: impl Into<String>, kind: Kind, text: &str) -> Self {
        let (text, to_do) = advice::split(text);
        let to_do = to_do.or_else(|| advice::of_kind(&kind).map(str::to_owned));
        Self { result: Verdict::Failed, kind: Some(kind), to_do, ..Self::ok(what, text) }
    }

    /// A fault of a setting; `text` continues a sentence that begins with the setting's name.
    pub fn setting(name: &str, text: &str) -> Self {
        let (text, to_do) = advice::split(text);
        let what = if name.is_empty() { "settings" } else { name };
        Self { result: Verdict::Failed, to_do, ..Self::ok(what, text) }
    }
}

/// The results of the checks of one service.
#[derive(Debug, Default)]
pub struct Checked {
    pub rows: Vec<Row>,
    /// This machine's clock minus the service's clock, with the service's name.
    pub clock: Option<(&'static str, TimeDelta)>,
}

impl Checked {
    pub fn of(row: Row) -> Self {
        Self { rows: vec![row], clock: None }
    }
}

/// The number of rows per result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub ok: usize,
    pub warning: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Summary {
    pub fn of(rows: &[Row]) -> Self {
        let count = |verdict| rows.iter().filter(|row| row.result == verdict).count();
        Self {
            ok: count(Verdict::Ok),
            warning: count(Verdict::Warning),
            failed: count(Verdict::Failed),
            skipped: count(Verdict::Skipped),
        }
    }
}
