//! The faults of a soak: one at a time, each for some seconds.

use anyhow::ensure;
use serde_json::{Value, json};

use crate::world::World;

/// A stand-in.
#[derive(Clone, Copy, Debug)]
enum Service {
    Backend,
    Cosmos,
    Hub,
}

/// A fault: a request to the control endpoint of a stand-in.
pub struct Trouble {
    pub name: &'static str,
    service: Service,
    method: &'static str,
    path: &'static str,
    body: Value,
}

fn trouble(name: &'static str, service: Service, (method, path): (&'static str, &'static str), body: Value) -> Trouble {
    Trouble { name, service, method, path, body }
}

const AWAY: (&str, &str) = ("PUT", "away");
const FAULTS: (&str, &str) = ("PUT", "faults");
const CUT: (&str, &str) = ("POST", "cut");

/// All faults, without those after which sites are not polled for an hour.
pub fn all() -> Vec<Trouble> {
    use Service::{Backend, Cosmos, Hub};
    let rule = |rule: Value| json!({ "rules": [rule] });
    vec![
        trouble("backend away", Backend, AWAY, json!(true)),
        trouble("backend cut", Backend, CUT, Value::Null),
        trouble("backend hangs", Backend, FAULTS, rule(json!({ "hang": true, "times": 200 }))),
        trouble("backend slow", Backend, FAULTS, rule(json!({ "delayMs": 700 }))),
        trouble("backend 500", Backend, FAULTS, rule(json!({ "status": 500 }))),
        trouble("backend 429", Backend, FAULTS, rule(json!({ "status": 429, "retryAfter": "3" }))),
        trouble("backend 401", Backend, FAULTS, rule(json!({ "status": 401, "times": 200 }))),
        trouble("backend garbage", Backend, FAULTS, rule(json!({ "garbage": true }))),
        trouble("backend cuts answers", Backend, FAULTS, rule(json!({ "cutBody": true }))),
        trouble("Cosmos DB away", Cosmos, AWAY, json!(true)),
        trouble("Cosmos DB cut", Cosmos, CUT, Value::Null),
        trouble("Cosmos DB 503", Cosmos, FAULTS, json!({ "status": 503 })),
        trouble("Cosmos DB 429", Cosmos, FAULTS, json!({ "status": 429, "retryAfterMs": 50 })),
        trouble("Cosmos DB slow", Cosmos, FAULTS, json!({ "delayMs": 300 })),
        trouble(
            "Cosmos DB writes, answers nothing",
            Cosmos,
            FAULTS,
            json!({ "swallowAnswer": true, "writesOnly": true, "times": 3 }),
        ),
        trouble("hub away", Hub, AWAY, json!(true)),
        trouble("hub cut", Hub, CUT, Value::Null),
        trouble("hub ends tokens", Hub, ("POST", "expire"), Value::Null),
        trouble("hub drops before PUBACK", Hub, FAULTS, json!({ "dropBeforePubackTimes": 5 })),
        trouble("hub drops unrecorded", Hub, FAULTS, json!({ "dropBeforePubackTimes": 5, "recordDropped": false })),
        trouble("hub acknowledges late", Hub, FAULTS, json!({ "pubackDelayMs": 1500 })),
        trouble("hub acknowledges nothing", Hub, FAULTS, json!({ "ignorePublishes": true })),
        trouble("hub refuses", Hub, FAULTS, json!({ "refuse": true })),
        trouble("hub unavailable", Hub, FAULTS, json!({ "serverUnavailable": true })),
        trouble("hub accepts, then cuts", Hub, FAULTS, json!({ "cutAfterConnectTimes": 5 })),
        trouble("hub cuts after 7 messages", Hub, FAULTS, json!({ "cutAfterMessages": 7 })),
    ]
}

impl Trouble {
    pub async fn begin(&self, world: &World) -> anyhow::Result<()> {
        call(world, self.service, self.method, self.path, &self.body).await
    }
}

/// Ends all faults.
pub async fn end(world: &World) -> anyhow::Result<()> {
    for service in [Service::Backend, Service::Cosmos, Service::Hub] {
        call(world, service, "DELETE", "faults", &Value::Null).await?;
        call(world, service, "PUT", "away", &json!(false)).await?;
    }
    Ok(())
}

async fn call(world: &World, service: Service, method: &str, path: &str, body: &Value) -> anyhow::Result<()> {
    let control = match service {
        Service::Backend => &world.backend.ready().control,
        Service::Cosmos => &world.cosmos.ready().control,
        Service::Hub => &world.hub.ready().control,
    };
    let response = world.client.request(method.parse()?, format!("{control}{path}")).json(body).send().await?;
    ensure!(response.status().is_success(), "{method} {path} of {service:?}: {}", response.status());
    Ok(())
}
