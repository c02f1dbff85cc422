//! The rapidM2M (myDatanet) backend: its REST API, its stamps, its answers.
//!
//! The vendor's documentation is not public; what is known comes from its published samples and drivers. Where those
//! leave a question open (are bounds inclusive? are rows sorted?), the code works with either answer.

pub mod backfill;
pub mod client;
pub mod ledger;
pub mod polling;
pub mod replay;
mod selection;
pub mod stamp;
pub mod window;
pub mod wire;

pub use client::{Client, FetchError, Me};
pub use selection::{Selection, StartFrom};
pub use stamp::Stamp;
pub use wire::{Row, Rows};
