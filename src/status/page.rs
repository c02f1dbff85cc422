//! Renders the HTML pages. Each page is one file: it contains its style and script, and its policy allows no others.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use reqwest::StatusCode;
use sha2::{Digest as _, Sha256};

use super::{
    Away, cause, chart,
    detail::{Channel, Detail},
    overview::{Failure, Item, Overview},
    query::{Query, Sort, Wanted, Within},
    state::State,
};
use crate::{
    iot_hub::devices::Owner,
    queue::Lengths,
    rapidm2m::ledger::{Outcome, Poll, PollList, Rejected},
    support::reading::Reading,
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Pages are at most 100 KB. These are the limits, in bytes, of the list, and of a site's charts and polls.
const ROOM_FOR_ITEMS: usize = 78 * 1024;
const ROOM_FOR_CHARTS: usize = 58 * 1024;
const ROOM_FOR_POLLS: usize = 26 * 1024;
/// Most points of all charts of a page. One point takes 12 bytes.
const MAX_POINTS: usize = 2_400;
/// Seconds from one reading to the next, at least; and the sites and devices that are read in a second of it. Cosmos DB counts
/// every one that it returns, so a page of thousands is read less often.
const REFRESH: usize = 30;
const READ_PER_SECOND: usize = 50;
/// Most customers and applications that have a link.
const MAX_GROUPS: usize = 12;
/// Most sites in the command that puts rejected messages back.
const MAX_REJECTED_SITES: usize = 5;
/// Longest texts on a page, in characters: names, errors, and errors in the table of polls.
const MAX_NAME: usize = 120;
const MAX_TEXT: usize = 400;
const MAX_POLL_TEXT: usize = 120;

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

pub struct Page {
    pub html: String,
    /// `Content-Security-Policy`.
    pub policy: &'static str,
}

/// The page is read again each `refresh` seconds.
fn page(title: &str, refresh: usize, body: &Markup) -> Page {
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body data-refresh=(refresh) {
                main { (body) }
                p #stale role="status" hidden {}
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    Page { html: html.into_string(), policy: &POLICY }
}

/// A page that says why there is nothing to show.
pub fn problem(status: StatusCode, text: &str) -> Page {
    let title = if status == StatusCode::NOT_FOUND { "Not found" } else { "The status cannot be read" };
    let body = html! {
        h1 { (title) }
        p.note { (shortened(text, MAX_TEXT)) }
        p { a href="?" { "Overview" } }
    };
    page(title, REFRESH, &body)
}

/// The page with the list.
pub fn overview(overview: &Overview, query: &Query, away: Option<&Away>, now: DateTime<Utc>) -> Page {
    let selected = overview.select(query);
    let (items, shown) = fitting(selected.items.iter().map(|item| row(item, overview, now)), ROOM_FOR_ITEMS);
    let counts = overview.counts(query.within.as_ref());
    let all: usize = counts.values().sum();
    let trouble = overview.counts(None)[&State::Failing];
    let title = match (trouble, &overview.unlisted) {
        (0, Some(_)) => "Sites cannot be listed · IoT Hub Connector".to_owned(),
        (0, None) => "IoT Hub Connector".to_owned(),
        _ => format!("{trouble} failing · IoT Hub Connector"),
    };
    let body = html! {
        header {
            h1 { "IoT Hub Connector" }
            p { "Read " (time(overview.read_at)) " UTC · " a href=(query.url(query.from)) { "Refresh" } }
        }
        (old(overview.read_at, away, now))
        (banner(overview, now))
        @for note in &overview.notes { p.note { (shortened(note, MAX_TEXT)) } }
        section.sum aria-label="Sum" {
            div { strong { (all) } " " (nouns(overview)) }
            nav aria-label="States" {
                @for (state, count) in &counts {
                    @let other = Query { state: (query.state != Some(*state)).then_some(*state), ..query.clone() };
                    a class=(state.name()) href=(other.url(0)) aria-current=[(query.state == Some(*state)).then_some("true")] {
                        (mark(*state)) " " (count) " " (word(*state))
                    }
                }
            }
            figure { (chart::bars(&overview.per_hour(), "rows and uplinks")) figcaption { "Rows and uplinks per hour, last 24 hours" } }
        }
        (numbers(overview))
        (groups(overview, query))
        form method="get" role="search" {
            label { "Name " input type="search" name="q" value=(query.search) maxlength="100"; }
            label { "Sort by " select name="sort" {
                @for sort in Sort::ALL {
                    option value=(sort.name()) selected[sort == query.sort] { (sort.name()) }
                }
            } }
            @if let Some(state) = query.state { input type="hidden" name="state" value=(state.name()); }
            @if let Some(Within { system, group }) = &query.within {
                @let (name, value) = Within::parameter(system, group.as_deref());
                input type="hidden" name=(name) value=(value);
            }
            button { "Show" }
        }
        @if selected.items.is_empty() {
            p { @if overview.len() == 0 { (nothing(overview)) } @else { "No matches. " a href="?" { "Show all" } } }
        } @else {
            (places(query, shown, selected.total, "Pages above the list"))
            div.heads aria-hidden="true" {
                @for head in ["State", "Name", "Newest value", "Per hour, 24 h", "Last polls"] { span { (head) } }
            }
            ul.items { (PreEscaped(&items)) }
            (places(query, shown, selected.total, "Pages below the list"))
        }
        (footer(overview))
    };
    page(&title, refresh(overview), &body)
}

/// The parts that fit into `room` bytes, and their number.
fn fitting(parts: impl Iterator<Item = Markup>, room: usize) -> (String, usize) {
    let (mut text, mut shown) = (String::new(), 0);
    for part in parts {
        if text.len() + part.0.len() > room {
            break;
        }
        text.push_str(&part.0);
        shown += 1;
    }
    (text, shown)
}

fn nouns(overview: &Overview) -> &'static str {
    let systems = overview.systems();
    match [Owner::RAPIDM2M, Owner::THINGS_NETWORK].map(|system| systems.contains_key(system)) {
        [true, false] => "sites",
        [false, true] => "devices",
        _ => "sites and devices",
    }
}

fn nothing(overview: &Overview) -> &'static str {
    match (overview.has_sites, overview.has_devices) {
        (true, false) => "No site was polled yet.",
        (false, true) => {
            "No uplink was forwarded yet. (Devices are written here about a minute after their first uplink.)"
        }
        _ => "No site was polled and no uplink forwarded yet.",
    }
}

fn refresh(overview: &Overview) -> usize {
    REFRESH.max(overview.len() / READ_PER_SECOND)
}

fn footer(overview: &Overview) -> Markup {
    html! {
        footer.numbers {
            span { "Version " (env!("CARGO_PKG_VERSION")) }
            @if !overview.sends_to.is_empty() { span { "Sends to " (shortened(&overview.sends_to, MAX_TEXT)) } }
            @if let Some(schedule) = &overview.schedule { span { "Timer " (shortened(schedule, MAX_NAME)) " (function.json)" } }
            @if let Some(at) = overview.polled_at { span { "Last recorded poll " (time(at)) " UTC" } }
        }
    }
}

/// Which part of the list this is, and the ways to the others.
fn places(query: &Query, shown: usize, total: usize, label: &str) -> Markup {
    let next = query.from + shown;
    html! {
        nav.places aria-label=(label) {
            span { (query.from + 1) "–" (next) " of " (total) }
            @if query.from > 0 { a rel="prev" href=(query.url(query.from.saturating_sub(query.limit))) { "← previous" } }
            @if next < total { a rel="next" href=(query.url(next)) { "next →" } }
        }
    }
}

/// Links that narrow the list to a system, a customer or an application. None if there is only one.
fn groups(overview: &Overview, query: &Query) -> Markup {
    let groups = overview.groups();
    let other = |within: Option<Within>| Query { within, ..query.clone() }.url(0);
    let link = |within: Within, count: usize| {
        let is_current = query.within.as_ref() == Some(&within);
        let words = match (&within.group, within.system) {
            (Some(group), _) => shortened(group, MAX_NAME),
            (None, Owner::RAPIDM2M) => "rapidM2M".to_owned(),
            (None, _) => "The Things Stack".to_owned(),
        };
        html! {
            a href=(other((!is_current).then_some(within))) aria-current=[is_current.then_some("true")] { (words) " " small { (count) } }
        }
    };
    let systems = overview.systems();
    let within = |(system, group): (&'static str, &str)| Within { system, group: Some(group.to_owned()) };
    let mut shown: Vec<_> = groups.iter().take(MAX_GROUPS).map(|(group, count)| (within(*group), *count)).collect();
    // The chosen one has a link that ends the choice.
    if let Some(chosen) = query.within.as_ref().filter(|chosen| shown.iter().all(|(shown, _)| shown != *chosen))
        && let Some(group) = &chosen.group
    {
        shown.truncate(MAX_GROUPS - 1);
        shown.push((chosen.clone(), groups.get(&(chosen.system, group.as_str())).copied().unwrap_or_default()));
    }
    html! {
        @if groups.len() > 1 || query.within.is_some() {
            nav.groups aria-label="Systems, customers and applications" {
                @if systems.len() > 1 {
                    @for (system, count) in systems { (link(Within { system, group: None }, count)) }
                }
                @for (within, count) in shown { (link(within, count)) }
                @if groups.len() > MAX_GROUPS { span { (groups.len() - MAX_GROUPS) " more: search for their names" } }
            }
        }
    }
}

/// That what is shown is old, and why.
fn old(read_at: DateTime<Utc>, away: Option<&Away>, now: DateTime<Utc>) -> Markup {
    html! {
        @if let Some(Away { since, text }) = away {
            p.note.cause {
                strong { "As of " (moment(read_at, now)) ": Cosmos DB cannot be read since " (moment(*since, now)) }
                ". " (shortened(text, MAX_TEXT))
            }
        }
    }
}

/// What several sites or devices fail of, once.
fn banner(overview: &Overview, now: DateTime<Utc>) -> Markup {
    let since = |since: Option<DateTime<Utc>>| {
        html! { @if let Some(since) = since { " since " (moment(since, now)) } }
    };
    html! {
        @if let Some(Failure { fault, since: began }) = &overview.unlisted {
            p.note.cause role="status" {
                strong { (cause::summary(&fault.kind, true).unwrap_or_else(|| "The sites cannot be listed".to_owned())) (since(*began)) }
                ": the sites cannot be listed. " code { (fault.kind) } " " (shortened(&fault.text, MAX_TEXT))
            }
        }
        @for cause in &overview.causes {
            p.note.cause role="status" {
                strong { (cause.summary) (since(cause.since)) ": " (cause.affected) " of " (overview.len()) " " (nouns(overview)) " affected" }
                ". " code { (cause.kind) } " " (shortened(&cause.text, MAX_TEXT))
            }
        }
    }
}

/// What waits and what was rejected, in one line, and how rejected messages are sent again.
fn numbers(overview: &Overview) -> Markup {
    let (messages, sites) = overview.waiting();
    let count = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let local = local_option(overview);
    let replay = |queue: &str, messages: u64| {
        html! {
            @if messages > 0 {
                p.note { (count(messages, "message")) " of uplinks in the queue " (queue) ". Fix the cause first, then send them again: "
                    code { "iothub-connector replay --queue " (queue) (local) } }
            }
        }
    };
    html! {
        p.numbers {
            @if overview.has_sites {
                span { "Waiting for IoT Hub: " strong { (count(messages as u64, "message")) } " of " (count(sites as u64, "site")) }
            }
            @if let Some(Lengths { waiting, rejected, poison }) = overview.queues {
                span { "Queue of uplinks: " strong { (waiting) } " waiting, " strong { (rejected) } " rejected, " strong { (poison) } " poison" }
            }
            @if let Some(Lengths { waiting, .. }) = overview.poll_queues {
                span { "Queue of sites: " strong { (waiting) } @if waiting == 1 { " batch" } @else { " batches" } }
            }
        }
        (rejected_of_sites(overview))
        @if let Some(Lengths { rejected, poison, .. }) = overview.queues { (replay("rejected", rejected)) (replay("poison", poison)) }
        @if let Some(Lengths { rejected, poison, .. }) = overview.poll_queues && rejected + poison > 0 {
            p.note { (rejected) " rejected and " (poison) " poison messages are beside the queue of sites: they are not batches of sites, so something else uses the queue." }
        }
    }
}

/// What commands need to use the services of a session of `local`.
fn local_option(overview: &Overview) -> &'static str {
    if overview.is_local_session { " --local" } else { "" }
}

/// How the rejected messages of these sites are sent again. Only names that mean the same to every shell are in the command.
fn replay_of_sites<'a>(sites: impl Iterator<Item = &'a String>, overview: &Overview) -> Option<String> {
    let is_plain = |name: &&String| {
        !name.starts_with('-')
            && !name.contains(['"', '\'', '$', '`', '\\', '!', '%'])
            && !name.contains(char::is_control)
    };
    let names: Vec<_> = sites.filter(is_plain).take(MAX_REJECTED_SITES).map(|name| format!("\"{name}\"")).collect();
    let local = local_option(overview);
    (!names.is_empty()).then(|| format!("iothub-connector replay {} --all{local}", names.join(" ")))
}

/// Rejected messages of sites, and how they are sent again.
fn rejected_of_sites(overview: &Overview) -> Markup {
    let Rejected { sites, is_more } = &overview.rejected;
    let messages = overview.rejected.messages();
    html! {
        @if messages > 0 {
            p.note {
                @if *is_more { "More than " }
                (messages) @if messages == 1 { " message" } @else { " messages" } " of " (sites.len()) @if sites.len() == 1 { " site" } @else { " sites" }
                @if messages == 1 { " was" } @else { " were" } " rejected. Fix the cause first, then send " @if messages == 1 { "it" } @else { "them" } " again"
                @if let Some(command) = replay_of_sites(sites.keys(), overview) { ": " code { (command) } }
                @if sites.len() > MAX_REJECTED_SITES { " (these are " (MAX_REJECTED_SITES) " of the sites)" }
            }
        }
    }
}

fn row(item: &Item, overview: &Overview, now: DateTime<Utc>) -> Markup {
    let is_site = item.system == Owner::RAPIDM2M;
    html! {
        li {
            span class=(format!("state {}", item.state.name())) { (mark(item.state)) " " (word(item.state)) }
            span.name {
                a href=(Wanted::url(item.system, &item.group, &item.place)) { (shortened(&item.name, MAX_NAME)) }
                " " small { (shortened(&item.group, MAX_NAME)) }
            }
            span.lag {
                @if let Some(Reading { name, value }) = &item.reading { (name) " " strong { (value) } " " }
                @match (item.lag(now), item.newest) {
                    (Some(lag), Some(newest)) => small { (ago(lag)) " · " (moment(newest, now)) },
                    _ => "no value yet",
                }
            }
            (chart::bars(&item.per_hour, if is_site { "rows" } else { "uplinks" }))
            @if item.polls.is_empty() { span.strip {} } @else { (chart::strip(&item.polls)) }
            span.waiting { @if item.waiting > 0 { (item.waiting) " waiting" } }
            (errors(item, &|error| overview.explains(error), now))
        }
    }
}

/// What the rows are whose number is shown.
fn odd(kind: &str) -> &'static str {
    match kind {
        "Late" => "late",
        "Corrected" => "corrected",
        "Unusable" => "unusable",
        _ => "of a reset clock",
    }
}

/// The errors of an item. Of one whose cause is at the head of the page, the text is not repeated.
fn errors(item: &Item, is_explained: &dyn Fn(&Failure) -> bool, now: DateTime<Utc>) -> Markup {
    if item.errors.is_empty() && item.failures < 2 && item.backs_off_until.is_none() {
        return html! {};
    }
    html! {
        span.error {
            @for error in &item.errors {
                code { (error.fault.kind) }
                @if let Some(since) = error.since { " since " (moment(since, now)) }
                @if !is_explained(error) { ": " (shortened(&error.fault.text, MAX_TEXT)) }
                ". "
            }
            @if item.failures > 1 { (item.failures) " failures in a row. " }
            @if let Some(until) = item.backs_off_until { "Next attempt in " (ago((until - now).num_seconds())) " (" (moment(until, now)) ")." }
        }
    }
}

/// The page of one site or device.
pub fn detail(detail: &Detail<'_>, overview: &Overview, away: Option<&Away>, now: DateTime<Utc>) -> Page {
    let Detail { item, polls: PollList { polls, unreadable }, readings } = detail;
    let is_site = item.system == Owner::RAPIDM2M;
    let drawn: Vec<_> = readings.channels.iter().filter(|channel| !channel.points.is_empty()).collect();
    let most = MAX_POINTS / drawn.len().max(1);
    let range = chart::range(drawn.iter().copied(), most);
    let (charts, shown) = fitting(drawn.iter().map(|channel| figure(channel, most, range)), ROOM_FOR_CHARTS);
    let left_out = readings.left_out + drawn.len() - shown;
    let (poll_rows, _) = fitting(polls.iter().map(poll_row), ROOM_FOR_POLLS);
    let texts = readings.channels.iter().filter(|channel| channel.points.is_empty());
    let body = html! {
        p { a href="?" { "← Overview" } }
        (old(overview.read_at, away, now))
        header {
            h1 { (shortened(&item.name, MAX_NAME)) }
            p { @if is_site { "Site of customer " } @else { "Device of application " } strong { (shortened(&item.group, MAX_NAME)) } }
            @if item.place != item.name { p { "Its documents have the Site_Id " strong { (shortened(&item.place, MAX_NAME)) } } }
        }
        dl {
            dt { "State" } dd class=(format!("state {}", item.state.name())) { (mark(item.state)) " " (word(item.state)) }
            dt { @if is_site { "Newest value" } @else { "Last uplink" } }
            dd { @match (item.newest, item.lag(now)) {
                (Some(newest), Some(lag)) => { (time(newest)) ", " (ago(lag)) " ago" },
                _ => "none yet",
            } }
            @if let Some(at) = item.polled_at { dt { "Last poll" } dd { (time(at)) } }
            @if let Some(uid) = &item.uid { dt { "_uid" } dd { (shortened(uid, MAX_NAME)) } }
            @if item.odd_rows.iter().any(|(_, count)| *count > 0) {
                dt { "Odd rows so far" }
                dd { @for (place, (kind, count)) in item.odd_rows.iter().filter(|(_, count)| *count > 0).enumerate() {
                    @if place > 0 { ", " } (count) " " (odd(kind))
                } }
            }
            @if let Some(count) = overview.rejected.sites.get(&item.place).filter(|_| is_site) {
                dt { "Rejected" }
                dd {
                    (count) @if *count == 1 { " message" } @else { " messages" }
                    @if let Some(command) = replay_of_sites([&item.place].into_iter(), overview) { ". To send " @if *count == 1 { "it" } @else { "them" } " again: " code { (command) } }
                }
            }
            @if is_site { dt { "Waiting for the hub" } dd { (item.waiting) @if item.waiting == 1 { " message" } @else { " messages" } } }
        }
        @if !item.errors.is_empty() || item.backs_off_until.is_some() { div.errors { (errors(item, &|_| false, now)) } }
        section {
            h2 { @if is_site { "Rows" } @else { "Uplinks" } " per hour" }
            figure.wide { (chart::bars(&item.per_hour, if is_site { "rows" } else { "uplinks" })) figcaption { "Last 24 hours" } }
        }
        section {
            h2 { "Last values" }
            @if readings.channels.is_empty() { p { "None " @if is_site { "in the messages that are kept." } @else { "in the uplinks: no decoded numbers." } } }
            div.charts { (PreEscaped(charts)) }
            @if texts.clone().count() > 0 {
                dl { @for channel in texts {
                    dt { (shortened(&channel.name, MAX_NAME)) }
                    dd { @if let Some((_, last)) = &channel.last { (last) } }
                } }
            }
            @if left_out > 0 { p { (left_out) " more channels are not shown." } }
        }
        @if let Some(first) = unreadable.first() {
            p.note { (unreadable.len()) " of the last polls cannot be read; the first: " (shortened(&first.to_string(), MAX_TEXT)) }
        }
        @if !polls.is_empty() {
            section {
                h2 { "Last polls" }
                div.scroll tabindex="0" role="region" aria-label="Last polls" { table {
                    thead { tr { th scope="col" { "Time (UTC)" } th scope="col" { "Outcome" } th.number scope="col" { "Rows" }
                        th.number scope="col" { "ms" } th scope="col" { "Error" } } }
                    tbody { (PreEscaped(poll_rows)) }
                } }
            }
        }
    };
    page(&format!("{} · IoT Hub Connector", shortened(&item.name, MAX_NAME)), refresh(overview), &body)
}

fn figure(channel: &Channel, most: usize, range: (i64, i64)) -> Markup {
    html! {
        figure {
            figcaption {
                strong { (shortened(&channel.name, MAX_NAME)) } " "
                @if let Some((_, last)) = &channel.last { (last) }
            }
            (chart::line(channel, most, range))
        }
    }
}

fn poll_row(poll: &Poll) -> Markup {
    let (class, outcome) = match poll.outcome {
        Outcome::Empty => ("e", "empty"),
        Outcome::Pending => ("waiting", "pending"),
        Outcome::Forwarded => ("ok", "forwarded"),
        Outcome::Rejected => ("failing", "rejected"),
        Outcome::Failed => ("failing", "failed"),
    };
    html! {
        tr {
            td { (time(poll.polling_timestamp)) }
            td class=(class) { (outcome) }
            td.number { (poll.result.rows) }
            td.number { (poll.result.milliseconds) }
            td { @if let Some(error) = &poll.error { code { (error.kind) } " " (shortened(&error.text, MAX_POLL_TEXT)) } }
        }
    }
}

/// Shows a state by shape and word, not by colour alone.
fn mark(state: State) -> Markup {
    let shape = match state {
        State::Failing => "✕",
        State::Waiting => "◔",
        State::Silent => "○",
        State::Never => "–",
        State::Ok => "●",
    };
    html! { span aria-hidden="true" { (shape) } }
}

fn word(state: State) -> &'static str {
    match state {
        State::Never => "never polled",
        other => other.name(),
    }
}

fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)) { (at.format("%Y-%m-%d %H:%M:%S").to_string()) } }
}

/// A time of today without its date.
fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let format = if at.date_naive() == now.date_naive() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    html! { time datetime=(at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)) { (at.format(format).to_string()) } " UTC" }
}

/// A duration in its largest unit.
fn ago(seconds: i64) -> String {
    let span = TimeDelta::seconds(seconds.max(0));
    match (span.num_days(), span.num_hours(), span.num_minutes()) {
        (days @ 3.., ..) => format!("{days} days"),
        (_, hours @ 3.., _) => format!("{hours} h"),
        (_, _, minutes @ 3..) => format!("{minutes} min"),
        _ => format!("{} s", span.num_seconds()),
    }
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
