//! The model's backend: rows with the numbers 0, 1, 2, …, one a second, which may arrive in any order.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use iothub_connector::rapidm2m::{FetchError, Stamp, client::Range};
use serde_json::Value;

use crate::scope::Trouble;

/// 2025-01-01T00:00:00Z
const FIRST_ROW: i64 = 1_735_689_600;

pub fn stamp(row: usize) -> Stamp {
    let seconds = FIRST_ROW + i64::try_from(row).expect("a small number");
    Stamp::from_time(DateTime::from_timestamp(seconds, 0).expect("a time of this century"))
}

/// The available rows that a request asks for. Both bounds belong to the range.
pub fn within(range: Range, rows: &BTreeSet<usize>) -> Vec<usize> {
    match range {
        Range::Youngest => rows.last().copied().into_iter().collect(),
        Range::Window { from, .. } => {
            let mut rows = up_to_end(range, rows);
            rows.retain(|row| stamp(*row) >= from);
            rows
        }
    }
}

/// The available rows up to the end of the requested range.
pub fn up_to_end(range: Range, rows: &BTreeSet<usize>) -> Vec<usize> {
    let until = match range {
        Range::Youngest => None,
        Range::Window { until, .. } => until,
    };
    rows.iter().copied().take_while(|row| until.is_none_or(|until| stamp(*row) <= until)).collect()
}

/// An answer with these rows. If there are more than `most`, the client reads `most` rows and then gives up the answer.
pub fn answer(rows: &[usize], most: usize) -> Result<Bytes, FetchError> {
    let fits = rows.len() <= most;
    let mut body = "[".to_owned();
    for row in rows.iter().take(most) {
        let comma = if body.len() > 1 { "," } else { "" };
        write!(body, r#"{comma}["{}",{row}]"#, stamp(*row)).expect("a String takes all");
    }
    if fits {
        body.push(']');
        return Ok(body.into());
    }
    Err(FetchError::TooLarge { limit: body.len(), prefix: body.into() })
}

/// The number of a row in a message, from its stamp; `None` if its value is not the right one.
pub fn row_number(row: &Value) -> Option<usize> {
    let time = DateTime::parse_from_rfc3339(row["Timestamp"].as_str()?).ok()?;
    let number = usize::try_from(time.timestamp() - FIRST_ROW).ok()?;
    (row["Channels"]["ch0"].as_u64() == u64::try_from(number).ok()).then_some(number)
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
