//! Runs a cell of a table of polls: a run under the fault, then the recovery.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::join;

use super::world::{Polled, SITE, world};
use crate::{
    faults::{
        cell::{Cell, Line, Recovers},
        fault::Fault,
        table,
    },
    support::{Answer, Emulator, World},
};

/// The service with the fault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Backend,
    Cosmos,
    Hub,
    Dps,
}

/// When the fault begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// With the very first run.
    First,
    /// After a good run.
    Warm,
    /// After a good run and a restart.
    Restarted,
    /// After a run without a hub and a restart: a record is pending.
    Waiting,
}

/// When the port closes, for [`Fault::Refused`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Closes {
    Before,
    /// When the hub has got the run's message.
    OnceReceived,
    /// When the device is registered but not assigned yet.
    OnceRegistered,
}

#[derive(Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    pub service: Service,
    /// Members of the rule that select the requests.
    pub rule: fn() -> Value,
    pub begins: Begins,
    pub closes: Closes,
    pub timeout: u32,
    /// A delay within the time-out.
    pub slow_ms: u64,
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether the site is a device of its own.
    pub is_provisioned: bool,
}

/// The longest time for a recovery.
const PATIENCE: Duration = Duration::from_secs(75);

pub async fn run(of: Table, cells: &[Cell]) -> Vec<String> {
    table::run(of.name, cells.to_vec(), |cell| cell.fault.name(), |cell| one(of, cell)).await
}

async fn one(of: Table, cell: Cell) -> Line {
    let mut polled = begin(&of).await;
    let effect = cell.fault.effect(of.slow_ms);
    let is_closing = effect.is_none();
    let run = polled
        .observe(
            async |polled| {
                if let Some(effect) = effect {
                    let mut rule = (of.rule)();
                    rule["effect"] = effect;
                    of.emulator(&polled.world).put("trouble", json!([rule])).await;
                    return polled.invoke().await;
                }
                let Polled { world, handler, .. } = &*polled;
                let closing = async {
                    match of.closes {
                        Closes::Before => {}
                        Closes::OnceReceived => drop(world.hub.get("received?wait=2").await),
                        Closes::OnceRegistered => drop(world.hub.get("dps/registrations?wait=1").await),
                    }
                    of.away(world, true).await;
                };
                if of.closes == Closes::Before {
                    closing.await;
                    return polled.invoke().await;
                }
                join!(handler.invoke(), closing).0
            },
            async |world| {
                if is_closing {
                    of.away(world, false).await;
                } else {
                    let met = of.emulator(world).get("trouble").await[0]["met"].clone();
                    assert!(met.as_u64() > Some(0), "the fault was not met");
                    of.emulator(world).delete("trouble").await;
                }
                world.hub.heal().await;
            },
        )
        .await;
    assert_eq!(
        (run.outcomes().as_str(), run.kinds().as_str()),
        (cell.recorded, cell.kind),
        "{}",
        polled.told(&run.answer)
    );
    for text in run.texts() {
        let is_readable = !text.chars().any(char::is_control) && text.len() < 600;
        assert!(is_readable && text.contains(cell.says), "{:?} is not in {text:?}", cell.says);
        polled.logged(&text).await;
    }
    let seen = run.seen_text(&polled.world);
    let sent = polled.world.hub.get("counts").await["messages"].as_u64();
    recover(&mut polled, &cell, &run.answer).await;
    if cell.recovers == Recovers::SameRun {
        assert!(sent > Some(0), "nothing arrived in the same run");
    }
    polled.assert_all_is_well().await;
    Line { fault: cell.fault.name(), recorded: run.recorded_text(), seen, recovers: cell.recovers.text() }
}

async fn begin(of: &Table) -> Polled {
    let mut world = world().await;
    if of.is_provisioned {
        world.provision_sites().await;
    }
    world.set("PollTimeoutSeconds", &of.timeout.to_string());
    for (name, value) in of.settings {
        world.set(name, value);
    }
    if of.closes == Closes::OnceReceived {
        // Leaves time to close the port between the message and its mark.
        world.hub.put("faults", json!({"pubackDelayMs": 4_000})).await;
    }
    if of.closes == Closes::OnceRegistered {
        world.hub.put("dps/settings", json!({"retryAfterSeconds": 3})).await;
    }
    let mut polled = Polled::start(world).await;
    polled.add_rows().await;
    match of.begins {
        Begins::First => return polled,
        Begins::Warm => polled.invoke_ok().await,
        Begins::Restarted => {
            polled.invoke_ok().await;
            polled.restart().await;
        }
        Begins::Waiting => {
            polled.world.hub.away(true).await;
            let answer = polled.invoke().await;
            assert_eq!(answer.status, 500, "the hub is away");
            polled.world.hub.away(false).await;
            polled.restart().await;
        }
    }
    polled.add_rows().await;
    polled
}

async fn recover(polled: &mut Polled, cell: &Cell, answer: &Answer) {
    let status = answer.status;
    match cell.recovers {
        Recovers::SameRun => {
            assert_eq!(status, 200);
            assert_eq!(polled.world.cursor(SITE).await["Unforwarded"], json!([]), "it is there");
        }
        Recovers::NextRun => {
            assert!(status == 500 || cell.kind == "-");
            polled.invoke_ok().await;
            assert_eq!(polled.world.cursor(SITE).await["Unforwarded"], json!([]), "it is there");
        }
        Recovers::WhenAsked => {
            let answer = polled.invoke().await;
            assert_eq!((answer.status, answer.failed()[0].1.as_str()), (500, cell.kind), "it waits as it was asked to");
            polled.invoke_until_ok(PATIENCE).await;
        }
        Recovers::BackOff => {
            let failed = answer.failed().remove(0).0;
            let cursor = polled.world.cursor(&failed).await;
            let until = cursor["NotBefore"].as_str().expect("it rests").parse::<DateTime<Utc>>().unwrap();
            let seconds = (until - Utc::now()).num_seconds();
            assert!((30..=60).contains(&seconds), "the first rest is a minute: {seconds}");
            let answer = polled.invoke().await;
            assert_eq!((answer.status, answer.failed()[0].1.as_str()), (500, cell.kind), "it is left alone");
            polled.restart().await;
            polled.invoke_ok().await;
        }
        Recovers::Soon => drop(polled.invoke_until_ok(PATIENCE).await),
    }
}

impl Table {
    fn emulator<'a>(&self, world: &'a World) -> &'a Emulator {
        match self.service {
            Service::Backend => &world.backend,
            Service::Cosmos => &world.cosmos,
            Service::Hub | Service::Dps => &world.hub,
        }
    }

    async fn away(&self, world: &World, away: bool) {
        let path = if self.service == Service::Dps { "dps/away" } else { "away" };
        self.emulator(world).put(path, away.into()).await;
    }
}

/// The values of most tables.
pub const USUAL: Table = Table {
    name: "",
    service: Service::Backend,
    rule: || json!({}),
    begins: Begins::Warm,
    closes: Closes::Before,
    timeout: 8,
    slow_ms: 1_000,
    settings: &[],
    is_provisioned: false,
};

/// Asserts that the table has all faults, in the usual order.
pub fn assert_complete(cells: &[Cell]) {
    assert!(cells.iter().any(|cell| cell.fault == Fault::Refused), "a port that is closed is missing");
    assert_answers_complete(cells);
}

/// As [`assert_complete`], for a service without a port of its own.
pub fn assert_answers_complete(cells: &[Cell]) {
    let faults: Vec<_> = cells.iter().map(|cell| cell.fault).collect();
    let wanted = [401, 403, 404, 408, 412].map(Fault::Status);
    for fault in [Fault::Silent, Fault::TooSlow, Fault::Slow, Fault::CutBody, Fault::Garbage]
        .into_iter()
        .chain(wanted)
        .chain([429, 500, 503].map(Fault::Status))
        .chain([Fault::ContentType, Fault::Echo])
    {
        assert!(faults.contains(&fault), "{} is missing", fault.name());
    }
    assert!(faults.iter().any(|fault| matches!(fault, Fault::StatusAfter(429, _))), "429 with Retry-After is missing");
}
