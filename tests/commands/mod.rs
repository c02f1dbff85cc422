//! `polls`, `backfill` and `completions`, as they are run by hand and by scripts: processes, against a backend, a Cosmos DB and
//! a hub. What they did is looked at from outside, as in `tests/forwarding`.

mod backfill;
mod crashes;
mod help;
mod polls;
mod run;
mod trouble;
