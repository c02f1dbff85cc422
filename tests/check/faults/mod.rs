//! Every row with what can be wrong with it. Each fault has a world of its own.

mod backend;
mod case;
mod database;
mod hub;
mod provisioning;
