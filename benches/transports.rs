//! Measures the cost of sending: `cargo bench --bench transports`.
//!
//! The emulated hub and each measurement run in their own processes. The messages have 700 bytes. They are sent and
//! acknowledged over TLS. Each message in flight has its own caller, but one caller sends the backlog in order. The
//! output is messages per second, the sender's CPU time per message (the kernel's count for the process, all threads
//! together, without connecting), and its resident memory at the end.

mod support;

use std::{
    num::NonZeroUsize,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt as _;
use iothub_connector::iot_hub::{
    Credential, Device, Endpoint, Message, Options, Sender, Transport, device::decode_key,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

use support::{cpu, emulator, memory};

const TRANSPORTS: [Transport; 3] = [Transport::Mqtt, Transport::MqttWs, Transport::Https];
const BODY: usize = 700;

/// A measurement: devices, simultaneous calls, messages per call, messages in total.
struct Case {
    name: &'static str,
    devices: usize,
    at_once: usize,
    in_call: usize,
    messages: usize,
}

const CASES: [Case; 5] = [
    Case { name: "1 device, 1 in flight", devices: 1, at_once: 1, in_call: 1, messages: 5_000 },
    Case { name: "1 device, 100 in flight", devices: 1, at_once: 100, in_call: 1, messages: 50_000 },
    Case { name: "1 device, a backlog in order", devices: 1, at_once: 1, in_call: 800, messages: 48_000 },
    Case { name: "1,000 devices, 16 at once", devices: 1_000, at_once: 16, in_call: 1, messages: 20_000 },
    Case { name: "1,000 devices, 100 at once", devices: 1_000, at_once: 100, in_call: 1, messages: 20_000 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--measure") {
        let [transport, case, ready] = &arguments[at + 1..at + 4] else { panic!("three arguments") };
        let transport = TRANSPORTS[transport.parse::<usize>().expect("an index")];
        let case = &CASES[case.parse::<usize>().expect("an index")];
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(measure(transport, case, &serde_json::from_str(ready).expect("JSON")));
        return;
    }
    let hub = emulator(&["iot_hub", "--keep-messages", "1000"]);
    let ready = hub.ready.to_string();
    println!("{:<30} {:<8} {:>12} {:>14} {:>9}", "", "", "messages/s", "CPU/message", "RSS");
    for (number, case) in CASES.iter().enumerate() {
        for (index, transport) in TRANSPORTS.into_iter().enumerate() {
            let status = Command::new(&arguments[0])
                .args(["--measure", &index.to_string(), &number.to_string(), &ready])
                .status()
                .expect("the measurement starts");
            assert!(status.success(), "{} over {transport:?}", case.name);
        }
    }
}

async fn measure(transport: Transport, case: &Case, ready: &Value) {
    let text = |name: &str| ready[name].as_str().expect("text");
    let ca = CertificateDer::from_pem_file(text("ca")).expect("a certificate");
    let sender = Sender::new(Options::new(transport, NonZeroUsize::new(1_000).expect("not 0"), vec![ca]));
    let devices: Vec<_> = (0..case.devices).map(|number| device(number, text("mqtt"), text("key"))).collect();
    let messages: Vec<_> = (0..case.in_call).map(message).collect();
    let send = async |device: &Device| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
        let (sent, outcome) = sender.send_in_order(device, &messages, deadline).await;
        assert_eq!((sent, outcome), (messages.len(), Ok(())));
    };
    // Every connection is open before the clock starts.
    let connecting = futures::stream::iter(&devices).map(&send);
    connecting.buffer_unordered(case.at_once).collect::<Vec<_>>().await;
    let (before, started) = (cpu(std::process::id()), Instant::now());
    let calls = devices.iter().cycle().take(case.messages / case.in_call);
    futures::stream::iter(calls).map(&send).buffer_unordered(case.at_once).collect::<Vec<_>>().await;
    let (took, used) = (started.elapsed(), cpu(std::process::id()) - before);
    let count = f64::from(u32::try_from(case.messages).expect("a small number"));
    let name: &str = transport.into();
    println!(
        "{:<30} {name:<8} {:>12.0} {:>11.0} µs {:>5.0} MiB",
        case.name,
        count / took.as_secs_f64(),
        used.as_secs_f64() * 1e6 / count,
        memory(std::process::id(), "VmRSS")
    );
}

fn device(number: usize, endpoint: &str, key: &str) -> Device {
    let endpoint = Endpoint::parse(endpoint).expect("an address");
    let credential = Credential::Key(decode_key(key).expect("a key"));
    Device { hub_host: endpoint.host.clone(), endpoint, id: format!("logger-{number}"), credential }
}

fn message(number: usize) -> Message {
    let properties = vec![("Customer_Id", "Demo Water Utility".into()), ("Site_Id", "Well 7".into())];
    Message { id: format!("{number:032}"), created: Utc::now(), properties, body: Bytes::from(vec![b'x'; BODY]) }
}
