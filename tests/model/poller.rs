//! Runs the product's own code up to a poller's next question. The poller's actions depend only on its memory and on
//! the answers in this turn. So the model keeps a poller in the middle of its turn as memory and answers, and runs it
//! again from the start when the next answer comes.

use std::{
    collections::VecDeque,
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll as Progress, Waker},
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use iothub_connector::{
    iot_hub::{Message, delivery::DeliveryError, devices::Owner},
    rapidm2m::{
        FetchError, Selection, Site, Stamp, StartFrom,
        client::{Answer as Rows, Limit, Range, RowsQuery},
        ledger::{BackfillRange, Committed, Cursor, LedgerError, Poll, SiteKey},
        polling::{Forwarder, Limits, Report, SiteMemory, world::World},
    },
};
use tokio::time::Instant;

use crate::{
    listing::{Listing, Task, site_called},
    text::Known,
};

/// 2026-01-01T00:00:00Z: the model's start. All rows are older.
pub const BEGINNING: i64 = 1_767_225_600;
/// Milliseconds between the clocks of two turns. They make the bytes differ if the same rows are recorded twice.
const TURN: u32 = 10;
const FAR_AWAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A poller's request to the world.
pub enum Question {
    Cursor,
    Record(String),
    Rows(Range),
    Commit(Arc<Known<Write>>),
    Send(Vec<Message>),
}

/// A transaction.
#[derive(Clone)]
pub struct Write {
    pub created: Vec<Poll>,
    pub replaced: Vec<Poll>,
    pub cursor: Cursor,
    pub etag: Option<String>,
}

#[derive(Clone)]
pub enum Answer {
    Cursor(Result<Box<Committed>, LedgerError>),
    Record(Result<Option<Box<Poll>>, LedgerError>),
    Rows(Result<Bytes, FetchError>),
    Commit(Result<String, LedgerError>),
    Sent(usize, Result<(), DeliveryError>),
}

/// The conditions at the start of a turn.
#[derive(Clone, Copy)]
pub struct Start {
    /// A different number for each turn of all pollers. It makes clocks and ids different.
    pub number: u32,
    /// All clocks stand still: narrowed windows depend on the clock, so moving clocks would give an endless number of
    /// windows. And a cursor that keeps a record must be told from another poller's even if both were written at once.
    pub clock_stands: bool,
    /// Seconds since [`BEGINNING`].
    pub seconds: i64,
    /// The time for polling the backend is already over.
    pub is_late: bool,
    /// The overlap, in seconds.
    pub overlap: Option<u8>,
    pub listing: Listing,
    /// Only what is acknowledged is marked, as at the end of a process.
    pub only_marks: bool,
    /// A small record stays in the cursor until it is marked.
    pub keeps_records: bool,
    /// What the site is called for the poller: the name of the listing.
    pub called: &'static str,
}

/// How far a poller has come.
pub enum Stands {
    Asking {
        question: Question,
        /// Its memory if the turn was dropped here, as at the end of an invocation's time.
        if_dropped: Box<SiteMemory>,
    },
    AtEnd(Box<Report>, Box<SiteMemory>),
}

/// Runs a turn from its start, with these answers.
pub fn run(memory: &SiteMemory, start: Start, answers: &[Arc<Known<Answer>>]) -> Stands {
    fastrand::seed(u64::from(start.number));
    let answers = Mutex::new(answers.iter().cloned().collect());
    let forwarder = Forwarder {
        world: Seat { start, answers, question: Mutex::default(), readings: AtomicU32::new(0) },
        channels: Selection::Named(vec!["ch0".into()]),
        histdata: 0,
        start_from: StartFrom::All,
        overlap: start.overlap.map(|seconds| Duration::from_secs(seconds.into())),
        corrections: true,
        record_empty_polls: true,
        mark_within: start.keeps_records.then_some(FAR_AWAY),
    };
    let (site, mut memory) = (site_called(start.called), memory.clone());
    let now = Instant::now();
    let far = now + FAR_AWAY;
    let ask_until = if start.is_late { now } else { far };
    let limits =
        Limits { ask_until, answer: FAR_AWAY, resend_until: far, send_until: far, provision_until: far, begins: true };
    let progress = {
        let turn = pin!(async {
            match start.listing.task {
                _ if start.only_marks => forwarder.mark_site(&site, &mut memory, limits).await,
                Task::Poll => forwarder.poll_site(&site, &mut memory, limits).await,
                Task::Send => forwarder.send_site(&site, &mut memory, limits).await,
                Task::Leave => forwarder.leave_site(&site, &mut memory, limits).await,
            }
        });
        turn.poll(&mut Context::from_waker(Waker::noop()))
    };
    match progress {
        Progress::Ready(report) => Stands::AtEnd(Box::new(report), Box::new(memory)),
        Progress::Pending => {
            let question = forwarder.world.question.into_inner().expect("nothing panics while it is set");
            Stands::Asking {
                question: question.expect("a turn waits for nothing but the world"),
                if_dropped: Box::new(memory),
            }
        }
    }
}

/// The world as a turn sees it: it gives the known answers, and then no more.
struct Seat {
    start: Start,
    answers: Mutex<VecDeque<Arc<Known<Answer>>>>,
    question: Mutex<Option<Question>>,
    /// The number of clock readings.
    readings: AtomicU32,
}

impl Seat {
    async fn ask(&self, question: impl FnOnce() -> Question) -> Answer {
        let answer = self.answers.lock().expect("nothing panics while it is taken").pop_front();
        if let Some(answer) = answer {
            return Answer::clone(&answer);
        }
        *self.question.lock().expect("nothing panics while it is set") = Some(question());
        pending().await
    }
}

impl World for Seat {
    fn now(&self) -> DateTime<Utc> {
        let reading = self.readings.fetch_add(1, Ordering::Relaxed);
        let millis = if self.start.clock_stands { 0 } else { (self.start.number * TURN + reading) % 1_000 };
        let time = DateTime::from_timestamp(BEGINNING + self.start.seconds, 0).expect("a time of this century");
        time + TimeDelta::milliseconds(millis.into())
    }

    /// What a poll took is in its record, and must not make two ways different.
    fn elapsed(&self, _since: Instant) -> Duration {
        Duration::ZERO
    }

    async fn rows(&self, query: &RowsQuery<'_>, _max_body: usize, _limit: Limit) -> Result<Rows, FetchError> {
        // Real time decides when a turn looks for rows of a reset clock. There are none.
        if query.range == (Range::Window { from: Stamp::BEGINNING, until: Stamp::parse("20010101") }) {
            return Ok(Rows { status: 200, body: Bytes::from_static(b"[]") });
        }
        match self.ask(|| Question::Rows(query.range)).await {
            Answer::Rows(answer) => answer.map(|body| Rows { status: 200, body }),
            _ => unreachable!("the answer is one to the question"),
        }
    }

    async fn channels(&self, _site: &Site, _histdata: u8, _limit: Limit) -> Result<Vec<String>, FetchError> {
        unreachable!("the channels are named")
    }

    fn history_seconds(&self) -> Option<u32> {
        None
    }

    async fn cursor(&self, _key: &SiteKey, _range: Option<BackfillRange>) -> Result<Committed, LedgerError> {
        match self.ask(|| Question::Cursor).await {
            Answer::Cursor(answer) => answer.map(|committed| *committed),
            _ => unreachable!("the answer is one to the question"),
        }
    }

    async fn poll(&self, _key: &SiteKey, id: &str) -> Result<Option<Poll>, LedgerError> {
        match self.ask(|| Question::Record(id.to_owned())).await {
            Answer::Record(answer) => answer.map(|poll| poll.map(|poll| *poll)),
            _ => unreachable!("the answer is one to the question"),
        }
    }

    async fn commit(
        &self,
        _key: &SiteKey,
        created: &[Poll],
        replaced: &[Poll],
        cursor: &Cursor,
        etag: Option<&str>,
    ) -> Result<String, LedgerError> {
        let write = || Write {
            created: created.to_vec(),
            replaced: replaced.to_vec(),
            cursor: cursor.clone(),
            etag: etag.map(ToOwned::to_owned),
        };
        match self.ask(|| Question::Commit(Arc::new(write().into()))).await {
            Answer::Commit(answer) => answer,
            _ => unreachable!("the answer is one to the question"),
        }
    }

    async fn send_in_order(
        &self,
        _owner: &Owner,
        messages: &[Message],
        _provision_until: Instant,
        _deadline: Instant,
    ) -> (usize, Result<(), DeliveryError>) {
        match self.ask(|| Question::Send(messages.to_vec())).await {
            Answer::Sent(acknowledged, outcome) => (acknowledged, outcome),
            _ => unreachable!("the answer is one to the question"),
        }
    }

    fn closed(&self, _owner: &Owner) -> Option<DeliveryError> {
        None
    }

    fn confirms(&self) -> bool {
        true
    }
}
