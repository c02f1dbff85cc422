//! Tests `iothub-connector replay`: rejected records of sites against the stand-ins, and queues against a server with
//! the storage service's REST API. (`tests/azurite` tests against Azurite.)

mod queues;
mod sites;

use serde_json::Value;

use crate::support::{self, Settings};

/// The result of the command: exit code, lines, and its error output.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    text: String,
    said: String,
}

impl Done {
    fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn replay(settings: &Settings, arguments: &[&str]) -> Done {
    let output = support::binary().arg("replay").args(arguments).envs(settings).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), text: text(output.stdout), said: text(output.stderr) }
}
