//! The commands for people, one file each, and what they share.

pub mod devices;
pub mod sas;
pub mod settings;
pub mod table;
pub mod time;
