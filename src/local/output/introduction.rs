//! What is told first.

use std::{io, path::Path};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{
    Output,
    text::{COUNT_WIDTH, STAMP_WIDTH, stamp},
};
use crate::local::{
    rows::Row,
    schedule::Timer,
    services::{FORWARDING, UPLINK},
};

/// What is told first.
pub struct Introduction<'a> {
    pub endpoint: &'a str,
    /// The status page, which is also at the root.
    pub status: Option<String>,
    pub services: Vec<Row>,
    pub timers: Vec<Timer>,
    /// There when The Things Network is on.
    pub webhooks: Option<Webhooks>,
    /// There when a downlink can be tried.
    pub downlinks: Option<Downlinks>,
    /// Why a half is off.
    pub off: Vec<&'static str>,
    pub settings_file: Option<&'a Path>,
}

/// The Things Network's functions.
pub struct Webhooks {
    pub url: String,
    pub queue: String,
}

/// How to send a message to a device, which becomes a downlink.
pub struct Downlinks {
    /// The emulated hub's control endpoint, with a slash at the end.
    pub control: String,
    /// The id of a device at the hub, once it has sent something.
    pub device: String,
}

impl Output {
    pub fn introduction(&mut self, introduction: &Introduction<'_>) -> io::Result<()> {
        if self.is_json { self.record(&record(introduction)) } else { self.text(&self.introduced(introduction)) }
    }

    fn introduced(&self, introduction: &Introduction<'_>) -> String {
        let Introduction { endpoint, status, services, timers, webhooks, downlinks, off, settings_file } = introduction;
        let mut text = "The function app runs on this machine. Times are UTC. Ctrl-C ends.\n\n".to_owned();
        let place_width = services.iter().map(|row| row.place.chars().count()).chain([endpoint.len()]).max();
        let place_width = place_width.unwrap_or_default();
        for Row { service, is_emulated, place, details } in services {
            let kind = if *is_emulated { "emulated" } else { "REAL" };
            let line = format!("  {service:18}{kind:10}{place:place_width$}  {details}");
            text += line.trim_end();
            text += "\n";
        }
        text += &format!("  {:18}{:10}{endpoint}\n\n", "Functions host", "emulated");
        for timer in timers {
            let origin = if timer.is_overridden { "command line" } else { "function.json" };
            let next = timer.next.map(|next| format!(", then at {}", next.format("%H:%M:%S"))).unwrap_or_default();
            text += &format!("  {} runs now{next}; schedule {:?} ({origin})\n", timer.function, timer.schedule);
        }
        if let Some(Webhooks { url, queue }) = webhooks {
            text += &format!("  {UPLINK} takes webhooks at {url}\n");
            text += &format!("  {FORWARDING} takes them from the queue {queue:?}\n");
        }
        if status.is_some() {
            text += &format!("  The status page is at {endpoint}\n");
        }
        for reason in off {
            text += &format!("  {reason}\n");
        }
        text += &match settings_file {
            Some(file) => format!("  Settings: {}\n", file.display()),
            None => {
                "  To use services of your own, set them in local.settings.json (see local.settings.json.example)\n"
                    .to_owned()
            }
        };
        if let Some(Downlinks { control, device }) = downlinks {
            text += &format!("\nA message to {device}, which goes out as a downlink after its next uplink:\n");
            let body = json!({ "body": "open the valve", "properties": { "Port": "1" } });
            text += &format!("  curl -X POST '{control}c2d?device={device}' -d '{body}'\n");
        }
        if self.layout.has_messages {
            text += &self.header();
        } else {
            text += "\n";
        }
        text
    }

    fn header(&self) -> String {
        let (width, layout) = (self.name_width, self.layout);
        let (what, whose, count, newest) = match (layout.has_sites, layout.has_uplinks) {
            (true, false) => ("", "site", "rows", "newest row"),
            (false, _) => ("", "application/device", "fPort/fCnt", "received by network"),
            (true, true) => (
                " (of uplinks: fPort/fCnt, and when the network received them)",
                "site or application/device",
                "rows",
                "newest row",
            ),
        };
        let whose = if whose.len() > width { "site or device" } else { whose };
        format!(
            "\nWhat reaches the hub, one line per message{what}:\n  {:8}  {whose:width$}  {}{count:>COUNT_WIDTH$}  \
             {newest:STAMP_WIDTH$}  its values\n",
            "received",
            self.device("device"),
        )
    }
}

fn record(introduction: &Introduction<'_>) -> Value {
    let Introduction { endpoint, status, services, timers, webhooks, downlinks, off, .. } = introduction;
    let service = |row: &Row| json!({ "name": row.service, "emulated": row.is_emulated, "at": row.place });
    let timer = |timer: &Timer| {
        let next = timer.next.map(|next| stamp(next, SecondsFormat::Secs));
        json!({ "function": timer.function, "schedule": timer.schedule, "next": next })
    };
    json!({
        "type": "start",
        "at": stamp(Utc::now(), SecondsFormat::Millis),
        "services": services.iter().map(service).collect::<Vec<_>>(),
        "host": endpoint,
        "status": status,
        "timers": timers.iter().map(timer).collect::<Vec<_>>(),
        "webhooks": webhooks.as_ref().map(|webhooks| json!({ "url": webhooks.url, "queue": webhooks.queue })),
        "downlinks": downlinks.as_ref().map(|downlinks| {
            json!({ "url": format!("{}c2d?device={}", downlinks.control, downlinks.device), "device": downlinks.device })
        }),
        "off": off,
    })
}
