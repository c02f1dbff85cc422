//! Finds the range of a site's backfill. The same command must always find the same range, because otherwise it could
//! not resume.

use anyhow::{bail, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use iothub_connector::rapidm2m::ledger::Cursor;

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
        ensure!(from < until, "--until {} is not behind --from {}", text(until), text(from));
        ensure!(until <= now, "--until {} lies in the future: rows may still come", text(until));
        return Ok(until);
    }
    ensure!(from < now, "--from {} lies in the future", text(from));
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
            "the newest row that is recorded of the site is of {}: what comes after it is fetched by the app. For a range \
             behind it give --until",
            text(newest - TimeDelta::milliseconds(1))
        );
    }
    Ok(newest)
}

pub fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

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
        assert!(end(from, Some(from), &[], now).is_err());
        assert!(end(from, Some(now + TimeDelta::milliseconds(1)), &[], now).is_err());
        assert!(end(now, None, &[], now).is_err());
    }
}
