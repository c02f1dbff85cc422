//! Checks the rapidM2M backend: credentials, the customer's sites, each site and its channels.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use iothub_connector::{
    config::rapidm2m::{Config, SourceConfig},
    rapidm2m::{Client, FetchError, Selection, Site, client::Limit, directory::Directory, gate::Gate},
    support::{http_client::HttpClient, kind::Kind},
};
use tokio::time::{Instant, timeout_at};

use super::{
    progress::Progress,
    report::{Checked, Row, Verdict},
};

/// Time-out of one request.
const LIMIT: Duration = Duration::from_secs(15);
/// Time-out for all sites together.
const SITES_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Up to this many sites, each site gets a row. With more sites, only those with a fault do, up to [`MOST_FAULTS`].
const MOST_SITES: usize = 10;
const MOST_FAULTS: usize = 20;

pub async fn check(config: &Config, named: &[String]) -> Checked {
    let SourceConfig::Backend { url, credentials } = &config.source else {
        return Checked::of(Row::skipped("backend", "EmulationMode=true: none is called"));
    };
    let what = format!("backend {}", url.host_str().unwrap_or_default());
    let client =
        Client::new(url.clone(), credentials, HttpClient::default(), Gate::new(config.limits(), String::new()));
    let mut checked = Checked::default();
    match client.me(LIMIT).await {
        Ok(me) => {
            checked.clock = me.clock_skew.map(|skew| ("the backend", skew));
            checked.rows.push(Row::ok(what, "credentials accepted"));
        }
        // Some users are not allowed to make this request.
        Err(error @ FetchError::Forbidden { .. }) => {
            let row = Row::fault(what, error.kind(), &error.to_string());
            checked.rows.push(Row { result: Verdict::Warning, ..row });
        }
        Err(error) => {
            checked.rows.push(Row::fault(what, error.kind(), &error.to_string()));
            checked.rows.push(Row::skipped("sites", "fix the backend first"));
            return checked;
        }
    }
    let listed = client.sites(&config.customer, Limit::of(LIMIT)).await;
    let customer = format!("customer {}", config.customer);
    let are_named = !named.is_empty() || config.sites != Selection::All;
    checked.rows.push(match &listed {
        Ok(sites) => Row::ok(customer, format!("has {}", count(sites.len(), "site"))),
        // Only `Site_ID=*` needs the list.
        Err(error) if are_named && !matches!(error, FetchError::NotFound { .. }) => {
            let row = Row::fault(customer, error.kind(), &format!("its sites cannot be listed: {error}"));
            Row { result: Verdict::Warning, ..row }
        }
        Err(error) => Row::fault(customer, error.kind(), &error.to_string()),
    });
    let (directory, listed) = (Directory::new(&config.customer, []), listed.unwrap_or_default());
    let sites = match &config.sites {
        _ if !named.is_empty() => directory.named(named, &listed).sites,
        Selection::Named(sites) => directory.named(sites, &listed).sites,
        Selection::All => directory.all(&listed),
    };
    checked.rows.extend(check_sites(&client, config, sites).await);
    checked
}

async fn check_sites(client: &Client, config: &Config, sites: Vec<Site>) -> Vec<Row> {
    let (all, deadline, progress) = (sites.len(), Instant::now() + SITES_LIMIT, Progress::new(sites.len()));
    let (client, progress) = (&client, &progress);
    let asked = stream::iter(sites).map(|site| async move {
        let limit = Limit { until: deadline, answer: LIMIT };
        let channels = client.channels(&config.customer, site.path(), config.histdata, limit).await;
        progress.step();
        site_row(&site.name, config, channels)
    });
    let mut asked = std::pin::pin!(asked.buffered(config.concurrency));
    let mut rows = Vec::new();
    while let Ok(Some(row)) = timeout_at(deadline, asked.next()).await {
        rows.push(row);
    }
    shortened(rows, all)
}

/// One row per site. If there are many sites, only those with a fault.
fn shortened(mut rows: Vec<Row>, all: usize) -> Vec<Row> {
    let unasked = all - rows.len();
    if all > MOST_SITES {
        let good = rows.iter().filter(|row| row.result == Verdict::Ok).count();
        rows.retain(|row| row.result != Verdict::Ok);
        let faults = rows.len();
        rows.truncate(MOST_FAULTS);
        if good > 0 {
            rows.insert(0, Row::ok("sites", format!("{} of {all}", count(good, "site"))));
        }
        if faults > MOST_FAULTS {
            let text = format!("{} with a fault are not shown", count(faults - MOST_FAULTS, "more site"));
            rows.push(Row::failed("sites", text, "fix these first, or look at one with --site"));
        }
    }
    if unasked > 0 {
        let minutes = SITES_LIMIT.as_secs() / 60;
        let text = format!("{} not asked within {minutes} min", count(unasked, "site"));
        rows.push(Row::warning("sites", text, "the backend is slow: raise PollConcurrency"));
    }
    rows
}

fn site_row(site: &str, config: &Config, channels: Result<Vec<String>, FetchError>) -> Row {
    let what = format!("site {site}");
    let container = format!("histdata{}", config.histdata);
    let listed = match channels {
        Ok(listed) => listed,
        Err(FetchError::NoChannels(_)) if config.channels != Selection::All => {
            let text = format!("its blueprint lists no channels for {container}");
            return Row { kind: Some(Kind::NoChannels), ..Row::failed(what, text, "check Histdata") };
        }
        Err(error) => return Row::fault(what, error.kind(), &error.to_string()),
    };
    let Selection::Named(wanted) = &config.channels else {
        return Row::ok(what, format!("{} in {container}", count(listed.len(), "channel")));
    };
    // The backend ignores upper and lower case.
    let is_listed = |name: &&String| !listed.iter().any(|other| other.eq_ignore_ascii_case(name));
    let missing: Vec<_> = wanted.iter().filter(is_listed).map(String::as_str).collect();
    if missing.is_empty() {
        return Row::ok(what, format!("{} in {container}", count(wanted.len(), "channel")));
    }
    let text = format!("its blueprint does not list {} for {container}, but {}", missing.join(", "), some_of(&listed));
    // Every channel also has a number. A blueprint that has its own channel names does not show it.
    if missing.iter().all(|name| is_numbered(name)) && !listed.iter().any(|name| is_numbered(name)) {
        return Row::warning(what, text, "check Channelnames, and what the site's rows hold");
    }
    Row::failed(what, text, "check Channelnames and Histdata")
}

fn is_numbered(channel: &str) -> bool {
    let number = channel.strip_prefix("ch").or(channel.strip_prefix("CH"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|letter| letter.is_ascii_digit()))
}

fn some_of(names: &[String]) -> String {
    const MOST: usize = 8;
    let more = if names.len() > MOST { ", …" } else { "" };
    format!("{}{more}", names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", "))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
