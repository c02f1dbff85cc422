//! Posts requests over several connections, each with its own thread. This client costs less than what it measures.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// Answer times are recorded up to this length, in microseconds.
const LONGEST: u64 = 60_000_000;
/// Significant digits of an answer time.
const DIGITS: u8 = 3;
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// The requests to post.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub address: SocketAddr,
    /// Posted in turn.
    pub requests: &'a [Vec<u8>],
    /// A text that every answer must contain.
    pub answer: &'a str,
    pub connections: usize,
    /// Requests per second. `None` means as fast as they are answered.
    pub rate: Option<u32>,
    pub count: u32,
}

/// The result of a load.
pub struct Report {
    pub took: Duration,
    /// Microseconds until the whole answer, counted from the scheduled time, or from sending if there is no schedule.
    pub answer: Histogram<u64>,
    /// Microseconds by which requests were sent late. This is the client's share of the answer times, and that of
    /// connections that were all busy.
    pub late: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST, DIGITS).expect("constants that hdrhistogram allows")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Load<'_> {
    pub fn run(self) -> Report {
        let (next, start) = (AtomicU64::new(0), Instant::now());
        let mut report = Report { took: Duration::ZERO, answer: histogram(), late: histogram() };
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..self.connections).map(|_| scope.spawn(|| self.over_one_connection(&next, start))).collect();
            for thread in threads {
                let (answer, late) = thread.join().expect("every request is accepted");
                report.answer.add(&answer).expect("the same bounds");
                report.late.add(&late).expect("the same bounds");
            }
        });
        report.took = start.elapsed();
        report
    }

    fn over_one_connection(&self, next: &AtomicU64, start: Instant) -> (Histogram<u64>, Histogram<u64>) {
        let mut connection = TcpStream::connect(self.address).expect("the handler listens");
        connection.set_nodelay(true).and_then(|()| connection.set_read_timeout(Some(PATIENCE))).expect("a socket");
        let (mut answers, mut lates) = (histogram(), histogram());
        let mut answer = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= u64::from(self.count) {
                return (answers, lates);
            }
            let due = self.rate.map(|rate| start + Duration::from_secs_f64(number as f64 / f64::from(rate)));
            if let Some(due) = due {
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let sent = Instant::now();
            let request = &self.requests[number as usize % self.requests.len()];
            connection.write_all(request).expect("the handler takes requests");
            read(&mut connection, &mut answer);
            let due = due.unwrap_or(sent);
            answers.saturating_record(micros(due.elapsed()));
            lates.saturating_record(micros(sent - due));
            assert!(
                answer.windows(self.answer.len()).any(|part| part == self.answer.as_bytes()),
                "another answer: {}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
}

/// Reads one answer, head and body.
fn read(connection: &mut TcpStream, answer: &mut Vec<u8>) {
    answer.clear();
    let (mut piece, mut length) = ([0; 16 * 1024], None);
    while length.is_none_or(|length| answer.len() < length) {
        let count = connection.read(&mut piece).expect("an answer in time");
        assert!(count > 0, "the handler closed the connection: {}", String::from_utf8_lossy(answer));
        answer.extend_from_slice(&piece[..count]);
        length = length.or_else(|| announced(answer));
    }
}

/// The length of an answer, as soon as its head has arrived.
fn announced(answer: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).expect("HTTP") else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = str::from_utf8(length.expect("a length").value).expect("text");
    Some(head + length.parse::<usize>().expect("a number"))
}
