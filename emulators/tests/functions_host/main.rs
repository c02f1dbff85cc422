//! Tests the Functions host with a handler inside the tests (`calls`) and with real processes (`process`). `queues` and
//! `outputs` test the messages from and to queues, `storage` an account in trouble, `hosts` several hosts with one account.

mod app;
mod calls;
mod handler;
mod hosts;
mod outputs;
mod process;
mod queues;
mod storage;

use std::time::Duration;

use reqwest::Client;

/// Everything that the tests await comes within seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}
