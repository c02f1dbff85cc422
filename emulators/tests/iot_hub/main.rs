//! Tests the IoT Hub stand-in over real sockets: with a device that uses `rumqttc`, with bytes written by hand, and
//! with the control endpoint over HTTP.

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
