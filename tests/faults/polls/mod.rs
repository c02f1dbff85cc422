//! Tests rapidM2M sites under faults.

mod backend;
mod dps;
mod hub;
mod ledger;
mod mqtt;
mod run;
mod world;

pub use run::{assert_answers_complete, assert_complete};
pub use world::{Polled, platform, world};
