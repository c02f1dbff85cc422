//! rapidM2M sites under faults.

mod backend;
mod dps;
mod hub;
mod ledger;
mod mqtt;
mod run;
mod world;
