//! Reads which backend, customer, sites and channels are polled, where polling starts, and its limits.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::DateTime;
use secrecy::SecretString;
use url::Url;

use super::{Problems, Settings, host_json, storage, things_network};
use crate::{
    queue::Account,
    rapidm2m::{Client, Selection, StartFrom, gate},
};

/// A logger that measures each minute then sends 60 known rows with each poll, and its cursor has 0.4 kB more. Loggers fill
/// gaps of minutes, and clocks are set back by an hour when summer ends.
const DEFAULT_OVERLAP: u64 = 60 * 60;
const QUEUE: &str = "PollQueueName";
const LONGEST_SWEEP: u64 = 24 * 60;
const LONGEST_OVERLAP: u64 = 31 * 24 * 60 * 60;

#[derive(Debug)]
pub struct Config {
    pub source: SourceConfig,
    /// `Customer_ID`: name or 16-digit hex id of the customer.
    pub customer: String,
    /// `Site_ID`: comma-separated names or ids, or `*`.
    pub sites: Selection,
    /// `Channelnames`: comma-separated, or `*`.
    pub channels: Selection,
    /// `Histdata`: index of the container, 0–9 (0).
    pub histdata: u8,
    /// `StartFrom`: where the first poll of a site starts (`youngest`).
    pub start_from: StartFrom,
    /// `PollConcurrency`: sites polled at once (192).
    pub concurrency: usize,
    /// `BackendRequestsPerSecond`: the most requests to the backend in a second (80).
    pub requests_per_second: u32,
    /// `PollTimeoutSeconds`: after this time an invocation starts no more work and ends (50 s).
    pub timeout: Duration,
    /// `FailedSitesThreshold`: how many sites may be at fault, in per cent, before a run is a failure (5).
    pub failed_sites_threshold: u64,
    /// `SweepMinutes`: after this a site is asked although the list tells no new contact (15; 0: each site in each run).
    pub sweep: Option<Duration>,
    /// `OverlapSeconds`: how far behind the newest recorded row a late or corrected row is still noticed, up to 31 days
    /// (one hour; 0: not at all).
    pub overlap: Option<Duration>,
    /// `ForwardCorrections`: whether rows that come again with other values are forwarded (true).
    pub corrections: bool,
    /// `RecordEmptyPolls`: whether each poll without new rows has a record of its own (false: one an hour).
    pub record_empty_polls: bool,
    /// `MarkWithinSeconds`: how long a small record may wait for the site's next one to be marked with it (60; 0: marked at
    /// once, in a document of its own from the beginning).
    pub mark_within: Option<Duration>,
    /// `PollQueueName`: other instances poll the sites, too.
    pub queue: Option<PollQueue>,
}

#[derive(Debug)]
pub struct PollQueue {
    /// `PollQueueName`: the storage queue through which the timer hands out sites. The bindings and the status page use it.
    pub name: String,
    /// `PollBatchSites`: how many sites are handed out together (200).
    pub batch_sites: usize,
    /// `AzureStorageConnectionString`, or one of the host's alternatives.
    pub storage: Account,
}

impl PollQueue {
    fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let batch_sites = settings.number("PollBatchSites", 200, 1..=10_000, problems);
        let name = settings.get(QUEUE, problems)?;
        if let Err(why) = storage::check_queue(name) {
            problems.add(QUEUE, why);
        }
        let uplinks = settings.get(things_network::QUEUE, &mut Problems::default());
        if uplinks.is_some_and(|uplinks| [uplinks, &format!("{uplinks}-rejected")].contains(&name)) {
            problems
                .add(QUEUE, format!("is {name:?}, which is a queue of uplinks (UplinkQueueName): use another name"));
        }
        let storage = storage::read(settings, problems)?;
        Some(Self { name: name.to_owned(), batch_sites: usize::try_from(batch_sites).ok()?, storage })
    }
}

#[derive(Debug)]
pub enum SourceConfig {
    /// `M2MBackendURL` (ends with `/`) and `Base64encodedUsernamePassword` (the Basic credentials as they are sent).
    Backend { url: Url, credentials: SecretString },
    /// `EmulationMode=true`: no backend is called; each poll returns one row.
    Emulation,
}

/// Whether the settings turn this half of the connector on.
pub(super) fn is_wanted(settings: &Settings) -> bool {
    settings.has("M2MBackendURL")
        || settings.has("Customer_ID")
        || settings.flag("EmulationMode", false, &mut Problems::default())
}

impl Config {
    /// What the backend is not asked to bear.
    #[must_use]
    pub fn limits(&self) -> gate::Limits {
        gate::Limits { requests_per_second: self.requests_per_second, concurrency: self.concurrency }
    }

    pub(super) fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let source = if settings.flag("EmulationMode", false, problems) {
            Some(SourceConfig::Emulation)
        } else {
            backend(settings, problems)
        };
        let customer = settings.required("Customer_ID", "name or id of the customer in the backend", problems);
        if let Some(name) = customer.filter(|name| !Client::is_segment(name)) {
            problems.add("Customer_ID", format!("is {name:?}, which cannot stand in a URL: use the customer's _uid"));
        }
        let sites = selection(settings, "Site_ID", "comma-separated sites, or * for all of the customer", problems);
        if let Some(Selection::Named(names)) = &sites
            && let Some(name) = names.iter().find(|name| !Client::is_segment(name))
        {
            problems.add("Site_ID", format!("names {name:?}, which cannot stand in a URL: use the site's _uid"));
        }
        let channels = selection(
            settings,
            "Channelnames",
            "comma-separated channels, or * for all of a site's blueprint",
            problems,
        );
        if matches!(source, Some(SourceConfig::Emulation)) {
            for (name, selection) in [("Site_ID", &sites), ("Channelnames", &channels)] {
                if *selection == Some(Selection::All) {
                    problems.add(name, "is *: with EmulationMode=true there is no backend to ask, name them");
                }
            }
        }
        let start_from = start_from(settings, problems);
        let histdata = settings.number("Histdata", 0, 0..=9, problems);
        let concurrency = settings.number("PollConcurrency", 192, 1..=1000, problems);
        // The vendor's fair use is 100 a second.
        let requests_per_second = settings.number("BackendRequestsPerSecond", 80, 1..=10_000, problems);
        let timeout = settings.number("PollTimeoutSeconds", 50, 1..=3600, problems);
        let needed = Duration::from_secs(timeout);
        host_json::check("PollTimeoutSeconds", timeout, needed, settings.host.function_timeout, problems);
        let failed_sites_threshold = settings.number("FailedSitesThreshold", 5, 0..=100, problems);
        let sweep = settings.number("SweepMinutes", 15, 0..=LONGEST_SWEEP, problems);
        let overlap = settings.number("OverlapSeconds", DEFAULT_OVERLAP, 0..=LONGEST_OVERLAP, problems);
        let corrections = settings.flag("ForwardCorrections", true, problems);
        let record_empty_polls = settings.flag("RecordEmptyPolls", false, problems);
        let mark_within = settings.number("MarkWithinSeconds", 60, 0..=600, problems);
        let queue = PollQueue::read(settings, problems);
        Some(Self {
            source: source?,
            customer: customer?.to_owned(),
            sites: sites?,
            channels: channels?,
            histdata: u8::try_from(histdata).ok()?,
            start_from: start_from?,
            concurrency: usize::try_from(concurrency).ok()?,
            requests_per_second: u32::try_from(requests_per_second).ok()?,
            timeout: Duration::from_secs(timeout),
            failed_sites_threshold,
            sweep: (sweep > 0).then(|| Duration::from_secs(sweep * 60)),
            overlap: (overlap > 0).then(|| Duration::from_secs(overlap)),
            corrections,
            record_empty_polls,
            // Another instance would send what this one has not marked yet.
            mark_within: (mark_within > 0 && queue.is_none()).then(|| Duration::from_secs(mark_within)),
            queue,
        })
    }
}

fn backend(settings: &Settings, problems: &mut Problems) -> Option<SourceConfig> {
    let url = settings
        .required("M2MBackendURL", "the backend's API, such as https://cloud.microtronics.com/api/1/", problems)
        .map(|text| backend_url(text).map_err(|why| problems.add("M2MBackendURL", why)));
    let name = "Base64encodedUsernamePassword";
    let credentials = settings.required(name, "the Base64 of user:password", problems).map(|text| {
        let decoded = BASE64_STANDARD.decode(text).unwrap_or_default();
        if decoded.contains(&b':') {
            Ok(SecretString::from(text))
        } else {
            problems.add(name, "is not the Base64 of user:password");
            Err(())
        }
    });
    Some(SourceConfig::Backend { url: url?.ok()?, credentials: credentials?.ok()? })
}

/// Ends the URL with `/`, so that paths can be appended.
fn backend_url(text: &str) -> Result<Url, String> {
    let example = "write it like https://cloud.microtronics.com/api/1/";
    // Do not repeat the text: users paste URLs that contain passwords.
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("is not an http(s) URL: {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or password in it: put them into Base64encodedUsernamePassword".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has a query or fragment: {example}"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn selection(settings: &Settings, name: &'static str, purpose: &str, problems: &mut Problems) -> Option<Selection> {
    let text = settings.required(name, purpose, problems)?;
    if text == "*" {
        return Some(Selection::All);
    }
    let mut names: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() || part == "*" {
            problems.add(name, format!("is {text:?}: {purpose}; no empty names, and * only alone"));
            return None;
        }
        if !names.iter().any(|known| known == part) {
            names.push(part.to_owned());
        }
    }
    Some(Selection::Named(names))
}

fn start_from(settings: &Settings, problems: &mut Problems) -> Option<StartFrom> {
    match settings.get("StartFrom", problems) {
        None => Some(StartFrom::Youngest),
        Some(text) if text.eq_ignore_ascii_case("youngest") => Some(StartFrom::Youngest),
        Some(text) if text.eq_ignore_ascii_case("all") => Some(StartFrom::All),
        Some(text) => match DateTime::parse_from_rfc3339(text) {
            Ok(time) => Some(StartFrom::At(time.to_utc())),
            Err(_) => {
                let help = "write youngest, all, or a time like 2026-01-31T00:00:00Z";
                problems.add("StartFrom", format!("is {text:?}: {help}"));
                None
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Option<Config>, String) {
        let mut problems = Problems::default();
        let config = Config::read(&pairs.iter().copied().collect(), &mut problems);
        (config, problems.to_string())
    }

    const GOOD: [(&str, &str); 5] = [
        ("M2MBackendURL", "https://cloud.microtronics.com/api/1"),
        ("Base64encodedUsernamePassword", "dXNlcjpwYXNzd29yZA=="),
        ("Customer_ID", "Water & Sons"),
        ("Site_ID", "Well 7, Well 8,Well 7"),
        ("Channelnames", "ch0,ch3,ch1"),
    ];

    #[test]
    fn the_samples_settings_are_enough() {
        let config = read(&GOOD).0.unwrap();
        let SourceConfig::Backend { url, .. } = &config.source else { panic!("a backend") };
        assert_eq!(url.as_str(), "https://cloud.microtronics.com/api/1/");
        assert_eq!(config.sites, Selection::Named(vec!["Well 7".into(), "Well 8".into()]));
        assert_eq!(config.channels, Selection::Named(vec!["ch0".into(), "ch3".into(), "ch1".into()]));
        assert_eq!((config.start_from, config.histdata, config.concurrency), (StartFrom::Youngest, 0, 192));
        assert!(!format!("{config:?}").contains("dXNlcj"), "credentials must not print");
    }

    #[test]
    fn every_setting_at_fault_is_named() {
        let (_, text) = read(&[
            ("M2MBackendURL", "ftp://x"),
            ("Base64encodedUsernamePassword", "SECRET!"),
            ("Site_ID", "a,,b"),
            ("StartFrom", "yesterday"),
            ("Histdata", "10"),
            ("PollConcurrency", "0"),
            ("BackendRequestsPerSecond", "0"),
            ("EmulationMode", "yes"),
            ("OverlapSeconds", "2678401"),
            ("PollQueueName", "Polls"),
            ("PollBatchSites", "0"),
        ]);
        for name in [
            "M2MBackendURL",
            "Base64encodedUsernamePassword",
            "Customer_ID",
            "Site_ID",
            "Channelnames",
            "StartFrom",
            "Histdata",
            "PollConcurrency",
            "BackendRequestsPerSecond",
            "EmulationMode",
            "OverlapSeconds",
            "PollQueueName is \"Polls\"",
            "PollBatchSites",
            "AzureStorageConnectionString",
        ] {
            assert!(text.contains(name), "{name} is missing in {text}");
        }
        assert!(!text.contains("SECRET"), "{text}");
    }

    #[test]
    fn sites_have_a_queue_of_their_own() {
        let with = |name, uplinks| {
            let storage = ("AzureStorageConnectionString", "UseDevelopmentStorage=true");
            let more = [("PollQueueName", name), ("UplinkQueueName", uplinks), storage];
            let (config, problems) = read(&[&GOOD[..], &more].concat());
            (config.unwrap().queue.map(|queue| (queue.name, queue.batch_sites)), problems)
        };
        assert_eq!(with("polls", "uplinks").0, Some(("polls".into(), 200)));
        for name in ["uplinks", "uplinks-rejected"] {
            assert!(with(name, "uplinks").1.contains("which is a queue of uplinks"), "{name}");
        }
        assert!(read(&GOOD).0.unwrap().queue.is_none());
    }

    #[test]
    fn a_run_must_end_before_the_host_ends_the_handler() {
        let problems_at = |seconds: &str, function_timeout: Option<u64>| {
            let mut settings: Settings = [("PollTimeoutSeconds", seconds)].into_iter().collect();
            settings.host.function_timeout = function_timeout.map(Duration::from_secs);
            let mut problems = Problems::default();
            Config::read(&settings, &mut problems);
            problems.list()
        };
        let said = problems_at("300", Some(300));
        assert!(said.contains("PollTimeoutSeconds is 300") && said.contains("functionTimeout"), "{said}");
        for fits in [problems_at("299", Some(300)), problems_at("3600", None), problems_at("50", Some(300))] {
            assert!(!fits.contains("PollTimeoutSeconds"), "{fits}");
        }
    }

    #[test]
    fn names_that_would_change_the_path_are_refused() {
        for name in [".", ".."] {
            for setting in ["Customer_ID", "Site_ID"] {
                let (_, text) = read(&GOOD.map(|(key, value)| (key, if key == setting { name } else { value })));
                assert!(text.contains(setting) && text.contains("_uid"), "{text}");
            }
        }
    }

    #[test]
    fn emulation_needs_no_backend_but_names() {
        let (config, text) =
            read(&[("EmulationMode", "TRUE"), ("Customer_ID", "c"), ("Site_ID", "*"), ("Channelnames", "ch0")]);
        assert!(matches!(config.unwrap().source, SourceConfig::Emulation));
        assert!(text.contains("Site_ID is *"), "{text}");
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        let error = backend_url("https://me:hunter2@host/api/1/").unwrap_err();
        assert!(error.contains("Base64encodedUsernamePassword") && !error.contains("hunter2"), "{error}");
    }
}
