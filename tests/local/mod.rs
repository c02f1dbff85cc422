//! Tests `iothub-connector local` as operators and scripts run it.

mod emulated;
mod own;
mod packaged;
mod support;
