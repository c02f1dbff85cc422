//! Looks for rows of a logger whose clock was reset. Such a clock starts at the end of 1999, so its rows are far behind the
//! window that is polled. They are counted and told, not forwarded: their times are wrong.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::{
    turn::{EndTurn, Turn, read_rows},
    world::World,
};
use crate::rapidm2m::{Stamp, client::Range, window::SOFT_BODY_LIMIT};

/// How often the backend is asked for them.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// How soon again if the device had contact and brought no new row.
const AFTER_CONTACT: Duration = Duration::from_secs(10 * 60);

/// The times that such rows have: from the day before the clock's start to the end of 2000.
const SINCE: Stamp = Stamp::BEGINNING;
const UNTIL: &str = "20010101";

/// When to look, of one site. Losing it costs a request.
#[derive(Clone, Copy, Default)]
pub struct Looking {
    next: Option<Instant>,
    next_after_contact: Option<Instant>,
    contact: Option<Stamp>,
}

/// Omits the times: what a turn does to rows does not depend on them, so states that differ only in them count as the same.
impl fmt::Debug for Looking {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Looking").finish_non_exhaustive()
    }
}

impl Looking {
    /// Whether to look now.
    fn is_due(&mut self, contact: Option<Stamp>, has_new_rows: bool) -> bool {
        let now = Instant::now();
        // Not all sites in the same run.
        let next = *self.next.get_or_insert_with(|| now + EVERY.mul_f64(fastrand::f64()));
        let had_contact = self.contact.is_some() && contact > self.contact;
        self.contact = contact.or(self.contact);
        let is_odd = had_contact && !has_new_rows && self.next_after_contact.is_none_or(|next| now >= next);
        if is_odd {
            self.next_after_contact = Some(now + AFTER_CONTACT);
        }
        if now < next && !is_odd {
            return false;
        }
        self.next = Some(now + EVERY);
        true
    }
}

impl<W: World> Turn<'_, W> {
    /// Asks for such rows, if it is time for that. A failure is not a matter: the next look comes.
    pub async fn look_for_a_reset_clock(&mut self, channels: &[String]) -> Result<(), EndTurn> {
        let until = Stamp::parse(UNTIL).unwrap_or(SINCE);
        let has_new_rows = self.report.rows_recorded > 0;
        if !self.memory.looking.is_due(self.site.contact, has_new_rows)
            || Instant::now() >= self.limits.ask_until
            || self.committed.cursor.last_value_from.is_none_or(|newest| newest < until.time())
        {
            return Ok(());
        }
        let range = Range::Window { from: SINCE, until: Some(until) };
        let (_, answer) = self.ask(self.forwarder.world.now(), channels, range, SOFT_BODY_LIMIT).await;
        let Ok(answer) = answer else { return Ok(()) };
        let Ok(rows) = read_rows(answer.body, channels.len()).await else { return Ok(()) };
        let count = rows.rows.iter().filter(|row| row.stamp < until).count() as u64;
        let known = self.committed.cursor.activity.as_ref().map_or(0, |activity| activity.reset_rows);
        if count <= known {
            return Ok(());
        }
        self.report.reset_rows = usize::try_from(count - known).unwrap_or(usize::MAX);
        let mut cursor = self.committed.cursor.clone();
        cursor.activity.get_or_insert_default().reset_rows = count;
        self.commit(&[], &[], cursor).await.map_err(|error| self.stop(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_such_rows_are_in_the_window() {
        let until = Stamp::parse(UNTIL).unwrap();
        let first = Stamp::parse("19991231").unwrap();
        assert!(SINCE < first && first < until);
        assert_eq!(until.rfc3339(), "2001-01-01T00:00:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_due_each_hour_and_soon_after_a_contact_without_rows() {
        let mut looking = Looking::default();
        let at = |minute: i64| Some(Stamp::BEGINNING.shifted(minute * 60_000));
        assert!(!looking.is_due(None, false), "time stands still");
        tokio::time::advance(EVERY).await;
        assert!(looking.is_due(at(0), false) && !looking.is_due(at(0), false));
        assert!(!looking.is_due(at(1), true), "it brought rows");
        assert!(looking.is_due(at(2), false) && !looking.is_due(at(3), false), "not with each contact");
        tokio::time::advance(AFTER_CONTACT).await;
        assert!(looking.is_due(at(4), false));
        tokio::time::advance(EVERY).await;
        assert!(looking.is_due(None, false));
    }
}
