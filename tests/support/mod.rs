//! The parts that all tests share: processes, their control endpoints, and checks of the outcome.

mod authority;
mod handler;
mod ledger;
mod messages;
mod process;
mod sas;
mod storage;
mod webhooks;
mod within;
mod world;

pub use authority::Authority;
pub use handler::{Answer, Handler, TIMER, start_and_wait_for_exit};
pub use ledger::Ledger;
pub use messages::{Delivered, Row, delivered, row, rows, stamp};
pub use process::{Emulator, Output, binary, client};
pub use sas::token;
pub use storage::Storage;
pub use webhooks::{put_webhook, stack_api};
pub use world::{CUSTOMER, Settings, World};
