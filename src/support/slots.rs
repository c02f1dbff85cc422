//! Lets as many callers pass at once as a service bears: see [`Adaptive`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::{sync::Semaphore, time::Instant};

use super::adaptive::{Adaptive, Ended};

/// Slots for requests to one service. First come, first served.
#[derive(Debug)]
pub struct Slots {
    free: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    adaptive: Adaptive,
    /// Free and taken.
    all: usize,
    in_flight: usize,
}

/// A slot for one request.
#[derive(Debug)]
pub struct Slot<'a> {
    slots: &'a Slots,
    began: Option<Instant>,
}

impl Slots {
    #[must_use]
    pub fn new(adaptive: Adaptive) -> Self {
        let all = adaptive.limit();
        Self { free: Semaphore::new(all), state: Mutex::new(State { adaptive, all, in_flight: 0 }) }
    }

    /// Waits for a free slot.
    pub async fn slot(&self) -> Slot<'_> {
        // The semaphore is never closed.
        if let Ok(permit) = self.free.acquire().await {
            permit.forget();
        }
        Slot { slots: self, began: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes or removes free slots, as the limit says.
    fn adjust(&self, state: &mut State) {
        let limit = state.adaptive.limit();
        if limit > state.all {
            self.free.add_permits(limit - state.all);
            state.all = limit;
        } else {
            state.all -= self.free.forget_permits(state.all - limit);
        }
    }
}

impl Slot<'_> {
    /// The request begins now.
    pub fn begin(&mut self) {
        self.began = Some(Instant::now());
        self.slots.state().in_flight += 1;
    }

    /// The request has ended. Whoever drops the slot instead learns nothing from it.
    pub fn end(self, is_overload: bool) {
        let Some(began) = self.began else { return };
        let mut state = self.slots.state();
        let in_flight = state.in_flight;
        state.adaptive.note(Ended { began, in_flight, is_overload }, Instant::now());
        self.slots.adjust(&mut state);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.in_flight -= usize::from(self.began.is_some());
        self.slots.free.add_permits(1);
        self.slots.adjust(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_slots_as_the_service_bears() {
        let slots = Slots::new(Adaptive::new(4, 2, 16));
        let pass = async |is_overload: bool| {
            let mut slot = slots.slot().await;
            slot.begin();
            let in_flight = slots.state().in_flight;
            tokio::time::sleep(Duration::from_millis(60)).await;
            slot.end(is_overload);
            in_flight
        };
        let most = async |is_overload| join_all((0..64).map(|_| pass(is_overload))).await.into_iter().max();
        assert_eq!(most(false).await, Some(16), "it grows to the highest");
        let _ = most(true).await;
        assert_eq!(most(true).await, Some(2), "and shrinks to the lowest");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_gives_its_slot_back() {
        let slots = Slots::new(Adaptive::new(1, 1, 1));
        for _ in 0..3 {
            let mut slot = slots.slot().await;
            slot.begin();
            let waits = tokio::time::timeout(Duration::from_millis(5), slots.slot());
            assert!(waits.await.is_err());
        }
        let State { all, in_flight, .. } = *slots.state();
        assert_eq!((all, in_flight, slots.free.available_permits()), (1, 0, 1));
    }
}
