//! The IoT Hub stand-in over real sockets: a device built on `rumqttc`, one that writes bytes by hand, and the control
//! endpoint over HTTP.

mod c2d;
mod client;
mod control;
mod devices;
mod dps;
mod dps_mqtt;
mod faults;
mod https;
mod https_faults;
mod login;
mod telemetry;
mod twin;
mod websocket;
