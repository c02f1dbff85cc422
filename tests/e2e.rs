//! Tests the app from end to end over real sockets. The handler and the commands run as processes, as the Functions
//! host and the operator run them; the services are stand-ins. All of these tests are one program, so that their
//! waiting times overlap.
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
