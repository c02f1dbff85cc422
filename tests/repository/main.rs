//! Checks the files beside the code against the code and against each other.

mod app_folder;
mod documents;
mod infrastructure;
mod tree;
mod webhook_template;
