//! The app from end to end, over real sockets. Handler and commands run as processes, as the Functions host and people run them;
//! the services are the stand-ins. One program has all of these tests, so that they wait at the same time.
//!
//! `cargo test --test e2e forwarding` runs one area, `cargo test --test e2e forwarding::late` one file of it.

mod check;
mod cli;
mod commands;
mod devices;
mod faults;
mod forwarding;
mod local;
mod operations;
mod replay;
mod support;
mod things_network;
mod transports;
