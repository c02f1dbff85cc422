//! Brings a cursor up to date with what is known of its site: `_uid`, name, container. Pure.

use crate::rapidm2m::{Site, ledger::Cursor};

/// How many earlier names are kept.
const EARLIER_NAMES: usize = 8;

/// What a cursor did not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The cursor is of an earlier version, or the backend tells a `_uid` for the first time.
    Uid,
    /// The name that it had.
    Renamed(String),
    /// The container that was polled before.
    Histdata(u8),
    /// The backend does not list the site any more.
    Gone { waiting: usize },
    /// The backend lists the site again.
    Back,
}

/// The documents belong to another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub uid: String,
}

/// Changes the cursor to what is known now. Returns what is new.
///
/// # Errors
/// It is another site's cursor.
pub fn update(cursor: &mut Cursor, site: &Site, histdata: u8) -> Result<Vec<News>, Taken> {
    if let (Some(theirs), Some(ours)) = (&cursor.site_uid, &site.uid)
        && theirs != ours
    {
        return Err(Taken { uid: theirs.clone() });
    }
    let mut news = Vec::new();
    if cursor.site_uid.is_none() && site.uid.is_some() {
        cursor.site_uid.clone_from(&site.uid);
        news.push(News::Uid);
    }
    if cursor.name() != site.name {
        let before = cursor.name().to_owned();
        cursor.earlier_names.retain(|name| *name != before && *name != site.name);
        cursor.earlier_names.push(before.clone());
        let over = cursor.earlier_names.len().saturating_sub(EARLIER_NAMES);
        cursor.earlier_names.drain(..over);
        cursor.site_name = site.other_name().cloned();
        news.push(News::Renamed(before));
    }
    if cursor.gone_since.take().is_some() {
        news.push(News::Back);
    }
    match cursor.histdata.replace(histdata) {
        Some(before) if before != histdata => {
            if let Some(newest) = cursor.last_value_from {
                cursor.other_histdata.insert(before, newest);
            }
            cursor.last_value_from = cursor.other_histdata.remove(&histdata);
            (cursor.recorded, cursor.scanned_until, cursor.contact) = (None, None, None);
            news.push(News::Histdata(before));
        }
        _ => {}
    }
    Ok(news)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::rapidm2m::ledger::SiteKey;

    fn site(uid: Option<&str>, name: &str) -> Site {
        let key = SiteKey { customer: "c".into(), site: "Well".into() };
        Site { key, name: name.into(), uid: uid.map(Into::into), contact: None }
    }

    fn cursor() -> Cursor {
        let mut cursor = Cursor::new(&site(None, "Well").key);
        assert_eq!(update(&mut cursor, &site(Some("A1"), "Well"), 0), Ok(vec![News::Uid]));
        cursor
    }

    #[test]
    fn a_name_changes_and_the_uid_stays() {
        let mut cursor = cursor();
        let before = cursor.clone();
        assert_eq!(update(&mut cursor, &site(Some("A1"), "Well"), 0), Ok(Vec::new()));
        assert_eq!(update(&mut cursor, &site(None, "Well"), 0), Ok(Vec::new()), "no list for once");
        assert_eq!(cursor, before);
        assert_eq!(update(&mut cursor, &site(Some("A1"), "Shaft"), 0), Ok(vec![News::Renamed("Well".into())]));
        assert_eq!((cursor.name(), cursor.earlier_names.as_slice()), ("Shaft", ["Well".to_owned()].as_slice()));
        assert_eq!(update(&mut cursor, &site(Some("A1"), "Well"), 0), Ok(vec![News::Renamed("Shaft".into())]));
        assert_eq!((cursor.site_name, cursor.earlier_names), (None, vec!["Shaft".to_owned()]));
        for number in 0..20 {
            update(&mut cursor_named(number), &site(Some("A1"), "x"), 0).unwrap();
        }
    }

    fn cursor_named(number: usize) -> Cursor {
        let mut cursor = cursor();
        for name in 0..number {
            update(&mut cursor, &site(Some("A1"), &name.to_string()), 0).unwrap();
            assert!(cursor.earlier_names.len() <= EARLIER_NAMES);
        }
        cursor
    }

    #[test]
    fn another_sites_cursor_is_left_alone() {
        let mut cursor = cursor();
        assert_eq!(update(&mut cursor, &site(Some("A2"), "Well"), 0), Err(Taken { uid: "A1".into() }));
        assert_eq!(cursor.site_uid.as_deref(), Some("A1"));
    }

    #[test]
    fn each_container_has_its_own_position() {
        let (mut cursor, zero) = (cursor(), DateTime::<Utc>::UNIX_EPOCH);
        cursor.last_value_from = Some(zero);
        assert_eq!(update(&mut cursor, &site(None, "Well"), 1), Ok(vec![News::Histdata(0)]));
        assert_eq!(cursor.last_value_from, None);
        cursor.last_value_from = Some(DateTime::<Utc>::MAX_UTC);
        assert_eq!(update(&mut cursor, &site(None, "Well"), 0), Ok(vec![News::Histdata(1)]));
        assert_eq!(cursor.last_value_from, Some(zero));
        assert_eq!(cursor.other_histdata.get(&1), Some(&DateTime::<Utc>::MAX_UTC));
    }

    #[test]
    fn a_site_that_is_back_is_told() {
        let mut cursor = cursor();
        cursor.gone_since = Some(DateTime::<Utc>::UNIX_EPOCH);
        assert_eq!(update(&mut cursor, &site(None, "Well"), 0), Ok(vec![News::Back]));
        assert_eq!(cursor.gone_since, None);
    }
}
