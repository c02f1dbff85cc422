//! The commands for people, one file each, and what they share.

pub mod backfill;
pub mod check;
pub mod completions;
pub mod devices;
pub mod polls;
pub mod replay;
pub mod sas;
pub mod settings;
mod similar;
pub mod table;
pub mod time;
