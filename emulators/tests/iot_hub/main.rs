//! The IoT Hub stand-in over real sockets: a device built on `rumqttc`, one that writes bytes by hand, and the control
//! endpoint over HTTP.

mod client;
mod control;
mod faults;
mod https;
mod login;
mod telemetry;
mod websocket;
