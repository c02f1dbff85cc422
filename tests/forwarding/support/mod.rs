//! What the tests have in common: processes, their control endpoints, and questions about the outcome.

mod handler;
mod ledger;
mod messages;
mod process;
mod sas;
mod world;

pub use handler::{Handler, TIMER, start_and_wait_for_exit};
pub use messages::{Delivered, Row, delivered, row, rows, stamp};
#[cfg(feature = "azure-iot-sdk")]
pub use process::Emulator;
pub use sas::token;
pub use world::{CUSTOMER, Settings, World};
