//! Tests the package that `cargo xtask package` has made: as it is published, and as the host starts it.

mod contents;
mod publish;
mod run;
mod support;
