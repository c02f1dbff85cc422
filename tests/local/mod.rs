//! `iothub-connector local`, as it is run by hand and by scripts.

mod emulated;
mod own;
mod packaged;
mod support;
