//! What a fleet goes through in a year, in some minutes: sites are renamed and removed, loggers send bad, late and corrected
//! rows, the hub is away, and the handler is killed. At the end every row is at the hub, or in a count that a person is shown.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use chrono::DateTime;
use clap::Args;
use emulators::steps::Step;
use fastrand::Rng;
use serde_json::{Value, json};

use crate::{
    app,
    audit::Message,
    crash::{Kill, Spot, plan},
    killer::Killer,
    victim::Victim,
    world::{World, poll},
};

/// Ticks in which the hub is away. In the middle of them sites are renamed and removed.
const AWAY: usize = 10;
/// Ticks before and after that.
const TICKS: usize = 10;
/// Of a hundred sites, so many are renamed, and so many removed.
const CHANGED: usize = 5;
/// Of a hundred rows, so many are bad, late, or corrected later.
const BAD: usize = 1;
const LATE: usize = 3;
const CORRECTED: usize = 1;
const MINUTE: i64 = 60_000;
/// 2024-03-01T00:00:00Z.
const BEGINNING: i64 = 1_709_251_200_000;
const SETTLING: Duration = Duration::from_secs(300);
const SHOWN: usize = 20;

/// Where the handler is killed. Each is reached in nearly every tick.
const SPOTS: [Spot; 8] = [
    Spot::new(Step::TimerCalled, 1),
    Spot::new(Step::RowsAsked, 20),
    Spot::new(Step::RowsAnswered, 20),
    Spot::new(Step::RecordCame, 20),
    Spot::new(Step::RecordApplied, 20),
    Spot::new(Step::RecordAnswered, 20),
    Spot::new(Step::MarkCame, 10),
    Spot::new(Step::MessageCame, 10),
];

#[derive(Args)]
pub struct Options {
    /// Seed of the rows, the changes and the kills
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    sites: usize,
    /// How often the handler is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: usize,
    /// The connector's binary [default: iothub-connector beside this program]
    #[arg(long, value_name = "FILE")]
    handler: Option<PathBuf>,
}

/// A row that a logger has sent: which site, when, and the number in its first channel.
type Row = (String, i64, u64);

/// A site as the trial knows it.
struct Site {
    uid: String,
    name: String,
    /// What the backend has: the number of each stamp, `None` for a bad row.
    rows: BTreeMap<i64, Option<u64>>,
    /// The stamp that is left out for a late row.
    gap: Option<i64>,
    is_removed: bool,
}

/// The fleet, and what must be accounted for.
struct Fleet {
    random: Rng,
    sites: Vec<Site>,
    number: u64,
    good: BTreeSet<Row>,
    /// Every row that was ever sent, those with earlier values included.
    ever: BTreeSet<Row>,
    bad: usize,
    late: usize,
    corrected: usize,
}

impl Fleet {
    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// What the loggers send before a tick: the places of the sites whose rows changed.
    fn send(&mut self) -> Vec<usize> {
        let mut changed = Vec::new();
        for place in 0..self.sites.len() {
            if self.sites[place].is_removed || self.random.usize(..3) == 0 {
                continue;
            }
            changed.push(place);
            let newest = self.sites[place].rows.keys().next_back().copied();
            let at = newest.map_or(BEGINNING, |newest| newest + MINUTE);
            let number = self.next_number();
            let roll = self.random.usize(..100);
            let site = &mut self.sites[place];
            let is_first = newest.is_none();
            if let Some(gap) = site.gap.take() {
                site.rows.insert(gap, Some(number));
                self.good.insert((site.uid.clone(), gap, number));
                self.late += 1;
            } else if roll < BAD && !is_first {
                site.rows.insert(at, None);
                self.bad += 1;
            } else if roll < BAD + LATE && !is_first {
                site.gap = Some(at);
                site.rows.insert(at + MINUTE, Some(number));
                self.good.insert((site.uid.clone(), at + MINUTE, number));
            } else if roll < BAD + LATE + CORRECTED && !is_first {
                // The newest good row gets another value. The one that it had was sent, or is not known to anybody.
                if let Some((at, value)) = site.rows.iter_mut().rev().find(|(_, value)| value.is_some()) {
                    let before = value.replace(number);
                    self.good.remove(&(site.uid.clone(), *at, before.unwrap_or_default()));
                    self.good.insert((site.uid.clone(), *at, number));
                    self.corrected += 1;
                }
            } else {
                site.rows.insert(at, Some(number));
                self.good.insert((site.uid.clone(), at, number));
            }
        }
        self.ever.extend(self.good.iter().cloned());
        changed
    }

    /// Sites that are changed by a change of the fleet.
    fn some(&mut self) -> Vec<usize> {
        let count = (self.sites.len() * CHANGED / 100).max(1);
        let mut places: Vec<_> = (0..self.sites.len()).filter(|place| !self.sites[*place].is_removed).collect();
        self.random.shuffle(&mut places);
        places.truncate(count);
        places
    }
}

impl Site {
    fn raw(&self) -> Value {
        let row = |(at, number): (&i64, &Option<u64>)| {
            let time = DateTime::from_timestamp_millis(*at).unwrap_or_default();
            let digits = time.format("%Y%m%d%H%M%S%3f").to_string();
            let stamp = digits.trim_end_matches('0');
            // A bad row has a value too few.
            number.map_or(json!([stamp, 1]), |number| json!([stamp, number, 0.5]))
        };
        self.rows.iter().map(row).collect()
    }
}

/// Carries out the trial. `false` if a row is not accounted for.
///
/// # Errors
/// It could not be carried out.
pub async fn run(options: &Options) -> anyhow::Result<bool> {
    let started = Instant::now();
    let handler = app::handler(options.handler.as_deref())?;
    let names: Vec<String> = (1..=options.sites).map(|number| format!("Site {number}")).collect();
    let killer = Killer::default();
    let world = World::start(&names, killer.steps(), true).await?;
    let mut settings = world.settings();
    for (name, value) in
        [("Site_ID", "*"), ("RUST_LOG", "warn"), ("PollConcurrency", "64"), ("IoTHubTransport", "mqtt")]
    {
        settings.insert(name.to_owned(), value.to_owned());
    }
    let site = |name: &String| Site {
        uid: emulators::rapidm2m::uid(name),
        name: name.clone(),
        rows: BTreeMap::new(),
        gap: None,
        is_removed: false,
    };
    let mut fleet = Fleet {
        random: Rng::with_seed(options.seed),
        sites: names.iter().map(site).collect(),
        number: 0,
        good: BTreeSet::new(),
        ever: BTreeSet::new(),
        bad: 0,
        late: 0,
        corrected: 0,
    };
    let victim = Victim::start(killer, &handler, &[app::POLLING], settings, options.kills).await?;
    let kills: Vec<Kill> = plan(options.seed, options.kills, &SPOTS);
    let is_over = Cell::new(false);
    let suffering = async {
        let kills = victim.suffer(&kills).await;
        is_over.set(true);
        kills
    };
    let (kills, lived) = tokio::join!(suffering, live(&world, &victim, &mut fleet, &is_over));
    let (kills, ()) = (kills?, lived?);
    let mut findings = victim.findings();
    findings.extend(settle(&world, &victim, &fleet).await?);
    let counted = account(&world, &fleet, &mut findings)?;
    println!(
        "{} sites, {} renamed, {} removed, {} kills ({} at a step, {} at a moment), hub away for {AWAY} ticks, seed {}, in {:.0} s",
        options.sites,
        counted.renamed,
        fleet.sites.iter().filter(|site| site.is_removed).count(),
        kills.total(),
        kills.at.values().sum::<usize>(),
        kills.at_moments,
        options.seed,
        started.elapsed().as_secs_f64()
    );
    println!(
        "{} good rows ({} late, {} corrected), {} bad rows: {} at the hub, {} counted as bad, {} repeats, {} unaccounted",
        fleet.good.len(),
        fleet.late,
        fleet.corrected,
        fleet.bad,
        counted.at_hub,
        counted.bad,
        counted.repeats,
        counted.lost,
    );
    findings.iter().take(SHOWN).for_each(|finding| println!("  {finding}"));
    victim.host.stop().await;
    Ok(findings.is_empty())
}

/// The year. It goes on until all kills are over.
async fn live(world: &World, victim: &Victim, fleet: &mut Fleet, is_over: &Cell<bool>) -> anyhow::Result<()> {
    for tick in 0.. {
        if tick >= TICKS + AWAY + TICKS && is_over.get() {
            break;
        }
        if tick == TICKS {
            control(world, &world.hub.ready().control, "away", &json!(true)).await?;
        }
        if tick == TICKS + AWAY / 2 {
            // What is to be removed must be recorded: nobody can fetch it afterwards. Nothing new comes meanwhile.
            recorded(world, victim, fleet).await?;
            for place in fleet.some() {
                let site = &mut fleet.sites[place];
                let name = format!("{} (new)", site.name);
                let url = format!("{}sites/{}", world.backend.ready().control, site.name);
                put(world, &url, &json!({ "name": name })).await?;
                site.name = name;
            }
            for place in fleet.some() {
                let site = &mut fleet.sites[place];
                let url = format!("{}sites/{}", world.backend.ready().control, site.name);
                let response = world.client.delete(url).send().await?;
                ensure!(response.status().is_success(), "the backend removed no site: {}", response.status());
                site.is_removed = true;
            }
        }
        if tick == TICKS + AWAY {
            control(world, &world.hub.ready().control, "away", &json!(false)).await?;
        }
        for place in fleet.send() {
            upload(world, &fleet.sites[place]).await?;
        }
        poll(&victim.host).await?;
    }
    Ok(())
}

async fn upload(world: &World, site: &Site) -> anyhow::Result<()> {
    let control = &world.backend.ready().control;
    // One after the other: a poll in between finds fewer rows, which loses nothing.
    let url = reqwest::Url::parse_with_params(&format!("{control}rows"), [("site", &site.name)])?;
    ensure!(world.client.delete(url).send().await?.status().is_success(), "the backend kept its rows");
    let body = json!({ "site": site.name, "rows": site.raw() });
    let response = world.client.post(format!("{control}rows")).json(&body).send().await?;
    ensure!(response.status().is_success(), "the backend took no rows: {}", response.status());
    Ok(())
}

async fn control(world: &World, control: &str, name: &str, body: &Value) -> anyhow::Result<()> {
    put(world, &format!("{control}{name}"), body).await
}

async fn put(world: &World, url: &str, body: &Value) -> anyhow::Result<()> {
    let response = world.client.put(url).json(body).send().await?;
    ensure!(response.status().is_success(), "{url}: {}", response.status());
    Ok(())
}

/// Polls until every row is recorded.
async fn recorded(world: &World, victim: &Victim, fleet: &Fleet) -> anyhow::Result<()> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let finished = poll(&victim.host).await?;
        let known = recorded_rows(world);
        // A run that was not killed has seen the bad rows, too.
        if finished.status.is_some() && fleet.good.iter().all(|row| known.contains(row)) {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "not all rows are recorded after {SETTLING:?}");
    }
}

fn recorded_rows(world: &World) -> BTreeSet<Row> {
    let documents = world.cosmos.plain_items();
    let messages = documents
        .iter()
        .filter_map(|document| Some((document["Site_Uid"].as_str()?.to_owned(), document["IoTHubMessage"].as_str()?)));
    messages.flat_map(|(uid, body)| rows(&uid, body)).collect()
}

/// The rows of a message.
fn rows(uid: &str, body: &str) -> Vec<Row> {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let series = body["Timeseries"].as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let at = row["Timestamp"].as_str()?.parse::<DateTime<chrono::Utc>>().ok()?;
        Some((uid.to_owned(), at.timestamp_millis(), row["Channels"]["ch0"].as_u64()?))
    };
    series.iter().filter_map(row).collect()
}

/// Polls until nothing waits any more.
async fn settle(world: &World, victim: &Victim, fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let give_up = Instant::now() + SETTLING;
    loop {
        let finished = poll(&victim.host).await?;
        let waiting = world
            .cosmos
            .plain_items()
            .iter()
            .filter_map(|document| document["Unforwarded"].as_array().map(Vec::len))
            .sum::<usize>();
        let known = recorded_rows(world);
        let missing = fleet.good.iter().filter(|row| !known.contains(*row)).count();
        if finished.status == Some(200) && waiting == 0 && missing == 0 {
            return Ok(Vec::new());
        }
        if Instant::now() >= give_up {
            return Ok(vec![format!(
                "after {SETTLING:?} {waiting} messages wait, and {missing} rows are not recorded"
            )]);
        }
    }
}

struct Counted {
    renamed: usize,
    at_hub: usize,
    bad: usize,
    repeats: usize,
    lost: usize,
}

/// Adds up.
fn account(world: &World, fleet: &Fleet, findings: &mut Vec<String>) -> anyhow::Result<Counted> {
    let messages: Vec<Message> = world.hub.received().iter().map(Message::of).collect();
    let (mut ids_of_row, mut seen, mut repeats): (HashMap<Row, BTreeSet<String>>, _, _) =
        (HashMap::new(), BTreeSet::new(), 0);
    for message in &messages {
        repeats += usize::from(!seen.insert(message.id.clone()));
        let uid = message.properties.get("Site_Uid").map(String::as_str).unwrap_or_default();
        for row in rows(uid, &message.body) {
            ids_of_row.entry(row).or_default().insert(message.id.clone());
        }
    }
    let lost: Vec<_> = fleet.good.iter().filter(|row| !ids_of_row.contains_key(*row)).collect();
    findings.extend(lost.iter().map(|row| format!("row {row:?} is not at the hub")));
    let unsent = recorded_rows(world).into_iter().filter(|row| !ids_of_row.contains_key(row));
    findings.extend(unsent.map(|row| format!("row {row:?} is recorded and not at the hub")));
    let made_up = ids_of_row.keys().filter(|row| !fleet.ever.contains(*row));
    findings.extend(made_up.map(|row| format!("row {row:?} is at the hub, and no logger sent it")));
    let twice = ids_of_row.iter().filter(|(_, ids)| ids.len() > 1);
    findings.extend(twice.map(|(row, ids)| format!("row {row:?} came in {} messages", ids.len())));
    let documents = world.cosmos.plain_items();
    let bad = documents.iter().filter_map(|document| document["Result"]["BadRows"]["Count"].as_u64()).sum::<u64>();
    let bad = usize::try_from(bad)?;
    if bad != fleet.bad {
        findings.push(format!("{} bad rows were sent, the records have {bad}", fleet.bad));
    }
    let cursors: Vec<_> = documents.iter().filter(|document| document["Kind"] == "cursor").collect();
    let on_page = |name: &str| cursors.iter().filter_map(|cursor| cursor["Activity"][name].as_u64()).sum::<u64>();
    if on_page("UnusableRows") != fleet.bad as u64 {
        findings.push(format!("{} bad rows were sent, the page has {}", fleet.bad, on_page("UnusableRows")));
    }
    // A late row that comes with newer ones, or a row that is corrected before it was polled, is neither.
    if on_page("LateRows") > fleet.late as u64 || on_page("CorrectedRows") > fleet.corrected as u64 {
        findings.push(format!(
            "the page has {} late and {} corrected rows, {} and {} were sent",
            on_page("LateRows"),
            on_page("CorrectedRows"),
            fleet.late,
            fleet.corrected
        ));
    }
    for site in fleet.sites.iter().filter(|site| !site.rows.is_empty()) {
        let of_site = cursors.iter().filter(|cursor| cursor["Site_Uid"] == site.uid.as_str()).count();
        if of_site != 1 {
            findings.push(format!("{} has {of_site} cursors", site.name));
        }
    }
    Ok(Counted {
        renamed: fleet.sites.iter().filter(|site| site.name.ends_with("(new)")).count(),
        at_hub: fleet.good.len() - lost.len(),
        bad,
        repeats,
        lost: lost.len(),
    })
}
