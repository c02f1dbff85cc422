//! Runs the handler under the Functions host and kills it as planned.

use std::{
    collections::{BTreeMap, VecDeque},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use emulators::{
    functions_host::{self, Emulator, Event},
    steps::Step,
};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    app::{self, Function},
    crash::Kill,
    killer::Killer,
};

/// How long to wait for a step. After that the handler is killed wherever it is.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// How long the host may take to start the next handler.
const LONGEST_START: Duration = Duration::from_secs(20);
/// How often the handler may end by itself before the host gives up. Each time is a finding.
const SPARE_RESTARTS: usize = 2;
/// Lines of the handler's output that are kept.
const KEPT: usize = 300;
const SIGKILL: i32 = 9;

/// Where the handler was killed, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    pub at: BTreeMap<Step, usize>,
    pub at_moments: usize,
    /// Killed elsewhere, because the step was not reached in time.
    pub missed: BTreeMap<Step, usize>,
}

impl Kills {
    pub fn total(&self) -> usize {
        self.at.values().sum::<usize>() + self.at_moments + self.missed.values().sum::<usize>()
    }

    pub fn add(&mut self, other: &Self) {
        for (all, some) in [(&mut self.at, &other.at), (&mut self.missed, &other.missed)] {
            some.iter().for_each(|(step, count)| *all.entry(*step).or_default() += count);
        }
        self.at_moments += other.at_moments;
    }
}

/// A handler that is restarted after every kill.
pub struct Victim {
    pub host: Emulator,
    killer: Killer,
    lives: watch::Receiver<usize>,
    told: Arc<Mutex<Told>>,
    /// The app's folder. It is removed at the end.
    _app: tempfile::TempDir,
    _watching: JoinSet<()>,
}

/// The host's reports so far.
#[derive(Default)]
struct Told {
    pid: Option<u32>,
    log: VecDeque<String>,
    /// Events that must not happen.
    findings: Vec<String>,
}

impl Victim {
    pub async fn start(
        killer: Killer,
        handler: &Path,
        functions: &[Function],
        settings: BTreeMap<String, String>,
        kills: usize,
    ) -> anyhow::Result<Self> {
        let app = app::folder(functions)?;
        let options = functions_host::Options {
            app: app.path().to_owned(),
            handler: Some(handler.to_owned()),
            env: settings.into_iter().collect(),
            schedule: Some(app::NEVER.to_owned()),
            restarts: kills + SPARE_RESTARTS,
            steps: killer.steps(),
            ..functions_host::Options::default()
        };
        let host = functions_host::start(options).await.context("the handler does not start")?;
        let (lives_here, lives) = watch::channel(0);
        let told = Arc::default();
        let mut watching = JoinSet::new();
        watching.spawn(watch_events(host.events(), killer.clone(), lives_here, Arc::clone(&told)));
        Ok(Self { host, killer, lives, told, _app: app, _watching: watching })
    }

    /// Kills the handler as planned, each time after the host has restarted it.
    ///
    /// # Errors
    /// The host does not restart it.
    pub async fn suffer(&self, plan: &[Kill]) -> anyhow::Result<Kills> {
        let (mut kills, mut lives) = (Kills::default(), self.lives.clone());
        for (kill, life) in plan.iter().zip(1..) {
            self.lives(&mut lives, life).await?;
            match *kill {
                Kill::After(time) => {
                    sleep(time).await;
                    self.killer.kill();
                    kills.at_moments += 1;
                }
                Kill::At { step, nth } => {
                    let mut done = self.killer.kills();
                    self.killer.arm(step, nth);
                    let is_hit = timeout(LONGEST_WAIT, done.changed()).await.is_ok();
                    // The step may have been reached between the time-out and this call.
                    if is_hit || !self.killer.disarm() {
                        *kills.at.entry(step).or_default() += 1;
                    } else {
                        self.killer.kill();
                        *kills.missed.entry(step).or_default() += 1;
                    }
                }
            }
        }
        self.lives(&mut lives, plan.len() + 1).await?;
        Ok(kills)
    }

    /// Waits until the handler was started this many times.
    async fn lives(&self, lives: &mut watch::Receiver<usize>, life: usize) -> anyhow::Result<()> {
        let started = timeout(LONGEST_START, lives.wait_for(|lives| *lives >= life)).await;
        if !matches!(started, Ok(Ok(_))) {
            bail!(
                "the host did not start the handler again: {}\n{}",
                self.findings().join(", "),
                self.log().join("\n")
            );
        }
        Ok(())
    }

    /// The handler's process id, while there is a process.
    pub fn pid(&self) -> Option<u32> {
        lock(&self.told).pid
    }

    /// Events that must not have happened, each as a sentence.
    pub fn findings(&self) -> Vec<String> {
        lock(&self.told).findings.clone()
    }

    /// The last lines of the handlers.
    pub fn log(&self) -> Vec<String> {
        lock(&self.told).log.iter().cloned().collect()
    }
}

async fn watch_events(
    mut events: broadcast::Receiver<Event>,
    killer: Killer,
    lives: watch::Sender<usize>,
    told: Arc<Mutex<Told>>,
) {
    loop {
        match events.recv().await {
            Ok(Event::HandlerStarted { pid }) => {
                note(&told, format!("-- handler {pid}"));
                lock(&told).pid = Some(pid);
                killer.aim(Some(pid));
                lives.send_modify(|lives| *lives += 1);
            }
            Ok(Event::HandlerExited { status }) => {
                killer.aim(None);
                lock(&told).pid = None;
                if status.signal() != Some(SIGKILL) {
                    lock(&told).findings.push(format!("the handler ended by itself, {status}"));
                }
            }
            Ok(Event::Line { text, .. }) => {
                if text.contains("panicked at") {
                    lock(&told).findings.push(format!("the handler: {text}"));
                }
                note(&told, text);
            }
            Ok(Event::Stopped { reason }) => lock(&told).findings.push(format!("the host gave up: {reason}")),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                lock(&told).findings.push(format!("{missed} events of the host were missed: the kills are not sure"));
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn note(told: &Mutex<Told>, line: String) {
    let log = &mut lock(told).log;
    if log.len() == KEPT {
        log.pop_front();
    }
    log.push_back(line);
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
