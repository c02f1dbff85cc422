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

/// The longest time between two attempts to have a site polled of which nothing is heard.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// What is known of a site since its last turn.
#[derive(Debug, Default)]
pub struct Asked {
    /// When it was last asked, and everything it had was recorded and forwarded.
    complete: Option<Complete>,
    /// A sweep found new rows, and the contact was this. The list may have been made just before the contact.
    unannounced: Option<Stamp>,
    handed_out: Option<HandedOut>,
}

/// Other instances were told to poll it, since it had this contact. Its cursor will say when they have recorded all of it.
#[derive(Debug)]
struct HandedOut {
    contact: Stamp,
    first: Instant,
    last: Instant,
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
        Self { complete, ..Self::default() }
    }

    /// Takes note of what is in the cursor now, whoever has written it.
    pub fn learn(&mut self, known: &Known, sweep: Duration, random: f64, now: Instant) {
        let contact = known.contact.filter(|_| known.waiting == 0);
        let Some(contact) = contact else { return self.complete = None };
        match &mut self.complete {
            Some(complete) if complete.contact == contact => {
                if known.newest > complete.newest {
                    self.unannounced = Some(contact);
                }
                complete.newest = known.newest;
                complete.name.clone_from(&known.name);
            }
            _ => {
                self.handed_out = None;
                let sweep_at = after(sweep, random, now);
                self.complete = Some(Complete { contact, name: known.name.clone(), sweep_at, newest: known.newest });
            }
        }
    }

    /// Takes note that other instances are told to poll it. Whether they do is not certain, so it is handed out again until its
    /// cursor says so, after waits that grow: a contact without rows changes no cursor.
    pub fn hand_out(&mut self, site: &Site, sweep: Duration, random: f64, now: Instant) {
        if let Some(complete) = &mut self.complete
            && complete.is_of(site)
        {
            complete.sweep_at = after(sweep, random, now);
            return;
        }
        let before = self.handed_out.take().filter(|before| site.contact == Some(before.contact));
        let first = before.map_or(now, |before| before.first);
        self.handed_out = site.contact.map(|contact| HandedOut { contact, first, last: now });
    }

    /// What the list says of the site.
    pub fn hint(&mut self, site: &Site, now: Instant) -> Hint {
        if let Some(unannounced) = self.unannounced.take()
            && site.contact == Some(unannounced)
        {
            return Hint::Wrong;
        }
        match &self.complete {
            Some(complete) if complete.is_of(site) && now < complete.sweep_at => {
                Hint::Quiet { newest: complete.newest }
            }
            _ => match &self.handed_out {
                Some(out) if site.contact == Some(out.contact) && now < out.again_at() => Hint::Quiet { newest: None },
                _ => Hint::Ask,
            },
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
            let sweep_at = after(sweep, random, now);
            self.handed_out = None;
            self.complete = Some(Complete { contact, name: site.name.clone(), sweep_at, newest: report.newest });
        }
    }
}

impl Complete {
    /// Whether nothing has happened since.
    fn is_of(&self, site: &Site) -> bool {
        site.contact == Some(self.contact) && site.name == self.name
    }
}

impl HandedOut {
    /// In the next run, then after 2, 4 and 8 runs, and so on.
    fn again_at(&self) -> Instant {
        self.last + (self.last - self.first).min(LONGEST_WAIT)
    }
}

/// When the next sweep is.
fn after(sweep: Duration, random: f64, now: Instant) -> Instant {
    now + sweep.mul_f64(1.0 + SPREAD * random)
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

    fn known(contact: i64, newest: i64) -> Known {
        let newest = Some(Stamp::BEGINNING.shifted(newest * 60_000).time());
        Known { name: "s".into(), contact: site(Some(contact)).contact, newest, ..Known::default() }
    }

    #[test]
    fn a_site_is_handed_out_until_its_cursor_says_that_its_contact_is_complete() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let mut handed_out = Vec::new();
        for minute in 0..30 {
            let at = now + minute * MINUTE;
            if asked.hint(&site(Some(1)), at) == Hint::Ask {
                asked.hand_out(&site(Some(1)), SWEEP, 0.0, at);
                handed_out.push(minute);
            }
        }
        assert_eq!(handed_out, [0, 1, 2, 4, 8, 13, 18, 23, 28], "nothing is heard of it");
        let now = now + 30 * MINUTE;
        assert_eq!(asked.hint(&site(Some(2)), now), Hint::Ask, "another contact");
        asked.hand_out(&site(Some(2)), SWEEP, 0.0, now);
        asked.learn(&known(1, 5), SWEEP, 0.0, now);
        assert_eq!(asked.hint(&site(Some(2)), now), Hint::Ask, "that of before is complete");
        asked.learn(&known(2, 7), SWEEP, 0.0, now);
        let newest = known(2, 7).newest;
        assert_eq!(asked.hint(&site(Some(2)), now + 14 * MINUTE), Hint::Quiet { newest });
        // A sweep that nobody carries out, and the next one.
        assert_eq!(asked.hint(&site(Some(2)), now + 15 * MINUTE), Hint::Ask);
        asked.hand_out(&site(Some(2)), SWEEP, 0.0, now + 15 * MINUTE);
        assert_eq!(asked.hint(&site(Some(2)), now + 29 * MINUTE), Hint::Quiet { newest });
        assert_eq!(asked.hint(&site(Some(2)), now + 30 * MINUTE), Hint::Ask);
        asked.learn(&Known { waiting: 1, ..known(2, 7) }, SWEEP, 0.0, now + 16 * MINUTE);
        assert_eq!(asked.hint(&site(Some(2)), now + 16 * MINUTE), Hint::Ask, "messages wait");
    }

    #[test]
    fn rows_that_other_instances_found_without_a_contact_show_that_the_hint_is_wrong() {
        for (then, contact, expected) in [
            (known(1, 6), 1, Hint::Wrong),
            // The list was made just before the contact.
            (known(1, 6), 2, Hint::Ask),
            // Late rows, or a mark.
            (known(1, 5), 1, Hint::Quiet { newest: known(1, 5).newest }),
            (known(2, 6), 2, Hint::Quiet { newest: known(2, 6).newest }),
        ] {
            let (mut asked, now) = (Asked::default(), Instant::now());
            asked.learn(&known(1, 5), SWEEP, 0.0, now);
            asked.learn(&then, SWEEP, 0.0, now);
            assert_eq!(asked.hint(&site(Some(contact)), now), expected, "{then:?}, {contact}");
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
