//! Checks the webhook template for The Things Stack: it is of the format, it makes webhooks that the connector would make, and
//! it leads to the function.
//!
//! The format is that of <https://github.com/TheThingsNetwork/lorawan-webhook-templates>; what the console makes of it is
//! `convertTemplateToWebhook` in The Things Stack's source.

use std::{collections::BTreeMap, fs, path::Path};

use iothub_connector::{
    config::things_stack,
    things_network::{
        members::Members,
        registry::{
            Webhook,
            address::PATH,
            document::MESSAGES,
            plan::{FUNCTION_KEY, SECRET, Wanted, plan},
        },
    },
};
use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

/// Every member of the format.
const MEMBERS: [&str; 14] = [
    "template-id",
    "name",
    "description",
    "logo-url",
    "info-url",
    "documentation-url",
    "tts-documentation-url",
    "base-url",
    "headers",
    "format",
    "fields",
    "create-downlink-api-key",
    "paths",
    "field-mask",
];
/// The longest id; name, also of a field; description, also of a field.
const LONGEST: [usize; 3] = [32, 20, 100];

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A YAML document as JSON.
fn json_of(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => text.as_str().into(),
        Yaml::Boolean(flag) => (*flag).into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Array(list) => list.iter().map(json_of).collect(),
        Yaml::Hash(members) => {
            let members = members.iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), json_of(value)));
            members.collect::<Map<_, _>>().into()
        }
        Yaml::Null => Value::Null,
        other => panic!("{other:?} is not of the format"),
    }
}

fn template() -> Value {
    let documents = YamlLoader::load_from_str(&text("docs/things-stack/webhook-template.yml")).unwrap();
    assert_eq!(documents.len(), 1);
    json_of(&documents[0])
}

/// Replaces `{field}` by its value, as the console does.
fn expanded(text: &str, values: &BTreeMap<&str, &str>) -> String {
    values.iter().fold(text.to_owned(), |text, (field, value)| text.replace(&format!("{{{field}}}"), value))
}

/// What the console makes of the template and of what a person has filled in.
fn webhook(template: &Value, values: &BTreeMap<&str, &str>) -> Webhook {
    let headers = template["headers"].as_object().unwrap().iter();
    let headers = headers.map(|(name, value)| (name.clone(), expanded(value.as_str().unwrap(), values)));
    let headers: Map<_, _> =
        headers.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect();
    let mut webhook = json!({
        "ids": {"webhook_id": "x"},
        "base_url": expanded(template["base-url"].as_str().unwrap(), values),
        "headers": headers,
        "format": template["format"],
        "field_mask": template["field-mask"],
        "downlink_api_key": if template["create-downlink-api-key"] == true { "NNSXS.A.B" } else { "" },
    });
    for (message, path) in template["paths"].as_object().unwrap() {
        webhook[message.replace('-', "_")] = json!({ "path": path });
    }
    serde_json::from_value(webhook).unwrap()
}

#[test]
fn the_template_is_of_the_format() {
    let template = template();
    let members = template.as_object().unwrap();
    for member in members.keys() {
        assert!(MEMBERS.contains(&member.as_str()), "{member}");
    }
    let [id, name, description] = LONGEST;
    let fields = template["fields"].as_array().unwrap();
    let texts = [(&template["template-id"], id), (&template["name"], name), (&template["description"], description)];
    let of_fields = fields
        .iter()
        .flat_map(|field| [(&field["id"], id), (&field["name"], name), (&field["description"], description)]);
    for (text, longest) in texts.into_iter().chain(of_fields) {
        let length = text.as_str().unwrap().chars().count();
        assert!((1..=longest).contains(&length), "{text} has {length} characters, and at most {longest} are taken");
    }
    for field in fields {
        // Names of RFC 6570 have no hyphen.
        let id = field["id"].as_str().unwrap();
        assert!(id.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_'), "{id}");
    }
}

#[test]
fn what_the_console_makes_of_it_leads_to_the_function_and_lacks_nothing() {
    let function: Value = serde_json::from_str(&text("thingsNetworkUplink/function.json")).unwrap();
    let route = function["bindings"][0]["route"].as_str().unwrap().split("/{").next().unwrap();
    assert_eq!(PATH, format!("/api/{route}"));
    let template = template();
    let fields: Vec<_> =
        template["fields"].as_array().unwrap().iter().map(|field| field["id"].as_str().unwrap()).collect();
    assert_eq!(fields, ["app", "function_key", "webhook_secret"]);
    for secret in [None, Some("0123456789abcdef")] {
        let filled = [
            ("app", "my-app.azurewebsites.net"),
            ("function_key", "k3y"),
            ("webhook_secret", secret.unwrap_or_default()),
        ];
        let webhook = webhook(&template, &filled.into());
        assert!(webhook.header(FUNCTION_KEY).is_some());
        assert_eq!(webhook.header(SECRET).is_some(), secret.is_some(), "an empty header is left out");
        let wanted = Wanted {
            address: things_stack::address("https://my-app.azurewebsites.net").unwrap(),
            function_key: Some("k3y".into()),
            secret: secret.map(Into::into),
            downlink_api_key: None,
            events: true,
            members: Members::all(),
        };
        let plan = plan(Some(&webhook), &wanted).unwrap();
        assert_eq!((plan.changes, plan.remarks), (Vec::new(), Vec::new()));
        let messages: Vec<_> = webhook.messages().collect();
        assert_eq!(messages, MESSAGES.map(|message| (message, "")), "any path behind the address is answered with 404");
    }
}
