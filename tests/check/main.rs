//! `check`, and the Key Vault that settings may come from. The binary is a process of its own; the services are stand-ins.
//!
//! | Module | |
//! |---|---|
//! | `authority` | certificates that the binary trusts |
//! | `vault` | a Key Vault, and the endpoint where an app's identity gets its tokens |
//! | `command` | one run of the binary, and that no secret stands in what it says |
//! | `key_vault` | what comes of settings in a vault |

mod authority;
mod command;
mod key_vault;
mod vault;
