//! The customer's sites, and the rows that were added through the control endpoint.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, RwLock},
};

use chrono::Utc;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{generate, generate::Kind, stamp};

/// `histdata0` to `histdata9`.
pub const CONTAINERS: usize = 10;

/// One measuring site.
#[derive(Debug)]
pub struct Site {
    pub name: String,
    /// 16 hex digits; a path may name the site by it.
    pub uid: String,
    pub seed: u64,
    pub channels: Vec<Channel>,
    /// Whether container 0 has a made-up row per interval.
    pub generate: bool,
    rows: RwLock<[Arc<Vec<Arc<AddedRow>>>; CONTAINERS]>,
    contact: Mutex<Contact>,
}

/// When the site's device last had contact, as the list of sites tells it (`device.stamp`).
#[derive(Clone, Debug, Default)]
pub enum Contact {
    #[default]
    Never,
    /// Unix milliseconds: when rows were added.
    At(i64),
    /// As the control endpoint was told, whatever happens.
    Pinned(Option<String>),
}

#[derive(Clone, Debug)]
pub struct Channel {
    pub name: String,
    pub kind: Kind,
}

/// A row that was added through the control endpoint. Its values are served unchanged.
#[derive(Debug)]
pub struct AddedRow {
    /// Unix milliseconds. `None` if the stamp cannot be read.
    pub at: Option<i64>,
    whole: Box<RawValue>,
    /// The stamp and one value per channel. `None` if the row has another form: then it is served whole.
    cells: Option<Vec<Box<RawValue>>>,
}

impl Site {
    pub fn new(name: &str, channels: Vec<Channel>, generate: bool) -> Self {
        let seed = generate::seed(name);
        Self {
            name: name.to_owned(),
            uid: uid(name),
            seed,
            channels,
            generate,
            rows: RwLock::default(),
            contact: Mutex::default(),
        }
    }

    /// Position of a channel. The case of its name does not matter.
    pub fn channel(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.channels.iter().position(|channel| channel.name.to_lowercase() == name)
    }

    /// The added rows, oldest first; those without a readable stamp last.
    pub fn added(&self, container: usize) -> Arc<Vec<Arc<AddedRow>>> {
        self.rows.read().expect("no panic while locked")[container].clone()
    }

    pub fn pin(&self, contact: Option<String>) {
        *self.contact.lock().expect("no panic while locked") = Contact::Pinned(contact);
    }

    fn had_contact(&self) {
        let mut contact = self.contact.lock().expect("no panic while locked");
        if !matches!(*contact, Contact::Pinned(_)) {
            *contact = Contact::At(Utc::now().timestamp_millis());
        }
    }

    pub fn add(&self, container: usize, rows: Vec<Box<RawValue>>) {
        let rows = rows.into_iter().map(|row| Arc::new(AddedRow::new(row, self.channels.len())));
        let mut containers = self.rows.write().expect("no panic while locked");
        let all = Arc::make_mut(&mut containers[container]);
        all.extend(rows);
        all.sort_by_key(|row| (row.at.is_none(), row.at));
        self.had_contact();
    }

    /// As [`add`](Self::add), but the rows take the places of those with their stamps, as in a logger's container.
    pub fn put(&self, container: usize, rows: Vec<Box<RawValue>>) {
        let rows: Vec<_> = rows.into_iter().map(|row| Arc::new(AddedRow::new(row, self.channels.len()))).collect();
        let stamps: HashSet<i64> = rows.iter().filter_map(|row| row.at).collect();
        let mut containers = self.rows.write().expect("no panic while locked");
        let all = Arc::make_mut(&mut containers[container]);
        all.retain(|row| row.at.is_none_or(|at| !stamps.contains(&at)));
        all.extend(rows);
        all.sort_by_key(|row| (row.at.is_none(), row.at));
        self.had_contact();
    }

    pub fn clear(&self, container: Option<usize>) {
        let mut containers = self.rows.write().expect("no panic while locked");
        for (index, rows) in containers.iter_mut().enumerate() {
            if container.is_none_or(|wanted| wanted == index) {
                *rows = Arc::default();
            }
        }
    }

    /// `newest` is when the newest made-up row was made, if there is one. As the vendor's driver reads it.
    pub fn description(&self, customer: &str, newest: i64) -> Value {
        let contact = self.contact.lock().expect("no panic while locked").clone();
        let stamp = match (contact, self.generate.then_some(newest)) {
            (Contact::Pinned(stamp), _) => stamp,
            (Contact::At(at), made_up) => Some(digits(at.max(made_up.unwrap_or(at)))),
            (Contact::Never, made_up) => made_up.map(digits),
        };
        json!({
            "_uid": self.uid, "name": self.name, "site_id": self.name, "class": "site", "state": "active",
            "customer_id": customer,
            "device": {
                "_uid": uid(&format!("device of {}", self.name)), "state": "online", "stamp": stamp,
                "con": { "path": "tcp", "state": 1 }, "gsm": { "level": -71 },
            },
        })
    }

    /// Lists container 0 and every other container that has rows.
    pub fn blueprint(&self) -> Value {
        let mut fields: Map<String, Value> = Map::new();
        for channel in &self.channels {
            let (title, units) = channel.kind.title_and_units();
            fields.insert(channel.name.clone(), json!({ "title": title, "units": units }));
        }
        // The backend computes it from other fields: the blueprint lists it, but histdata has no such channel.
        fields.insert("calc0".to_owned(), json!({ "title": "Daily total", "units": "kWh", "formula": "sum(ch0)" }));
        let mut blueprint = Map::new();
        for container in 0..CONTAINERS {
            if container == 0 || !self.added(container).is_empty() {
                blueprint.insert(format!("histdata{container}"), Value::Object(fields.clone()));
            }
        }
        blueprint.insert("config0".to_owned(), json!({ "interval": { "title": "Record interval", "units": "s" } }));
        Value::Object(blueprint)
    }
}

impl AddedRow {
    fn new(whole: Box<RawValue>, channels: usize) -> Self {
        let cells: Vec<Box<RawValue>> = serde_json::from_str(whole.get()).unwrap_or_default();
        let stamp = cells.first().and_then(|first| serde_json::from_str::<String>(first.get()).ok());
        let at = stamp.and_then(|stamp| stamp::parse(&stamp)).filter(|bound| bound.exact).map(|bound| bound.ms);
        let fits = at.is_some() && cells.len() == channels + 1;
        Self { at, whole, cells: fits.then_some(cells) }
    }

    /// Writes the row with the values of `columns`, or whole if its values do not match the channels.
    pub fn write(&self, columns: &[usize], quoted: bool, out: &mut Vec<u8>) {
        let Some((stamp, values)) = self.cells.as_ref().and_then(|cells| cells.split_first()) else {
            out.extend_from_slice(self.whole.get().as_bytes());
            return;
        };
        out.push(b'[');
        out.extend_from_slice(stamp.get().as_bytes());
        for &column in columns {
            out.push(b',');
            let value = values[column].get();
            let quoted = quoted && value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            let text = if quoted { to_raw_value(value).ok() } else { None };
            out.extend_from_slice(text.as_ref().map_or(value, |text| text.get()).as_bytes());
        }
        out.push(b']');
    }
}

/// All sites, found by name or `_uid`.
#[derive(Debug, Default)]
pub struct Sites {
    all: Vec<Arc<Site>>,
    index: HashMap<String, Arc<Site>>,
}

impl Sites {
    /// `false` if a site of that name exists already.
    pub fn add(&mut self, mut site: Site) -> bool {
        if self.index.get(&site.name).is_some_and(|known| known.name == site.name) {
            return false;
        }
        // A site that had this name has kept its `_uid`.
        while self.index.contains_key(&site.uid) {
            site.uid = uid(&site.uid);
        }
        self.all.push(Arc::new(site));
        self.list(self.all.len() - 1);
        true
    }

    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|site| site.name != name);
        self.list_all();
        self.all.len() < before
    }

    /// Gives a site another name; its `_uid` and rows stay. `false` if there is no such site, or one of the new name.
    pub fn rename(&mut self, name: &str, new: &str) -> bool {
        if self.all.iter().any(|site| site.name == new) {
            return false;
        }
        let Some(site) = self.all.iter_mut().find(|site| site.name == name) else { return false };
        let rows = RwLock::new(site.rows.read().expect("no panic while locked").clone());
        let Site { uid, seed, channels, generate, .. } = &**site;
        let (uid, channels) = (uid.clone(), channels.clone());
        let contact = Mutex::new(site.contact.lock().expect("no panic while locked").clone());
        *site = Arc::new(Site { name: new.to_owned(), uid, seed: *seed, channels, generate: *generate, rows, contact });
        self.list_all();
        true
    }

    fn list_all(&mut self) {
        self.index.clear();
        for position in 0..self.all.len() {
            self.list(position);
        }
    }

    pub fn find(&self, name_or_uid: &str) -> Option<&Arc<Site>> {
        self.index.get(name_or_uid)
    }

    pub fn all(&self) -> &[Arc<Site>] {
        &self.all
    }

    fn list(&mut self, position: usize) {
        let site = &self.all[position];
        self.index.entry(site.uid.clone()).or_insert_with(|| site.clone());
        // A name takes precedence over another site's `_uid`.
        self.index.insert(site.name.clone(), site.clone());
    }
}

/// The `_uid` for a name. It is the same in every run.
pub fn uid(name: &str) -> String {
    format!("{:016x}", generate::seed(name))
}

fn digits(ms: i64) -> String {
    let mut digits = Vec::new();
    stamp::write(ms, &mut digits);
    String::from_utf8_lossy(&digits).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let channel = |name: &str| Channel { name: name.to_owned(), kind: Kind::Counter };
        Site::new("Well 7 / Level", vec![channel("ch0"), channel("ch1")], false)
    }

    fn served(row: &str, columns: &[usize], quoted: bool) -> String {
        let site = site();
        site.add(3, vec![RawValue::from_string(row.to_owned()).unwrap()]);
        let mut out = Vec::new();
        site.added(3)[0].write(columns, quoted, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_picked_by_position_and_kept_to_the_letter() {
        assert_eq!(served(r#"["2017012613300", 5.10e3, "NAN"]"#, &[1, 0], false), r#"["2017012613300","NAN",5.10e3]"#);
        assert_eq!(served(r#"["20170126133",-5.1,null]"#, &[0, 1], true), r#"["20170126133","-5.1",null]"#);
    }

    #[test]
    fn a_row_that_does_not_match_is_served_whole() {
        for row in [r#"["20170126133",1]"#, r#"["20170126133",1,2,3]"#, r#"["yesterday",1,2]"#, "null", "[]", "{}"] {
            assert_eq!(served(row, &[1], true), row);
        }
    }

    #[test]
    fn rows_are_sorted_by_time_with_the_unreadable_last() {
        let site = site();
        site.add(0, vec![RawValue::from_string(r#"["x",1,2]"#.to_owned()).unwrap()]);
        site.add(0, vec![RawValue::from_string(r#"["20170102",1,2]"#.to_owned()).unwrap()]);
        site.add(0, vec![RawValue::from_string(r#"["20170101",1,2]"#.to_owned()).unwrap()]);
        let at: Vec<_> = site.added(0).iter().map(|row| row.at).collect();
        assert_eq!(at, [Some(1_483_228_800_000), Some(1_483_315_200_000), None]);
    }

    #[test]
    fn a_site_is_found_by_name_and_uid_until_it_is_removed() {
        let mut sites = Sites::default();
        assert!(sites.add(site()));
        assert!(!sites.add(site()), "names are unique");
        let uid = sites.find("Well 7 / Level").unwrap().uid.clone();
        assert_eq!(sites.find(&uid).unwrap().name, "Well 7 / Level");
        assert!(sites.rename("Well 7 / Level", "Shaft") && !sites.rename("Well 7 / Level", "x"));
        assert_eq!(
            (&sites.find(&uid).unwrap().name, sites.find("Well 7 / Level").is_none()),
            (&"Shaft".to_owned(), true)
        );
        assert!(!sites.rename("Shaft", "Shaft"), "names are unique");
        assert!(sites.add(self::site()));
        assert_ne!(sites.find("Well 7 / Level").unwrap().uid, uid, "a namesake is another site");
        assert!(sites.remove("Well 7 / Level"));
        assert!(sites.rename("Shaft", "Well 7 / Level"));
        assert!(sites.remove("Well 7 / Level"));
        assert!(sites.find(&uid).is_none());
        assert!(!sites.remove("Well 7 / Level"));
    }
}
