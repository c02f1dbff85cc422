//! Reads single settings and collects their faults in one message.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    ops::{Bound, RangeInclusive},
    path::Path,
};

use secrecy::SecretString;

use super::host_json::{self, Limits};
use crate::support::identity::SignIn;

/// The start of a Key Vault reference. Azure leaves it in place if it could not replace it with the secret.
/// <https://learn.microsoft.com/azure/app-service/app-service-key-vault-references>
const UNRESOLVED: &str = "@Microsoft.KeyVault(";
/// In each value of local.settings.json.example that is to be filled in.
const PLACEHOLDER: &str = "REPLACEwith";
const FILL_IN: &str =
    "must be filled in: replace the placeholder of local.settings.json.example, or remove the setting";

/// `local` sets it for its handler: commands that people copy from the status page then need `--local`.
pub const LOCAL_SESSION: &str = "LOCAL_SESSION";

/// The settings by name: a copy of the environment, so that the code reads the environment only once.
#[derive(Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// The identity that signs in to services without a key.
    pub sign_in: SignIn,
    pub host: Limits,
    /// Of the timer, in its function.json.
    schedule: Option<String>,
    /// The names that were read.
    #[cfg(test)]
    asked: std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<String>>>,
}

impl Settings {
    /// The environment, and what host.json and function.json say in the current folder: the host starts the handler in the app's
    /// folder.
    #[must_use]
    pub fn from_env() -> Self {
        let utf8 =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let folder = Path::new(".");
        Self { host: Limits::of(folder), schedule: host_json::schedule(folder), ..utf8.collect() }
    }

    /// Whether the Functions host runs on a developer's machine (`func start`).
    /// <https://learn.microsoft.com/azure/azure-functions/functions-app-settings#azure_functions_environment>
    #[must_use]
    pub fn is_development(&self) -> bool {
        let environment = self.value("AZURE_FUNCTIONS_ENVIRONMENT");
        environment.is_some_and(|value| value.trim().eq_ignore_ascii_case("Development"))
    }

    /// What people see of the place where the handler runs.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        Surroundings { is_local_session: self.has(LOCAL_SESSION), schedule: self.schedule.clone() }
    }

    /// Adds the entries of `defaults` that are absent here.
    #[must_use]
    pub fn or(mut self, defaults: BTreeMap<String, String>) -> Self {
        for (name, value) in defaults {
            self.values.entry(name).or_insert(value);
        }
        self
    }

    /// For a command's settings: the user who runs the command signs in.
    #[must_use]
    pub fn of_person(mut self) -> Self {
        self.sign_in = SignIn::Person;
        self
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value without surrounding white space. `None` if the setting is absent or unusable; an empty value or an
    /// unresolved Key Vault reference is a problem.
    pub fn get(&self, name: &str, problems: &mut Problems) -> Option<&str> {
        let value = self.value(name)?.trim();
        if value.is_empty() {
            problems.add(name.to_owned(), "is set but empty: give it a value or remove it");
            return None;
        }
        if value.starts_with(UNRESOLVED) {
            let text = "is a Key Vault reference that Azure could not resolve: look at it in the portal, under the app's \
                        environment variables, and check that the app's identity may read the secret";
            problems.add(name.to_owned(), text);
            return None;
        }
        if value.contains(PLACEHOLDER) {
            problems.add(name.to_owned(), FILL_IN);
            return None;
        }
        Some(value)
    }

    fn value(&self, name: &str) -> Option<&String> {
        #[cfg(test)]
        self.asked.lock().unwrap().insert(name.to_owned());
        self.values.get(name)
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> std::collections::BTreeSet<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The names of the settings that begin with `prefix`, in order.
    pub fn names_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        #[cfg(test)]
        self.asked.lock().unwrap().insert(prefix.to_owned());
        let names =
            self.values.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).map(|(name, _)| name.as_str());
        names.take_while(move |name| name.starts_with(prefix))
    }

    /// Whether the setting has a value that is not empty.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !value.trim().is_empty())
    }

    /// Like [`get`](Self::get), but absence is a problem; `purpose` says what the setting is for.
    pub fn required(&self, name: &'static str, purpose: &str, problems: &mut Problems) -> Option<&str> {
        if self.value(name).is_none() {
            problems.add(name, format!("is not set: {purpose}"));
            return None;
        }
        self.get(name, problems)
    }

    pub fn secret(&self, name: &'static str, problems: &mut Problems) -> Option<SecretString> {
        self.get(name, problems).map(SecretString::from)
    }

    /// Reads `true` or `false` in upper or lower case.
    pub fn flag(&self, name: &'static str, default: bool, problems: &mut Problems) -> bool {
        match self.get(name, problems) {
            None => default,
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            Some(value) => {
                problems.add(name, format!("is {value:?}: write true or false"));
                default
            }
        }
    }

    /// Reads a whole number within `range`.
    pub fn number(&self, name: &'static str, default: u64, range: RangeInclusive<u64>, problems: &mut Problems) -> u64 {
        let Some(value) = self.get(name, problems) else { return default };
        match value.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                problems
                    .add(name, format!("is {value:?}: write a whole number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }
}

impl IntoIterator for Settings {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { values, ..Self::default() }
    }
}

/// Where the handler runs. For people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `local` runs the handler, with emulated services only.
    pub is_local_session: bool,
    /// Of the timer that polls the sites.
    pub schedule: Option<String>,
}

/// All faults of the settings. Never contains a secret.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<(Cow<'static, str>, String)>);

impl Problems {
    /// `text` continues a sentence that begins with the setting's name. Without a name it is a sentence. A duplicate is ignored, because two parts of
    /// the connector may read the same setting.
    pub fn add(&mut self, setting: impl Into<Cow<'static, str>>, text: impl Into<String>) {
        let problem = (setting.into(), text.into());
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Adds the problems of `others`, without duplicates.
    pub fn append(&mut self, others: Self) {
        for (setting, text) in others.0 {
            self.add(setting, text);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each setting with its fault, which continues a sentence that begins with the setting's name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(setting, text)| (setting.as_ref(), text.as_str()))
    }

    /// A sentence for each fault, and one for all settings that are not filled in.
    fn sentences(&self) -> Vec<String> {
        let (unfilled, others): (Vec<_>, Vec<_>) = self.iter().partition(|(_, text)| *text == FILL_IN);
        let unfilled: Vec<_> = unfilled.into_iter().map(|(setting, _)| setting).collect();
        let unfilled = (!unfilled.is_empty()).then(|| format!("{} {FILL_IN}", unfilled.join(", ")));
        let others = others.into_iter().map(|(setting, text)| format!("{setting} {text}").trim_start().to_owned());
        unfilled.into_iter().chain(others).collect()
    }

    /// All problems in one line.
    #[must_use]
    pub fn list(&self) -> String {
        self.sentences().join("; ")
    }
}

impl fmt::Display for Problems {
    /// One problem after the word "error", or a line for each.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences = self.sentences();
        if let [sentence] = &sentences[..] {
            return write!(out, "error: {sentence}");
        }
        write!(out, "error: {} settings need attention", self.0.len())?;
        sentences.iter().try_for_each(|sentence| write!(out, "\n  {sentence}"))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().copied().collect()
    }

    #[test]
    fn values_are_trimmed_and_an_empty_one_is_a_problem_not_an_absence() {
        let settings = settings(&[("A", "  x "), ("B", " ")]);
        let mut problems = Problems::default();
        assert_eq!(settings.get("A", &mut problems), Some("x"));
        assert!(problems.is_empty());
        assert_eq!(settings.get("B", &mut problems), None);
        assert!(problems.to_string().contains("B is set but empty"), "{problems}");
    }

    #[test]
    fn a_reference_that_azure_left_in_place_is_no_value() {
        let settings = settings(&[("A", "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/a/)")]);
        let mut problems = Problems::default();
        assert_eq!(settings.get("A", &mut problems), None);
        assert!(problems.to_string().contains("A is a Key Vault reference that Azure could not resolve"), "{problems}");
    }

    #[test]
    fn settings_with_a_placeholder_are_named_in_one_sentence_and_their_values_are_not_used() {
        let settings = settings(&[("A", "REPLACEwithTHEkey"), ("B", "https://REPLACEwithTHEaccount.net"), ("C", "c")]);
        let mut problems = Problems::default();
        assert_eq!(["A", "B", "C"].map(|name| settings.get(name, &mut problems)), [None, None, Some("c")]);
        assert_eq!(problems.list(), format!("A, B {FILL_IN}"));
        assert!(!problems.to_string().contains("REPLACE"), "{problems}");
    }

    #[test]
    fn names_are_found_by_how_they_begin() {
        let settings = settings(&[("A", "1"), ("Ab", "2"), ("Ab-c", "3"), ("Ac", "4"), ("B", "5")]);
        assert_eq!(settings.names_with("Ab").collect::<Vec<_>>(), ["Ab", "Ab-c"]);
        assert_eq!(settings.names_with("C").count(), 0);
    }

    #[test]
    fn what_two_readers_find_wrong_is_said_once() {
        let settings = settings(&[("A", " ")]);
        let mut problems = Problems::default();
        settings.get("A", &mut problems);
        settings.get("A", &mut problems);
        assert_eq!(problems.to_string(), "error: A is set but empty: give it a value or remove it");
    }

    #[test]
    fn the_message_has_a_line_for_each_problem() {
        let settings = settings(&[("Flag", "perhaps"), ("Number", "17")]);
        let mut problems = Problems::default();
        settings.flag("Flag", false, &mut problems);
        settings.number("Number", 1, 0..=9, &mut problems);
        settings.required("Gone", "what it is for", &mut problems);
        let text = problems.to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        for part in ["3 settings need", "Flag is \"perhaps\"", "from 0 to 9", "Gone is not set: what it is for"] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }
}
