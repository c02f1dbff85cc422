//! Finds the range of a site's backfill. The same command must always find the same range, because otherwise it could
//! not resume.

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use iothub_connector::rapidm2m::ledger::Cursor;

use crate::cli::{
    exit::Usage,
    time::{self, Moment},
};

/// The range of the options.
///
/// # Errors
/// A later run of the command would find another range, or rows of the range may still come, or it is empty.
pub fn given(
    from: Option<Moment>,
    until: Option<Moment>,
    now: DateTime<Utc>,
) -> Result<(DateTime<Utc>, Option<DateTime<Utc>>), Usage> {
    let options = [("--from", from), ("--until", until)];
    for (option, moment) in options {
        if let Some(moment @ Moment::In(_)) = moment {
            let write = moment
                .before(now)
                .map(|at| format!(", such as {}", at.to_rfc3339_opts(SecondsFormat::Secs, true)))
                .unwrap_or_default();
            let why = "a later run of the command must find the same range";
            return Err(Usage(format!("{option} must be a date or a time{write}: {why}")));
        }
    }
    let (from, until) = time::range(options[0], options[1], now)?;
    let from = from.ok_or_else(|| Usage("--from is missing".to_owned()))?;
    let in_future = [("--from", Some(from)), ("--until", until)].into_iter().find(|(_, time)| *time > Some(now));
    match in_future {
        Some((option, Some(time))) => {
            Err(Usage(format!("{option} {} is in the future: rows may still come", text(time))))
        }
        _ => Ok((from, until)),
    }
}

/// The end of the range that starts at `from`. `known` are the site's cursor and the cursors of its backfills.
///
/// Without `until`, it is the end that an earlier run of the command found. On the first run it is just after the
/// newest row that polling has recorded, because the app fetches later rows; it is now if the site was never polled.
///
/// # Errors
/// The range is empty.
pub fn end(
    from: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
    known: &[Cursor],
    now: DateTime<Utc>,
) -> anyhow::Result<DateTime<Utc>> {
    if let Some(until) = until {
        return Ok(until);
    }
    let of_from = known.iter().filter_map(|cursor| cursor.backfill.as_ref()).filter(|backfill| backfill.from == from);
    if let Some(backfill) = of_from.max_by_key(|backfill| (backfill.is_open(), backfill.until)) {
        return Ok(backfill.until);
    }
    let Some(cursor) = known.iter().find(|cursor| cursor.backfill.is_none()) else { return Ok(now) };
    let Some(newest) = cursor.last_value_from.map(|newest| (newest + TimeDelta::milliseconds(1)).min(now)) else {
        return Ok(now);
    };
    if newest <= from {
        bail!(
            "the newest row that is recorded of the site is of {}: the connector fetches what comes after it. For a range \
             after it give --until",
            text(newest - TimeDelta::milliseconds(1))
        );
    }
    Ok(newest)
}

pub use crate::cli::time::stamp as text;

#[cfg(test)]
mod tests {
    use iothub_connector::rapidm2m::ledger::{BackfillRange, SiteKey};

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn the_same_command_has_the_same_end() {
        let (from, now) = (time("2026-01-01T00:00:00Z"), time("2026-02-01T00:00:00Z"));
        let key = SiteKey { customer: "c".into(), site: "s".into() };
        assert_eq!(end(from, None, &[], now).unwrap(), now, "never polled");

        let mut polled = Cursor::new(&key);
        assert_eq!(end(from, None, &[polled.clone()], now).unwrap(), now, "no row yet");
        polled.last_value_from = Some(time("2026-01-20T00:00:00Z"));
        let behind = time("2026-01-20T00:00:00.001Z");
        assert_eq!(end(from, None, &[polled.clone()], now).unwrap(), behind);
        let backfill = Cursor::of_backfill(&key, BackfillRange { from, until: behind });
        polled.last_value_from = Some(time("2026-01-25T00:00:00Z"));
        assert_eq!(end(from, None, &[polled.clone(), backfill.clone()], now).unwrap(), behind);

        let mut done = Cursor::of_backfill(&key, BackfillRange { from, until: time("2026-01-22T00:00:00Z") });
        done.backfill.as_mut().unwrap().finished_at = Some(now);
        assert_eq!(
            end(from, None, &[done, polled.clone(), backfill], now).unwrap(),
            behind,
            "what is open comes first"
        );

        let after = time("2026-01-26T00:00:00Z");
        let error = end(after, None, &[polled.clone()], now).unwrap_err().to_string();
        assert!(error.contains("2026-01-25T00:00:00Z") && error.contains("--until"), "{error}");
        assert_eq!(end(after, Some(now), &[polled], now).unwrap(), now);
    }

    #[test]
    fn a_range_is_in_the_past_and_the_same_for_every_run() {
        let now = time("2026-02-01T00:00:00Z");
        let given = |from: &str, until: &str| {
            let moment = |text: &str| (!text.is_empty()).then(|| time::moment(text).unwrap());
            super::given(moment(from), moment(until), now).map_err(|error| error.to_string())
        };
        let from = time("2026-01-01T00:00:00Z");
        assert_eq!(given("2026-01-01", ""), Ok((from, None)));
        assert_eq!(given("2026-01-01", "2026-02-01"), Ok((from, Some(now))));
        for (range, said) in [
            (("2h", ""), "--from must be a date or a time, such as 2026-01-31T22:00:00Z: a later run"),
            (("2026-01-01", "1d"), "--until must be a date or a time, such as 2026-01-31T00:00:00Z"),
            (("2026-01-01", "2025-12-31"), "must be later than --from 2026-01-01T00:00:00Z"),
            (("2026-01-01", "2026-02-02"), "--until 2026-02-02T00:00:00Z is in the future"),
            (("2026-02-02", ""), "--from 2026-02-02T00:00:00Z is in the future"),
        ] {
            let error = given(range.0, range.1).unwrap_err();
            assert!(error.contains(said), "{range:?}: {error}");
        }
    }
}
