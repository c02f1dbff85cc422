//! The model's backend: rows with the numbers 0, 1, 2, …, one a second, which may arrive in any order. A row may be
//! unusable, and its value may change.

use std::{collections::BTreeMap, fmt, fmt::Write as _, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use iothub_connector::rapidm2m::{FetchError, Stamp, client::Range};

use crate::scope::Trouble;

/// 2025-01-01T00:00:00Z
const FIRST_ROW: i64 = 1_735_689_600;

/// The value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    First,
    Second,
    /// The row cannot be used.
    Nonsense,
}

/// A row with a value that it has, or had.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    pub number: usize,
    pub value: Value,
}

/// The rows in the backend, with their values of now.
pub type Rows = BTreeMap<usize, Value>;

impl Row {
    /// The value in an answer: that of row 7 is 7, or 1007 after a change.
    pub fn text(self) -> String {
        match self.value {
            Value::First => self.number.to_string(),
            Value::Second => (1_000 + self.number).to_string(),
            Value::Nonsense => "nonsense".into(),
        }
    }

    pub fn is_usable(self) -> bool {
        self.value != Value::Nonsense
    }

    /// The row as one number.
    pub fn code(self) -> usize {
        self.number * 3 + self.value as usize
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.value {
            Value::First => "",
            Value::Second => "'",
            Value::Nonsense => "?",
        };
        write!(out, "{}{mark}", self.number)
    }
}

pub fn stamp(row: usize) -> Stamp {
    let seconds = FIRST_ROW + i64::try_from(row).expect("a small number");
    Stamp::from_time(DateTime::from_timestamp(seconds, 0).expect("a time of this century"))
}

pub fn all(rows: &Rows) -> impl DoubleEndedIterator<Item = Row> {
    rows.iter().map(|(number, value)| Row { number: *number, value: *value })
}

/// The available rows that a request asks for. Both bounds belong to the range.
pub fn within(range: Range, rows: &Rows) -> Vec<Row> {
    match range {
        Range::Youngest => all(rows).next_back().into_iter().collect(),
        Range::Window { from, .. } => {
            let mut rows = up_to_end(range, rows);
            rows.retain(|row| stamp(row.number) >= from);
            rows
        }
    }
}

/// The available rows up to the end of the requested range.
pub fn up_to_end(range: Range, rows: &Rows) -> Vec<Row> {
    let until = match range {
        Range::Youngest => None,
        Range::Window { until, .. } => until,
    };
    all(rows).take_while(|row| until.is_none_or(|until| stamp(row.number) <= until)).collect()
}

/// An answer with these rows. If there are more than `most`, the client reads `most` rows and then gives up the answer.
pub fn answer(rows: &[Row], most: usize) -> Result<Bytes, FetchError> {
    let fits = rows.len() <= most;
    let mut body = "[".to_owned();
    for row in rows.iter().take(most) {
        let comma = if body.len() > 1 { "," } else { "" };
        write!(body, r#"{comma}["{}",{}]"#, stamp(row.number), row.text()).expect("a String takes all");
    }
    if fits {
        body.push(']');
        return Ok(body.into());
    }
    Err(FetchError::TooLarge { limit: body.len(), prefix: body.into() })
}

/// A row of a message, by its stamp and its value; `None` if it never had this value.
pub fn row_of(row: &serde_json::Value) -> Option<Row> {
    let time = DateTime::parse_from_rfc3339(row["Timestamp"].as_str()?).ok()?;
    let number = usize::try_from(time.timestamp() - FIRST_ROW).ok()?;
    let text = row["Channels"]["ch0"].to_string();
    let rows = [Value::First, Value::Second].map(|value| Row { number, value });
    rows.into_iter().find(|row| row.text() == text)
}

pub fn answer_in(trouble: Trouble) -> Result<Bytes, FetchError> {
    let said = String::new;
    match trouble {
        Trouble::Status => Err(FetchError::Status { status: 500, said: said() }),
        Trouble::Html => Ok(Bytes::from_static(b"<html>")),
        Trouble::BadRows => Ok(Bytes::from_static(br#"[["yesterday",1]]"#)),
        Trouble::Throttled => {
            let retry_after = Some(Duration::from_secs(60));
            Err(FetchError::RateLimited { status: 429, retry_after, said: said() })
        }
        Trouble::Unauthorized => Err(FetchError::Unauthorized { said: said() }),
    }
}
