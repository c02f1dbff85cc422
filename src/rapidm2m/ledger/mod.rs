//! Keeps in Cosmos DB every poll with its result, and how far each site has come, so that a crash loses no row.
//!
//! A row is recorded here before it is sent, and a site's cursor moves in the same transaction that records the rows.
//! That transaction is possible because both kinds of documents of a site share a partition. A backfill is another
//! cursor in the same partition, for one time range.

mod activity;
mod backfill;
mod cosmos;
pub mod documents;
mod outcome;
mod queries;
mod recorded;
mod unforwarded;

pub use activity::Activity;
pub use backfill::BackfillRange;
pub use cosmos::{
    Committed, Ledger, LedgerError, MAX_BATCH_BYTES, MAX_BATCH_POLLS, MESSAGE_PATH, Options, PARTITION_KEY,
    REQUIREMENTS,
};
pub use documents::{
    ALL_SITES, Backfill, BadRows, Cursor, EmptyPolls, Fault, Poll, PollKind, PollResult, Request, SiteKey,
};
pub use outcome::Outcome;
pub use queries::{Changes, PollList, PollQuery, Rejected};
pub use recorded::{Recorded, Seen, Stamped};
pub use unforwarded::{Kept, Unforwarded};
