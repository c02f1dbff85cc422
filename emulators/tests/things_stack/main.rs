//! Tests the stand-in for The Things Stack over real sockets, with a small server as the target of its webhooks.

mod control;
mod downlinks;
mod registry;
mod support;
mod webhooks;
