//! The state of one owner's device in this process.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::{sync::watch, time::Instant};

use super::{DeviceError, Owner, documents, dps::Assignment};
use crate::iot_hub::Device;

pub struct Entry {
    pub owner: Arc<Owner>,
    /// The registration id.
    pub id: String,
    /// The document's id.
    pub document_id: String,
    /// Callers that wait for the device watch it.
    pub state: watch::Sender<State>,
    notes: Mutex<Notes>,
}

/// How far the search for the device has come.
#[derive(Clone)]
pub enum State {
    Unknown,
    /// The device is looked up in the store.
    LookingUp,
    /// The device is not in the store, or its document no longer applies.
    Registering,
    Known(Known),
    Failed {
        error: DeviceError,
        /// Until then, all callers get the same error.
        retry_at: Instant,
    },
}

#[derive(Clone)]
pub struct Known {
    pub device: Arc<Device>,
    pub registered_at: DateTime<Utc>,
}

/// Facts that must survive a failed attempt.
#[derive(Clone, Default)]
pub struct Notes {
    /// `RegisteredAt` of the device that the hub refused. This device is registered again.
    pub refused: Option<DateTime<Utc>>,
    /// How often the device was registered again at short intervals because the hub refused it.
    pub refusals: u32,
    /// An assignment that is not in the store yet. It is kept, because registrations are billed.
    pub unrecorded: Option<Assignment>,
}

/// A guard for the task that finds the device. It sets the state when the task ends, also if the task is dropped in the
/// middle.
pub struct Settles<'a> {
    entry: &'a Entry,
    state: Option<State>,
}

impl Settles<'_> {
    pub fn with(mut self, state: State) {
        self.state = Some(state);
    }
}

impl Drop for Settles<'_> {
    fn drop(&mut self) {
        let state = self.state.take().unwrap_or_else(|| {
            let (owner, id) = (self.entry.owner.clone(), self.entry.id.clone());
            State::Failed { error: DeviceError::Unexpected { owner, id }, retry_at: Instant::now() }
        });
        self.entry.state.send_replace(state);
    }
}

impl Entry {
    pub fn new(owner: Owner) -> Self {
        let id = owner.registration_id();
        Self {
            document_id: documents::id(&id, owner.port()),
            owner: Arc::new(owner),
            id,
            state: watch::Sender::new(State::Unknown),
            notes: Mutex::default(),
        }
    }

    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// For the caller that got `true` from [`begin`](Self::begin). Without this guard, a panic would leave all other
    /// callers waiting.
    pub fn settles(&self) -> Settles<'_> {
        Settles { entry: self, state: None }
    }

    /// Whether the caller must find the device: no other task is doing so, and no valid result is known.
    pub fn begin(&self) -> bool {
        self.state.send_if_modified(|state| {
            let is_settled = match state {
                State::Unknown => false,
                State::Failed { retry_at, .. } => *retry_at > Instant::now(),
                State::LookingUp | State::Registering | State::Known(_) => true,
            };
            if !is_settled {
                *state = State::LookingUp;
            }
            !is_settled
        })
    }
}
