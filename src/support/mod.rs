//! Code that both halves use and that depends on neither of them.

pub mod adaptive;
pub mod backoff;
pub(crate) mod blocking;
pub mod clock;
pub mod ending;
pub mod fault;
pub(crate) mod hex;
pub mod hours;
pub(crate) mod http;
pub mod http_client;
pub mod identity;
pub mod kind;
pub mod logging;
pub mod meter;
pub(crate) mod panics;
pub(crate) mod progress;
pub(crate) mod reading;
pub(crate) mod redact;
pub(crate) mod reminder;
pub mod retry_after;
pub(crate) mod slots;
pub(crate) mod summary_line;
pub(crate) mod tls;
