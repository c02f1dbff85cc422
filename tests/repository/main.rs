//! Checks the files beside the code against the code and against each other.

mod app_folder;
#[cfg(feature = "local")]
mod command_line;
mod documents;
mod infrastructure;
mod tree;
mod webhook_template;
