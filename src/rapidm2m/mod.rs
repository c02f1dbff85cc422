//! Everything for rapidM2M (myDatanet): polls the sites of a backend, records their rows in the ledger, and forwards
//! them to the hub.
//!
//! | Module | |
//! |---|---|
//! | `polling` | a run over all sites, and one site's turn in it |
//! | `backfill` | fetches a time range of one site, independently of its polling |
//! | `replay` | puts rejected messages back into the queue |
//! | `sample` | how far the C# sample has come |
//! | `ledger` | polls, results and cursors in Cosmos DB |
//! | `client` | requests to the backend's REST API |
//! | `gate` | when a request may be made: the credentials, the rate, how many at once |
//! | `columns` | one list of channels over several requests |
//! | `site`, `directory` | what a site is; which site a name means |
//! | `wire`, `stamp` | turn bytes into rows, and the backend's digits into times |
//! | `window` | which time window to request next |
//! | `selection` | which sites and channels to poll, and from which time on |
//!
//! The vendor's documentation is not public. The facts come from its published samples and drivers. Where those leave a
//! question open (are bounds inclusive? are rows sorted?), the code works with either answer.

pub mod backfill;
pub mod client;
mod columns;
pub mod directory;
pub mod gate;
pub mod ledger;
pub mod polling;
pub mod replay;
pub mod sample;
mod selection;
pub mod site;
pub mod stamp;
pub mod window;
pub mod wire;

pub use client::{Client, FetchError, Me};
pub use selection::{Selection, StartFrom};
pub use site::Site;
pub use stamp::Stamp;
pub use wire::{Row, Rows};
