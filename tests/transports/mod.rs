//! What every transport must do, whatever it is: one suite, run against each, over real sockets and TLS.

mod contract;
mod https;
mod mqtt;
mod support;
