//! Tests every row with every fault that it can report. Each fault has a world of its own.

mod backend;
mod case;
mod database;
mod hub;
mod provisioning;
