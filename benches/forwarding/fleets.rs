//! One tick of fleets of different sizes: how long it takes, and how much memory. An hour of history is 60 rows for each site.

use std::time::Instant;

use crate::{
    handler::{Handler, invoke},
    settings,
    support::{BINARY, emulator},
};

const SIZES: [u32; 3] = [10, 1_000, 10_000];

pub async fn measure(http: &reqwest::Client) {
    println!("\nthe first tick of a fleet: each cursor is read, 60 rows of 3 channels are forwarded");
    for size in SIZES {
        let backend = emulator(&["rapidm2m", "--plain", "--channels", "3", "--sites", &size.to_string()]);
        let cosmos = emulator(&["cosmos", "--plain-items"]);
        let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
        let handler = Handler::start(BINARY, &settings(&backend.ready, &cosmos.ready, &hub.ready), http).await;
        let (before, started) = (handler.cpu(), Instant::now());
        invoke(handler.address, http).await;
        println!(
            "  {size:>6} sites  {:>5.0} µs CPU a site-poll, {:.1} s for the tick, RSS {:.0} MiB (peak {:.0})",
            (handler.cpu() - before).as_secs_f64() * 1e6 / f64::from(size),
            started.elapsed().as_secs_f64(),
            handler.memory("VmRSS"),
            handler.memory("VmHWM"),
        );
    }
}
