//! Finds out which site is meant: connects the backend's list, the operator's names and the cursors in the ledger. Pure.
//!
//! A site's documents stay where they were first written (`Site_Id`), and the cursor holds its `_uid` (`Site_Uid`). So a
//! site that is renamed goes on where it was, and a site that gets a used name begins at a place of its own.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::{
    Stamp,
    gate::Refusals,
    ledger::{Cursor, SiteKey},
    site::{Listed, Site},
};

/// A site with a cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// `Site_Id` of its documents.
    pub place: String,
    pub uid: Option<String>,
    /// Its name when it was last polled.
    pub name: String,
    pub earlier_names: Vec<String>,
    /// How many messages wait for the hub.
    pub waiting: usize,
    /// The backend does not list it any more, and the cursor says so.
    pub is_gone: bool,
    /// The contact up to which all rows are recorded.
    pub contact: Option<Stamp>,
    /// Stamp of the newest recorded row.
    pub newest: Option<DateTime<Utc>>,
}

/// The sites of one customer that have a cursor, and what this process has learned since it read them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    customer: String,
    /// As the ledger has them.
    pub refused_logins: Refusals,
    /// Since when the contacts that the list tells are not trusted.
    pub contacts_wrong_since: Option<DateTime<Utc>>,
    /// When the newest of the cursors was written, by Cosmos DB's clock, in seconds.
    pub as_of: i64,
    /// Backfills with messages that wait for the hub.
    pub backfills: Vec<Cursor>,
    known: BTreeMap<String, Known>,
    place_of_uid: HashMap<String, String>,
}

/// Which sites are polled, and what a person should know about that.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub sites: Vec<Site>,
    /// One sentence for each name of `Site_ID` that does not mean what it did.
    pub remarks: Vec<String>,
}

impl Directory {
    #[must_use]
    pub fn new(customer: &str, known: impl IntoIterator<Item = Known>) -> Self {
        let mut directory = Self { customer: customer.to_owned(), ..Self::default() };
        known.into_iter().for_each(|known| directory.add(known));
        directory
    }

    fn add(&mut self, known: Known) {
        if let Some(uid) = &known.uid {
            self.place_of_uid.insert(uid.clone(), known.place.clone());
        }
        self.known.insert(known.place.clone(), known);
    }

    /// Notes that a site was polled, and how many of its messages wait now.
    pub fn learn(&mut self, site: &Site, waiting: usize) {
        let known = self.known.entry(site.key.site.clone()).or_default();
        let mut known = std::mem::take(known);
        known.place.clone_from(&site.key.site);
        let before = std::mem::replace(&mut known.name, site.name.clone());
        if before != site.name && !before.is_empty() {
            known.earlier_names.push(before);
        }
        known.uid = site.uid.clone().or(known.uid);
        (known.waiting, known.is_gone) = (waiting, false);
        self.add(known);
    }

    /// Takes over what another process has written into a cursor.
    pub fn update(&mut self, known: Known) {
        self.add(known);
    }

    pub fn set_waiting(&mut self, place: &str, waiting: usize) {
        if let Some(known) = self.known.get_mut(place) {
            known.waiting = waiting;
        }
    }

    /// What is known of the site whose documents are there.
    #[must_use]
    pub fn at(&self, place: &str) -> Option<&Known> {
        self.known.get(place)
    }

    /// How many messages of a site wait for the hub.
    #[must_use]
    pub fn waiting(&self, place: &str) -> usize {
        self.known.get(place).map_or(0, |known| known.waiting)
    }

    pub fn set_gone(&mut self, place: &str) {
        if let Some(known) = self.known.get_mut(place) {
            known.is_gone = true;
        }
    }

    /// All sites of the backend's list, each once. Sites that cannot be named in a path are left out.
    #[must_use]
    pub fn all(&self, listed: &[Listed]) -> Vec<Site> {
        let list = List::new(listed);
        let mut seen = HashSet::new();
        let sites = listed.iter().filter_map(|site| self.listed(site, &list, None));
        sites.filter(|site| seen.insert(site.key.site.clone())).collect()
    }

    /// The sites that the operator names, by name or `_uid`. `listed` is empty if the backend gave no list.
    #[must_use]
    pub fn named(&self, names: &[String], listed: &[Listed]) -> Resolved {
        let (list, mut resolved) = (List::new(listed), Resolved::default());
        let called = self.all_names();
        for name in names {
            if let Some(site) = list.by_uid.get(name.as_str()).and_then(|site| self.listed(site, &list, None)) {
                // Whoever names a site by its `_uid` reads this in its messages, too.
                resolved.sites.push(Site { name: name.clone(), ..site });
                continue;
            }
            let now = list.one_called(name).and_then(|site| self.listed(site, &list, Some(name)));
            // The site that this name has meant so far.
            let before = self.known.get(name).or_else(|| called.get(name.as_str()).copied());
            let renamed = before
                .and_then(|known| list.by_uid.get(known.uid.as_deref()?))
                .and_then(|site| self.listed(site, &list, None))
                .filter(|site| now.as_ref().is_none_or(|now| now.key != site.key));
            let called_now = |site: &Site| list.by_uid.get(site.path()).and_then(|site| site.called());
            if let Some(renamed) = renamed.as_ref().filter(|site| called_now(site) != Some(name)) {
                resolved.remarks.push(remark(name, renamed, now.is_some()));
            }
            if now.is_none() && renamed.is_none() {
                // The backend may know it all the same.
                let (place, uid) = before.map_or((name.as_str(), None), |known| (&known.place, known.uid.as_deref()));
                resolved.sites.push(self.site(place, name, uid));
            }
            resolved.sites.extend(now.into_iter().chain(renamed));
        }
        let mut seen = HashSet::new();
        resolved.sites.retain(|site| seen.insert(site.key.site.clone()));
        resolved
    }

    /// Sites whose messages wait for the hub and that are not polled (any more).
    #[must_use]
    pub fn orphans(&self, polled: &[Site]) -> Vec<&Known> {
        self.not_among(polled).filter(|known| known.waiting > 0).collect()
    }

    /// Sites that were polled, and that are not polled now.
    #[must_use]
    pub fn missing(&self, polled: &[Site]) -> Vec<&Known> {
        self.not_among(polled).filter(|known| !known.is_gone).collect()
    }

    /// How many sites have a cursor and are not gone.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.values().filter(|known| !known.is_gone).count()
    }

    /// Sites that a person may mean by a text: a name of today, a `_uid`, the place of documents, or an earlier name.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<&Known> {
        let all = |is_meant: &dyn Fn(&Known) -> bool| self.known.values().filter(|known| is_meant(known)).collect();
        let found: Vec<_> = all(&|known| known.name == text || known.uid.as_deref() == Some(text));
        if !found.is_empty() {
            return found;
        }
        all(&|known| known.place == text || known.earlier_names.iter().any(|name| name == text))
    }

    fn not_among<'a>(&'a self, polled: &[Site]) -> impl Iterator<Item = &'a Known> + use<'a> {
        let polled: HashSet<String> = polled.iter().map(|site| site.key.site.clone()).collect();
        self.known.values().filter(move |known| !polled.contains(&known.place))
    }

    /// The sites by all names that they had.
    fn all_names(&self) -> HashMap<&str, &Known> {
        let of = |known: &'_ Known| known.earlier_names.iter().chain([&known.name]).count();
        let mut names = HashMap::with_capacity(self.known.values().map(of).sum());
        for known in self.known.values() {
            names.extend(known.earlier_names.iter().chain([&known.name]).map(|name| (name.as_str(), known)));
        }
        names
    }

    fn site(&self, place: &str, name: &str, uid: Option<&str>) -> Site {
        let key = SiteKey { customer: self.customer.clone(), site: place.to_owned() };
        Site { key, name: name.to_owned(), uid: uid.map(str::to_owned), contact: None }
    }

    /// `named` is what the operator calls it.
    fn listed(&self, site: &Listed, list: &List<'_>, named: Option<&str>) -> Option<Site> {
        let (uid, called) = (site.uid(), site.called());
        let name = called.or(uid)?;
        let is_unique = called.is_some_and(|called| list.uses(called) == 1);
        let place = match uid {
            Some(uid) => self.place(uid, named.unwrap_or(name), is_unique),
            None => name,
        };
        // Of several sites with one name, only the one that had it first is called by it.
        let had_it = self.known.get(place).is_some_and(|known| known.name == name);
        let name = if is_unique || had_it { name } else { uid.unwrap_or(name) };
        Some(Site { contact: site.contact, ..self.site(place, name, uid) })
    }

    /// Where a site's documents are, or will be.
    fn place<'a>(&'a self, uid: &'a str, name: &'a str, is_unique: bool) -> &'a str {
        if let Some(place) = self.place_of_uid.get(uid) {
            return place;
        }
        // Cursors without `_uid`: earlier versions put a site's documents at its name, or at its `_uid` if another site
        // had the same name.
        let is_free = |place: &str| self.known.get(place).is_none_or(|known| known.uid.is_none());
        if self.known.contains_key(uid) || !is_unique || !is_free(name) { uid } else { name }
    }
}

fn remark(name: &str, renamed: &Site, has_namesake: bool) -> String {
    let (new, uid) = (&renamed.name, renamed.uid.as_deref().unwrap_or_default());
    if has_namesake {
        format!(
            "Site_ID names {name:?}: the site that was called so is called {new:?} now, and another site has the name. Both \
             are polled. To poll only one of them, name it by its _uid (that of {new:?} is {uid})"
        )
    } else {
        format!("Site_ID names {name:?}, which is called {new:?} now. It is polled all the same; correct Site_ID")
    }
}

/// The backend's list.
struct List<'a> {
    by_uid: HashMap<&'a str, &'a Listed>,
    by_name: HashMap<&'a str, Vec<&'a Listed>>,
}

impl<'a> List<'a> {
    fn new(listed: &'a [Listed]) -> Self {
        let by_uid = listed.iter().filter_map(|site| Some((site.uid()?, site))).collect();
        let mut by_name: HashMap<_, Vec<_>> = HashMap::with_capacity(listed.len());
        for site in listed {
            by_name.entry(site.called().unwrap_or_default()).or_default().push(site);
        }
        Self { by_uid, by_name }
    }

    fn uses(&self, name: &str) -> usize {
        self.by_name.get(name).map_or(0, Vec::len)
    }

    /// The only site with this name. If there is none: the only one whose name differs in upper and lower case alone.
    fn one_called(&self, name: &str) -> Option<&'a Listed> {
        let only = |sites: &[&'a Listed]| if let [site] = sites { Some(*site) } else { None };
        if let Some(sites) = self.by_name.get(name) {
            return only(sites);
        }
        let name = name.to_lowercase();
        let alike = self.by_name.iter().filter(|(other, _)| other.to_lowercase() == name);
        only(&alike.flat_map(|(_, sites)| sites.iter().copied()).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests;
