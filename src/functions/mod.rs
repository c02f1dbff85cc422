//! One file for each function folder at the top of the repository.

pub mod rapidm2m_forwarding;
