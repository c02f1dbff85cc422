//! What the process knows of one owner's device.

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
    /// Whoever waits watches it.
    pub state: watch::Sender<State>,
    notes: Mutex<Notes>,
}

/// How far it has come.
#[derive(Clone)]
pub enum State {
    Unknown,
    /// In the store.
    LookingUp,
    /// It is not in the store, or not any more what it was.
    Registering,
    Known(Known),
    Failed {
        error: DeviceError,
        /// Whoever asks before is told the same.
        retry_at: Instant,
    },
}

#[derive(Clone)]
pub struct Known {
    pub device: Arc<Device>,
    pub registered_at: DateTime<Utc>,
}

/// What must not be forgotten when an attempt fails.
#[derive(Clone, Default)]
pub struct Notes {
    /// `RegisteredAt` of the device that the hub refused: to be registered again.
    pub refused: Option<DateTime<Utc>>,
    /// How often it was registered again because the hub refused it, without much time in between.
    pub refusals: u32,
    /// Assigned, but not yet in the store. Registrations are billed: it is kept.
    pub unrecorded: Option<Assignment>,
}

/// The promise of whoever has begun: sets the state when it is kept, and also when it is dropped in the middle.
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

    /// For the one that [`begin`](Self::begin) has told to find the device: without it a panic would leave all others waiting.
    pub fn settles(&self) -> Settles<'_> {
        Settles { entry: self, state: None }
    }

    /// Whether the caller is to find the device: nobody does, and nothing is known that holds.
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
