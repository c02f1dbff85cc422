//! What lies in the repository beside the code, held against the code and against each other.

mod app_folder;
mod documents;
mod infrastructure;
mod tree;
