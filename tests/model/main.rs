//! The protocol of cursor and records, tried in all its interleavings: two pollers of one site, each with the product's own
//! code ([`Forwarder`](iothub_connector::rapidm2m::polling::Forwarder)), in a world that decides after each of their questions who
//! goes on and what goes wrong. Every state within the stated bounds is visited, and every rule checked at every step.
//!
//! | Module | |
//! |---|---|
//! | `spaces` | the tests: the bounds of what is tried |
//! | `broken_worlds` | the tests of the model itself: a world that breaks a promise must break the rule that rests on it |
//! | `scope` | what bounds a space; what can be broken on purpose |
//! | `rules` | what must hold |
//! | `poller` | the product's code, run up to its next question |
//! | `world`, `backend`, `store`, `hub` | what answers; the rules are checked where their subject changes |
//! | `late` | what must hold of late rows |
//! | `facts` | what a poller may write, by what it was told |
//! | `outcomes` | how a question can end |
//! | `state` | one state of everything, and the steps from it |
//! | `explorer`, `settling` | all steps from all states; whether a new poller can finish what is left |
//! | `key`, `text` | which states are the same |
//! | `story` | the way to a violation, in words |
//!
//! `-- --nocapture` prints how many states each space has. A larger one (1.3 million states, 1 GB of memory, some minutes):
//! `MODEL_FAULTS=2 MODEL_CRASHES=1 cargo test --release --test model within_bounds -- --nocapture`.
//! With late rows: `MODEL_FAULTS=1 MODEL_CRASHES=1 cargo test --release --test model late_rows_from -- --nocapture`.

mod backend;
mod broken_worlds;
mod explorer;
mod facts;
mod hub;
mod key;
mod late;
mod outcomes;
mod poller;
mod rules;
mod scope;
mod settling;
mod spaces;
mod state;
mod store;
mod story;
mod text;
mod world;
