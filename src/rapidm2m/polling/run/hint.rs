//! Asks only sites that may have news. The backend's list tells when each site's device last had contact (`device.stamp`). What
//! that means exactly is not documented, so it is only a hint: sites without a new contact are asked now and then (a sweep),
//! and if that finds new rows, the hint is not used any more. Decisions only; times are arguments.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::rapidm2m::{Site, Stamp, directory::Known, polling::Report};

/// Sweeps are spread: each comes up to this part of the time later.
const SPREAD: f64 = 0.5;

/// The usual time between two runs. If each run is another process, so many sites have their sweep in it.
const RUN: Duration = Duration::from_secs(60);

/// What is known of a site since its last turn.
#[derive(Debug, Default)]
pub struct Asked {
    /// When it was last asked, and everything it had was recorded and forwarded.
    complete: Option<Complete>,
    /// A sweep found new rows, and the contact was this. The list may have been made just before the contact.
    unannounced: Option<Stamp>,
}

#[derive(Debug)]
struct Complete {
    contact: Stamp,
    name: String,
    sweep_at: Instant,
    newest: Option<DateTime<Utc>>,
}

/// What the hint says of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It may have news.
    Ask,
    /// It had no contact since it was asked. Its newest row has this time.
    Quiet { newest: Option<DateTime<Utc>> },
    /// It had new rows without a contact: the hint is wrong.
    Wrong,
}

impl Asked {
    /// What an earlier process left in the cursor. `random` is between 0 and 1: not all sites have their sweep in one run.
    pub fn of(known: &Known, sweep: Duration, random: f64, now: Instant) -> Self {
        let is_due = random <= RUN.as_secs_f64() / sweep.as_secs_f64();
        let sweep_at = if is_due { now } else { now + sweep.mul_f64(random) };
        let complete = known.contact.filter(|_| known.waiting == 0).map(|contact| Complete {
            contact,
            name: known.name.clone(),
            sweep_at,
            newest: known.newest,
        });
        Self { complete, unannounced: None }
    }

    /// What the list says of the site.
    pub fn hint(&mut self, site: &Site, now: Instant) -> Hint {
        if let Some(unannounced) = self.unannounced.take()
            && site.contact == Some(unannounced)
        {
            return Hint::Wrong;
        }
        match &self.complete {
            Some(complete)
                if site.contact == Some(complete.contact) && site.name == complete.name && now < complete.sweep_at =>
            {
                Hint::Quiet { newest: complete.newest }
            }
            _ => Hint::Ask,
        }
    }

    /// Takes note of a turn. `random` is between 0 and 1.
    pub fn note(&mut self, site: &Site, report: &Report, sweep: Duration, random: f64, now: Instant) {
        let new_rows = report.rows_recorded.saturating_sub(report.late_rows + report.corrected_rows);
        let before = self.complete.take();
        let Some(contact) = site.contact else { return };
        if before.is_some_and(|before| before.contact == contact) && new_rows > 0 {
            self.unannounced = Some(contact);
        }
        let is_complete = report.failures.is_empty()
            && report.rejections.is_empty()
            && report.held.is_none()
            && report.has_cursor
            && !(report.is_behind || report.lost_race || report.is_provisioning)
            && report.waiting + report.rows_ahead == 0;
        if is_complete {
            let sweep_at = now + sweep.mul_f64(1.0 + SPREAD * random);
            self.complete = Some(Complete { contact, name: site.name.clone(), sweep_at, newest: report.newest });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rapidm2m::ledger::SiteKey;

    const MINUTE: Duration = Duration::from_secs(60);
    const SWEEP: Duration = Duration::from_secs(15 * 60);

    fn site(contact: Option<i64>) -> Site {
        let key = SiteKey { customer: "c".into(), site: "s".into() };
        Site { contact: contact.map(|minute| Stamp::BEGINNING.shifted(minute * 60_000)), ..Site::of_key(key) }
    }

    fn report() -> Report {
        Report { has_cursor: true, requests: 1, ..Report::default() }
    }

    fn quiet() -> Hint {
        Hint::Quiet { newest: None }
    }

    #[test]
    fn a_site_is_asked_when_its_contact_moves_and_in_a_sweep() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        assert_eq!(asked.hint(&site(Some(1)), now), Hint::Ask, "never asked");
        asked.note(&site(Some(1)), &Report { rows_recorded: 5, ..report() }, SWEEP, 0.0, now);
        assert_eq!(asked.hint(&site(Some(1)), now + 14 * MINUTE), quiet());
        assert_eq!(asked.hint(&site(Some(1)), now + 15 * MINUTE), Hint::Ask, "a sweep");
        assert_eq!(asked.hint(&site(Some(2)), now + MINUTE), Hint::Ask, "a contact");
        assert_eq!(asked.hint(&site(Some(0)), now + MINUTE), Hint::Ask, "any change");
        assert_eq!(asked.hint(&site(None), now + MINUTE), Hint::Ask, "no hint");
        assert_eq!(asked.hint(&Site { name: "t".into(), ..site(Some(1)) }, now), Hint::Ask, "renamed");
        asked.note(&site(Some(1)), &report(), SWEEP, 1.0, now);
        assert_eq!(asked.hint(&site(Some(1)), now + 22 * MINUTE), quiet(), "sweeps are spread");
        assert_eq!(asked.hint(&site(Some(1)), now + 23 * MINUTE), Hint::Ask);
        asked.note(&site(None), &report(), SWEEP, 1.0, now);
        assert_eq!(asked.hint(&site(None), now), Hint::Ask);
    }

    #[test]
    fn a_process_goes_on_where_the_one_before_left_off() {
        let now = Instant::now();
        let known = Known { name: "s".into(), contact: site(Some(1)).contact, ..Known::default() };
        assert_eq!(Asked::of(&known, SWEEP, 1.0, now).hint(&site(Some(1)), now), quiet());
        assert_eq!(Asked::of(&known, SWEEP, 1.0, now).hint(&site(Some(2)), now), Hint::Ask);
        let due = |random| Asked::of(&known, SWEEP, random, now).hint(&site(Some(1)), now) == Hint::Ask;
        let count = (0..1500).filter(|number| due(f64::from(*number) / 1500.0)).count();
        assert_eq!(count, 101, "one in fifteen: if each minute has a process of its own, each site has its sweep");
        let waits = Known { waiting: 1, ..known };
        assert_eq!(Asked::of(&waits, SWEEP, 1.0, now).hint(&site(Some(1)), now), Hint::Ask);
        assert_eq!(Asked::of(&Known::default(), SWEEP, 1.0, now).hint(&site(None), now), Hint::Ask);
    }

    #[test]
    fn a_site_with_something_left_to_do_is_asked() {
        for left in [
            Report { waiting: 1, ..report() },
            Report { rows_ahead: 1, ..report() },
            Report { is_behind: true, ..report() },
            Report { is_provisioning: true, ..report() },
            Report { lost_race: true, ..report() },
            Report { has_cursor: false, ..report() },
            Report { failures: vec![crate::rapidm2m::polling::Failure::new("connect".into(), "")], ..report() },
        ] {
            let (mut asked, now) = (Asked::default(), Instant::now());
            asked.note(&site(Some(1)), &report(), SWEEP, 1.0, now);
            asked.note(&site(Some(1)), &left, SWEEP, 1.0, now);
            assert_eq!(asked.hint(&site(Some(1)), now), Hint::Ask, "{left:?}");
        }
    }

    #[test]
    fn new_rows_without_a_contact_show_that_the_hint_is_wrong() {
        let new = |rows_recorded, late_rows| Report { rows_recorded, late_rows, ..report() };
        for (found, contact, expected) in [
            (new(1, 0), 1, Hint::Wrong),
            // The list was made just before the contact.
            (new(1, 0), 2, Hint::Ask),
            // Somebody filled a gap, or corrected a value, without the device.
            (new(1, 1), 1, quiet()),
            (new(0, 0), 1, quiet()),
        ] {
            let (mut asked, now) = (Asked::default(), Instant::now());
            asked.note(&site(Some(1)), &new(9, 0), SWEEP, 1.0, now);
            asked.note(&site(Some(1)), &found, SWEEP, 1.0, now);
            assert_eq!(asked.hint(&site(Some(contact)), now), expected, "{found:?}, {contact}");
        }
    }
}
