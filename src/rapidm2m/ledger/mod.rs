//! The ledger: every poll and its result, and how far each site has come, in Cosmos DB.
//!
//! A row is recorded here before it is sent anywhere, and a site's cursor moves in the same transaction that records the
//! rows. Both kinds of documents of a site share a partition, which is what makes that transaction possible. A backfill is a second cursor in it, for one range of time.

mod activity;
mod backfill;
mod cosmos;
pub mod documents;
mod queries;
mod recorded;

pub use activity::Activity;
pub use backfill::{Backfill, backfill_id};
pub use cosmos::{
    Committed, Ledger, LedgerError, MAX_BATCH_BYTES, MAX_BATCH_POLLS, MESSAGE_PATH, Options, PARTITION_KEY,
    REQUIREMENTS,
};
pub use documents::{BadRows, Cursor, Fault, Outcome, Poll, PollKind, PollResult, Request, SiteKey};
pub use queries::PollQuery;
pub use recorded::Recorded;
