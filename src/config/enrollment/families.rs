//! Reads the enrollment settings with all their suffixes, finds faults in them and combines those that belong together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use secrecy::{ExposeSecret as _, SecretBox};

use super::connection_string;
use crate::{
    config::{Problems, Settings, dps},
    iot_hub::{
        Endpoint,
        devices::enrollment::{Enrollment, EnrollmentGroup, Enrollments, HubPolicy},
    },
};

const ID_SCOPE: &str = dps::ID_SCOPE[0];
const GROUP_KEY: &str = dps::GROUP_KEY[0];
/// The C# sample uses the first spelling. The second is spelt like the other settings.
pub const CONNECTION_STRING: [&str; 2] = ["AzureIotHubConnectionString", "AzureIoTHubConnectionString"];

/// A setting with one suffix.
struct Setting<'a, T> {
    name: &'a str,
    text: &'a str,
    /// `None` if the value is wrong.
    value: Option<T>,
}

/// A setting with all its suffixes. The key is the text after the first `-`; the default has the empty key.
type Family<'a, T> = BTreeMap<String, Setting<'a, T>>;

fn family<'a, T>(
    prefixes: &[&'static str],
    settings: &'a Settings,
    problems: &mut Problems,
    check: impl Fn(&str) -> Result<T, String>,
) -> Family<'a, T> {
    let mut family = Family::<T>::new();
    for (prefix, name) in prefixes.iter().flat_map(|prefix| settings.names_with(prefix).map(move |name| (prefix, name)))
    {
        let Some(suffix) = suffix(&name[prefix.len()..]) else {
            let text = format!(
                "is not a setting: write {prefix}Default, or {prefix}-{{application}} or {prefix}-{{application}}-{{port}} with an \
                 application's id, which has no capitals"
            );
            problems.add(name.to_owned(), text);
            continue;
        };
        let text = settings.get(name, problems).unwrap_or_default();
        if let Some(other) = family.get(&suffix) {
            if other.text != text {
                problems.add(other.name.to_owned(), format!("and {name} are both set and differ: remove one of them"));
            }
            continue;
        }
        // An empty value is already a problem.
        let checked = (!text.is_empty()).then(|| check(text).map_err(|why| problems.add(name.to_owned(), why)).ok());
        family.insert(suffix, Setting { name, text, value: checked.flatten() });
    }
    family
}

/// Extracts the suffix from a setting's name. `None` if the name is malformed.
pub fn suffix(text: &str) -> Option<String> {
    match text.replace("__", "-").as_str() {
        "" | "Default" => Some(String::new()),
        text => text.strip_prefix('-').filter(|suffix| is_of_application(suffix)).map(str::to_owned),
    }
}

/// Whether the suffix can be an application id, with or without a port: ids have no capitals.
fn is_of_application(suffix: &str) -> bool {
    !suffix.is_empty() && suffix.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_'))
}

/// The application, if the suffix ends in a port.
fn without_port(suffix: &str) -> Option<&str> {
    let (application, port) = suffix.rsplit_once('-')?;
    let is_port = port.parse::<u8>().is_ok_and(|number| number.to_string() == port);
    (is_port && !application.is_empty()).then_some(application)
}

/// The enrollment settings as they were read.
pub struct Families<'a> {
    scopes: Family<'a, String>,
    keys: Family<'a, SecretBox<Vec<u8>>>,
    hubs: Family<'a, HubPolicy>,
}

impl<'a> Families<'a> {
    pub fn read(settings: &'a Settings, problems: &mut Problems) -> Self {
        Self {
            scopes: family(&[ID_SCOPE], settings, problems, dps::check_id_scope),
            keys: family(&[GROUP_KEY], settings, problems, dps::check_group_key),
            hubs: family(&CONNECTION_STRING, settings, problems, connection_string::parse),
        }
    }

    /// The suffixes of ID scopes and group keys.
    fn of_dps(&self) -> BTreeSet<&str> {
        self.scopes.keys().chain(self.keys.keys()).map(String::as_str).collect()
    }

    /// The suffixes at which ID scope and group key are looked up, most specific first. A suffix that ends in a port
    /// has two chains: one as an application, one as an application with a port.
    fn chains(suffix: &str) -> impl Iterator<Item = Vec<&str>> {
        let of_port = without_port(suffix).map(|application| vec![suffix, application, ""]);
        [vec![suffix, ""]].into_iter().chain(of_port)
    }

    /// The most specific suffixes in the chain that have an ID scope and a group key.
    fn pair<'c>(&self, chain: &[&'c str]) -> (Option<&'c str>, Option<&'c str>) {
        let first = |is_there: &dyn Fn(&str) -> bool| chain.iter().copied().find(|suffix| is_there(suffix));
        (first(&|suffix| self.scopes.contains_key(suffix)), first(&|suffix| self.keys.contains_key(suffix)))
    }

    /// Checks the settings as a whole.
    pub fn check(&self, problems: &mut Problems) {
        if self.scopes.is_empty() && self.keys.is_empty() && self.hubs.is_empty() {
            let [connection_string, _] = CONNECTION_STRING;
            let text = format!(
                "is not set: devices of LoRaWAN applications need {ID_SCOPE}Default and {GROUP_KEY}Default, or \
                 {connection_string}Default (or each with -APPLICATION in place of Default)"
            );
            problems.add(format!("{ID_SCOPE}Default"), text);
        }
        for (suffix, hub) in &self.hubs {
            let beside = self.scopes.get(suffix).map(|scope| scope.name);
            if let Some(beside) = beside.or(self.keys.get(suffix).map(|key| key.name)) {
                let text =
                    format!("is set beside {beside}: devices come from the one or from the other, remove one of them");
                problems.add(hub.name.to_owned(), text);
            }
        }
        // One half of a pair is enough if a more specific suffix has the other half.
        let suffixes = self.of_dps();
        let pairs: Vec<_> =
            suffixes.iter().flat_map(|suffix| Self::chains(suffix)).map(|chain| self.pair(&chain)).collect();
        let is_used = |scope: Option<&str>, key: Option<&str>| {
            pairs.iter().any(|pair| match *pair {
                (Some(of_scope), Some(of_key)) => scope == Some(of_scope) || key == Some(of_key),
                _ => false,
            })
        };
        for (suffix, scope) in self.scopes.iter().filter(|(suffix, _)| !is_used(Some(suffix), None)) {
            problems.add(scope.name.to_owned(), lonely(suffix, &scope.name[ID_SCOPE.len()..], "group key", GROUP_KEY));
        }
        for (suffix, key) in self.keys.iter().filter(|(suffix, _)| !is_used(None, Some(suffix))) {
            problems.add(key.name.to_owned(), lonely(suffix, &key.name[GROUP_KEY.len()..], "ID scope", ID_SCOPE));
        }
    }

    /// Finds the enrollment for every suffix. `None` if a value is wrong.
    pub fn resolve(&self, endpoint: &Endpoint) -> Option<Enrollments> {
        let mut found =
            Enrollments { all: Vec::new(), ports: HashMap::new(), applications: HashMap::new(), default: None };
        let mut put = |chain: &[&str], enrollment: Enrollment| {
            let known = found.all.iter().position(|other: &Enrollment| other.is_same(&enrollment));
            let index = known.unwrap_or_else(|| {
                found.all.push(enrollment);
                found.all.len() - 1
            });
            match chain {
                ["", ..] => found.default = Some(index),
                [suffix, _, _] => drop(found.ports.insert((*suffix).to_owned(), index)),
                [suffix, ..] => drop(found.applications.insert((*suffix).to_owned(), index)),
                [] => {}
            }
        };
        for suffix in self.of_dps() {
            for chain in Self::chains(suffix) {
                let (Some(scope), Some(key)) = self.pair(&chain) else { continue };
                let (id_scope, key) = (self.scopes[scope].value.clone()?, self.keys[key].value.as_ref()?);
                let group_key = SecretBox::new(Box::new(key.expose_secret().clone()));
                put(&chain, Enrollment::Dps(EnrollmentGroup { endpoint: endpoint.clone(), id_scope, group_key }));
            }
        }
        for (suffix, hub) in &self.hubs {
            for chain in Self::chains(suffix) {
                put(&chain, Enrollment::Hub(hub.value.clone()?));
            }
        }
        Some(found)
    }
}

/// Advice for an ID scope without a group key, or a group key without an ID scope. `spelt` is the suffix as the name
/// has it.
fn lonely(suffix: &str, spelt: &str, what: &str, other: &str) -> String {
    let set = match suffix {
        "" => format!("{other}Default, or {other}-APPLICATION for each application"),
        _ => format!("{other}{spelt} or {other}Default"),
    };
    format!("is set, but no {what} goes with it: set {set}")
}
