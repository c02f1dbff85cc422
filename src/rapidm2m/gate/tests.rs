use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use tokio::time::{advance, sleep};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn gate(requests_per_second: u32) -> Gate {
    Gate::new(Limits { requests_per_second, concurrency: 256 }, "mark".into())
}

fn refused() -> FetchError {
    FetchError::Unauthorized { said: String::new() }
}

fn slow_down(retry_after: Option<u64>) -> FetchError {
    FetchError::RateLimited { status: 429, retry_after: retry_after.map(Duration::from_secs), said: String::new() }
}

/// A fleet that asks once per site, and a backend that answers each request in the same way.
async fn run(gate: &Gate, sites: usize, took: Duration, error: Option<FetchError>) -> (usize, Vec<Instant>) {
    gate.begin_run();
    let made = Mutex::new(Vec::new());
    let held = AtomicUsize::new(0);
    let ask = async || match gate.enter(40 * SECOND).await {
        Ok(pass) => {
            made.lock().unwrap().push(Instant::now());
            sleep(took).await;
            pass.judge(error.as_ref());
        }
        Err(_) => drop(held.fetch_add(1, Ordering::Relaxed)),
    };
    join_all((0..sites).map(|_| ask())).await;
    (held.into_inner(), made.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_requests_in_a_second_than_the_limit_and_a_tenth() {
    for per_second in [1, 5, 80, 1_000] {
        let gate = gate(per_second);
        let sites = usize::try_from(per_second).unwrap() * 5;
        let (held, mut made) = run(&gate, sites, Duration::from_millis(5), None).await;
        assert_eq!((held, made.len()), (0, sites));
        made.sort();
        let most = made.iter().map(|at| made.iter().filter(|other| *at <= **other && **other < *at + SECOND).count());
        let most = most.max().unwrap();
        let allowed = (f64::from(per_second) * 1.1).ceil() as usize + usize::from(per_second < 10);
        assert!(most <= allowed, "{most} of {per_second}");
        let took = *made.last().unwrap() - made[0];
        assert!(took <= 6 * SECOND, "{per_second}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_keep_to_the_shares_of_what_is_being_worked_on() {
    let gate = gate(80);
    let made_in = async |sites| {
        let (_, made) = run(&gate, sites, Duration::from_millis(5), None).await;
        (made[sites - 1] - made[0]).as_secs_f64()
    };
    let first = gate.share(5.0);
    assert!((3.5..4.5).contains(&made_in(20).await), "5 in a second");
    let second = gate.share(15.0);
    assert!((1.8..2.2).contains(&made_in(40).await), "20 in a second");
    drop((first, second));
    assert!((0.9..1.1).contains(&made_in(80).await), "all of them, if nothing is shared");
    let _too_many = [gate.share(80.0), gate.share(80.0)];
    assert!((0.9..1.1).contains(&made_in(80).await), "never more than the limit");
}

#[tokio::test(start_paused = true)]
async fn what_the_timer_has_found_out_ends_the_wait_of_an_instance() {
    let gate = gate(80);
    run(&gate, 200, Duration::from_millis(5), Some(refused())).await;
    assert!(gate.closed(Instant::now() + 40 * SECOND).is_some());
    gate.vouched("those of an app with other settings");
    assert!(gate.closed(Instant::now() + 40 * SECOND).is_some());
    gate.vouched("mark");
    let (held, made) = run(&gate, 200, Duration::from_millis(5), Some(refused())).await;
    assert_eq!((held, made.len()), (199, 1), "one tries: each of the instances does");
}

#[tokio::test(start_paused = true)]
async fn two_refused_logins_stop_everybody() {
    let gate = gate(80);
    run(&gate, 200, Duration::from_millis(5), None).await;
    assert_eq!(gate.take_refusals(), None);
    let (held, made) = run(&gate, 200, Duration::from_millis(5), Some(refused())).await;
    assert_eq!((held, made.len()), (198, 2));
    for _ in 0..3 {
        assert_eq!(run(&gate, 200, Duration::from_millis(5), Some(refused())).await.1.len(), 0);
    }
    // Another process goes on there. A restart may be an operator's, who has corrected something.
    let refusals = gate.take_refusals().unwrap();
    assert_eq!((refusals.credentials.as_str(), refusals.times.len()), ("mark", 2));
    let restarted = self::gate(80);
    restarted.restore(refusals.clone(), Utc::now());
    assert_eq!(run(&restarted, 200, Duration::from_millis(5), Some(refused())).await.1.len(), 1);
    let restarted = self::gate(80);
    restarted.restore(refusals, Utc::now());
    assert_eq!(run(&restarted, 200, Duration::from_millis(5), None).await.1.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_is_refused_alone_stops_nobody() {
    let gate = gate(1_000);
    for error in [refused(), FetchError::Forbidden { said: String::new() }] {
        for number in 0_usize..20 {
            let pass = gate.enter(SECOND).await.unwrap_or_else(|error| panic!("{number}: {error}"));
            pass.judge(number.is_multiple_of(2).then_some(&error));
        }
    }
    assert_eq!(gate.take_refusals(), None, "nothing for a later process");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_taken_again_are_noted_too() {
    let gate = gate(80);
    run(&gate, 20, Duration::from_millis(5), Some(refused())).await;
    let mut refusals = gate.take_refusals().unwrap();
    while !refusals.are_too_many() {
        refusals.add(Utc::now());
    }
    let restarted = self::gate(80);
    restarted.restore(refusals.clone(), Utc::now());
    assert_eq!(run(&restarted, 20, Duration::from_millis(5), None).await.0, 20, "too many were refused");
    let restarted = self::gate(80);
    restarted.restore(refusals, Utc::now() + chrono::TimeDelta::hours(1));
    assert_eq!(run(&restarted, 20, Duration::from_millis(5), None).await.0, 0, "an hour later");
    let corrected = self::gate(80);
    corrected.restore(Refusals { credentials: "other".into(), times: vec![Utc::now(); 9] }, Utc::now());
    assert_eq!(run(&corrected, 20, Duration::from_millis(5), None).await.0, 0, "other credentials");
    let restored = self::gate(80);
    restored.restore(Refusals { credentials: "mark".into(), times: vec![Utc::now()] }, Utc::now());
    assert_eq!(run(&restored, 20, Duration::from_millis(5), None).await.0, 0);
    assert_eq!(restored.take_refusals().map(|refusals| refusals.times), Some(Vec::new()), "none is left");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_slow_down_is_heeded_by_everybody() {
    for (wait, error) in [(300, slow_down(Some(300))), (0, slow_down(Some(0))), (0, slow_down(None))] {
        let gate = gate(100);
        run(&gate, 200, Duration::from_millis(5), None).await;
        for run_number in 0..3 {
            let (held, made) = run(&gate, 200, Duration::from_millis(5), Some(error.clone())).await;
            let most = if wait == 0 { 4 } else { usize::from(run_number == 0) };
            assert!(made.len() <= most && held == 200 - made.len(), "{wait}, run {run_number}: {}", made.len());
        }
        advance(Duration::from_secs(400)).await;
        assert_eq!(run(&gate, 200, Duration::from_millis(5), None).await.0, 0, "afterwards all go on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_is_tried_by_few_and_in_the_next_run_at_once() {
    for error in [
        FetchError::Connect("refused".into()),
        FetchError::Timeout,
        FetchError::Status { status: 503, said: String::new() },
    ] {
        let gate = gate(1_000);
        run(&gate, 500, Duration::from_millis(5), None).await;
        for _ in 0..3 {
            let (_, made) = run(&gate, 500, SECOND, Some(error.clone())).await;
            assert!((2..=20).contains(&made.len()), "{error}: {}", made.len());
        }
        assert_eq!(run(&gate, 500, Duration::from_millis(5), None).await.0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_sites_that_hang_stop_nobody() {
    let gate = gate(1_000);
    gate.begin_run();
    let ask = async |number: usize| {
        let pass = gate.enter(40 * SECOND).await.unwrap_or_else(|error| panic!("site {number}: {error}"));
        let hangs = number.is_multiple_of(20);
        sleep(if hangs { 10 * SECOND } else { Duration::from_millis(50) }).await;
        pass.judge(hangs.then_some(&FetchError::Timeout));
        Instant::now()
    };
    let began = Instant::now();
    let ended = join_all((0..600).map(ask)).await;
    let healthy =
        ended.iter().enumerate().filter(|(number, _)| !number.is_multiple_of(20)).map(|(_, at)| *at - began).max();
    assert!(healthy < Some(8 * SECOND), "{healthy:?}");
    assert_eq!(gate.closed(Instant::now() + 40 * SECOND).map(|error| error.to_string()), None);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_the_gate_open() {
    let gate = gate(80);
    for _ in 0..3 {
        let _pass = gate.enter(SECOND).await.unwrap_or_else(|error| panic!("{error}"));
        // The next one need not wait for one that was dropped.
    }
    assert!(Instant::now().elapsed() < SECOND);
}
