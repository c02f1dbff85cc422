//! One run of the crash test from the rapidM2M backend to the hub, by the timer alone or through a storage queue.

use std::{cell::Cell, time::Duration};

use emulators::steps::Step;

use super::{Setup, plan::Spot};
use crate::{
    app,
    audit::Verdict,
    killer::Killer,
    rows::Producer,
    victim::{Kills, Victim},
    world::{World, poll, through_queue},
};

const SITES: [&str; 5] = ["Energy meter 1", "Well 7 / Level", "Reservoir Süd", "Pumping station", "Tank"];
/// How long the timer may run at the end until everything has arrived.
const SETTLING: Duration = Duration::from_secs(60);
/// Time between two uploads.
const UPLOAD: Duration = Duration::from_millis(4);

/// Sites in a batch.
const BATCH: usize = 2;

/// Only if they are polled through a queue.
const OF_QUEUE: [Spot; 2] = [Spot::new(Step::UplinkCalled, 3), Spot::new(Step::UplinkAnswered, 3)];
/// How often each step is reached soon after a start, with rows at all sites.
const SPOTS: [Spot; 16] = [
    Spot::new(Step::TimerCalled, 4),
    Spot::new(Step::TimerAnswered, 4),
    Spot::new(Step::RowsAsked, 12),
    Spot::new(Step::RowsAnswered, 12),
    // Once for each site: then the cursor is in memory.
    Spot::new(Step::CursorRead, 5),
    // Only pending polls of the previous life are read.
    Spot::new(Step::PollRead, 1).after(Step::MessageCame),
    Spot::new(Step::RecordCame, 10),
    Spot::new(Step::RecordApplied, 10),
    Spot::new(Step::RecordAnswered, 10),
    // All sites share one device, whose connection stays.
    Spot::new(Step::Connect, 1),
    Spot::new(Step::MessageCame, 10),
    Spot::new(Step::MessageTaken, 10),
    Spot::new(Step::MessageAnswered, 10),
    Spot::new(Step::MarkCame, 8),
    Spot::new(Step::MarkApplied, 8),
    Spot::new(Step::MarkAnswered, 8),
];

/// Carries out a run. Returns the kills, the verdict and the handler's log.
pub async fn run(setup: &Setup, seed: u64, has_queue: bool) -> anyhow::Result<(Kills, Verdict, Vec<String>)> {
    let (killer, sites) = (Killer::default(), SITES.map(str::to_owned));
    let world = World::start(&sites, killer.steps(), false).await?;
    let mut settings = world.settings();
    settings.insert("RecordEmptyPolls".to_owned(), seed.is_multiple_of(2).to_string());
    settings.insert("MarkWithinSeconds".to_owned(), (seed % 3).min(1).to_string());
    let (mut functions, mut spots) = (vec![app::POLLING], SPOTS.to_vec());
    if has_queue {
        functions = through_queue(&mut settings, BATCH).into();
        spots.extend(OF_QUEUE);
    }
    settings.extend(setup.settings.iter().cloned());
    let victim = Victim::start(killer, &setup.handler, &functions, settings, setup.kills).await?;
    let mut producer = Producer::new(seed, &sites);
    let is_over = Cell::new(false);
    let plan = setup.plan(seed, &spots);
    let (kills, produced, polled) = tokio::join!(
        async {
            let kills = victim.suffer(&plan).await;
            is_over.set(true);
            kills
        },
        world.produce(&mut producer, UPLOAD, &is_over),
        async {
            while !is_over.get() {
                poll(&victim.host).await?;
            }
            anyhow::Ok(())
        },
    );
    let kills = kills?;
    produced.and(polled)?;
    let mut findings = victim.findings();
    findings.extend(world.settle(&victim.host, &producer, SETTLING).await?);
    let mut verdict = world.audit(&producer, false).await?;
    verdict.findings.extend(findings);
    let log = victim.log();
    victim.host.stop().await;
    Ok((kills, verdict, log))
}
