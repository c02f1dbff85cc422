//! The commands for users, one file each, and the parts that they share.

pub mod backfill;
pub mod check;
pub mod completions;
pub mod devices;
pub mod exit;
pub mod import_sample;
pub mod interrupt;
pub mod polls;
pub mod replay;
pub mod sas;
pub mod serve;
pub mod settings;
pub mod similar;
mod sites;
pub mod table;
pub mod things_stack;
pub mod time;
