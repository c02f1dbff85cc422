//! Checks the protocol of cursor and records in all its interleavings. Two pollers of one site run the product's own
//! code ([`Forwarder`](iothub_connector::rapidm2m::polling::Forwarder)). After each of their questions the world
//! decides which poller continues and what goes wrong. The model visits every state within the stated bounds and checks
//! every rule at every step.
//!
//! | Module | |
//! |---|---|
//! | `spaces` | the tests, with the bounds of each space |
//! | `spaces::rows` | values that change, rows that cannot be used |
//! | `spaces::listing` | sites that get another name, or are not listed for a while |
//! | `broken_worlds` | the tests of the model itself: a world that breaks a promise must break its rule |
//! | `scope` | the bounds of a space; the faults that can be made on purpose |
//! | `rules` | the rules |
//! | `poller` | the product's code, run up to its next question |
//! | `world`, `backend`, `store`, `hub` | the services; each rule is checked where its subject changes |
//! | `events` | what happens whatever the pollers do |
//! | `late`, `corrections`, `unusable` | the rules for late rows, for changed values, for rows that cannot be used |
//! | `listing` | what a turn is told of the site, and the rules for that |
//! | `facts` | what a poller may write, given the answers that it got |
//! | `outcomes` | how a question can end |
//! | `state` | one state of everything, and the steps from it |
//! | `explorer`, `settling` | all steps from all states; whether a new poller can finish the remaining work |
//! | `key`, `text` | when two states count as the same |
//! | `story` | the way to a violation, in words |
//!
//! `-- --nocapture` prints how many states each space has. A larger one (1.5 million states, 1 GB of memory, some minutes):
//! `MODEL_FAULTS=2 MODEL_CRASHES=1 cargo test --release --test model within_bounds -- --nocapture`.
//! With late rows: `MODEL_FAULTS=1 MODEL_CRASHES=1 cargo test --release --test model late_rows_from -- --nocapture`; in the same
//! way `corrections_with`, `unusable_rows_with`, `renames_with` and `is_gone_and_comes_back`.

mod backend;
mod broken_worlds;
mod corrections;
mod events;
mod explorer;
mod facts;
mod hub;
mod key;
mod late;
mod listing;
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
mod unusable;
mod world;
