//! Tests `polls`, `backfill`, `import-sample` and `completions` as operators and scripts run them: as processes, against a backend, a
//! Cosmos DB and a hub. The tests look at the results from outside, as in `tests/forwarding`.

mod backfill;
mod crashes;
mod exit_codes;
mod help;
mod import_sample;
mod polls;
pub mod run;
mod trouble;
