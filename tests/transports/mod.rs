//! Tests what every transport must do: one suite that runs against each transport, over real sockets and TLS.

mod contract;
mod https;
mod mqtt;
mod support;
