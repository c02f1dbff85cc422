//! The functions host with a handler that the tests serve themselves (`calls`), and with real processes (`process`).
//! `queues`, `outputs`: what comes from queues and what goes into them.

mod app;
mod calls;
mod handler;
mod outputs;
mod process;
mod queues;

use std::time::Duration;

use reqwest::Client;

/// Everything awaited here comes within seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
