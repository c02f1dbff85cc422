//! What the tests have in common: processes, their control endpoints, and questions about the outcome.

mod handler;
mod ledger;
mod messages;
mod process;
mod sas;
mod world;

#[allow(unused_imports, reason = "for tests/faults")]
pub use handler::Answer;
pub use handler::{Handler, TIMER, start_and_wait_for_exit};
#[allow(unused_imports, reason = "for tests/faults")]
pub use ledger::Ledger;
pub use messages::{Delivered, Row, delivered, row, rows, stamp};
#[allow(unused_imports, reason = "tests/faults starts its own")]
pub use process::{Emulator, Output, binary, client};
pub use sas::token;
pub use world::{CUSTOMER, Settings, World};
