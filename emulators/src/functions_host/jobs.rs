//! The host's job hosts, one after the other. At a restart two of them overlap, as in the real host
//! (`WebJobsScriptHostService.RestartHostAsync`).

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, task::JoinSet};

use super::job::{Job, Parts};

pub struct Jobs {
    pub parts: Parts,
    current: watch::Sender<Arc<Job>>,
    lives: Mutex<JoinSet<()>>,
    /// Held during a restart.
    restarting: tokio::sync::Mutex<()>,
}

impl Jobs {
    /// Starts the first one. Its handler is not ready yet.
    ///
    /// # Errors
    /// There is no handler to start.
    pub fn start(parts: Parts) -> anyhow::Result<Self> {
        let (job, supervision) = Job::new(&parts)?;
        let (job, mut lives) = (Arc::new(job), JoinSet::new());
        lives.spawn(job.clone().live(supervision, parts.options.run_at_start));
        let (current, lives) = (watch::Sender::new(job), Mutex::new(lives));
        Ok(Self { parts, current, lives, restarting: tokio::sync::Mutex::default() })
    }

    pub fn current(&self) -> Arc<Job> {
        self.current.borrow().clone()
    }

    /// Starts another one. At the same time the former one is told to stop. Its handler is asked to end when the calls
    /// from queues and timers have ended, which is at any rate after functionTimeout. HTTP calls go to the new handler
    /// from now on, and wait for it. Those in flight do not keep the old one.
    ///
    /// # Errors
    /// Says why the new handler is gone.
    pub async fn restart(&self) -> Result<(), String> {
        let _only_one = self.restarting.lock().await;
        if self.parts.lifetime.stopping.is_cancelled() {
            return Err("the host stops".to_owned());
        }
        let (new, supervision) = Job::new(&self.parts).map_err(|error| error.to_string())?;
        let new = Arc::new(new);
        let old = self.current.send_replace(new.clone());
        {
            let mut lives = self.lives();
            lives.spawn(new.clone().live(supervision, false));
            old.lifetime.stopping.cancel();
            lives.spawn(async move {
                old.is_drained.cancelled().await;
                old.lifetime.stop.cancel();
            });
        }
        new.listens().await
    }

    /// Waits until the current handler, or the one after it, is gone for good. Returns the reason.
    pub async fn gone(&self) -> String {
        let mut current = self.current.subscribe();
        loop {
            let job = current.borrow_and_update().clone();
            tokio::select! {
                biased;
                Ok(()) = current.changed() => {}
                reason = job.handler.gone() => return reason,
            }
        }
    }

    /// Waits until all have ended.
    pub async fn ended(&self) {
        let mut lives = mem::take(&mut *self.lives());
        while lives.join_next().await.is_some() {}
    }

    /// Ends all at once. Dropping a process kills it.
    pub fn abort(&self) {
        self.lives().abort_all();
    }

    fn lives(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
