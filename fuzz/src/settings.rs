//! Laws for the settings: one message has all problems, and no secret is in it.

use iothub_connector::config::{Config, Problems, Settings, enrollment, hub};

/// Settings whose value, or a part of it, is secret.
const SECRET: [&str; 8] = [
    "Base64encodedUsernamePassword",
    "IoTHubConnection",
    "IoTHubSharedAccessSignature",
    "IoTHubDeviceKey",
    "M2MDocumentsDBPrimaryKey",
    "DPSEnrollmentGroupSymmetricKey",
    "ThingsNetworkWebhookSecret",
    "AzureIotHubConnectionString",
];

/// Settings into which users paste connection strings.
const PASTED: [&str; 4] = ["IoTHubDeviceId", "IoTHubURL", "DPSIDScope", "DPSGlobalDeviceEndpoint"];

/// Laws for the connection strings of a device and of a hub.
pub fn connection_strings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let of = |name: &str| [(name.to_owned(), text.to_owned())].into_iter().collect::<Settings>();
    let mut problems = Problems::default();
    let device = hub::connection_string(&of("IoTHubConnection"), &mut problems);
    assert!(device.is_some() || !problems.is_empty(), "a device or a reason");
    check_secrets(text, &[problems.list()]);
    if let Some(device) = device.filter(|_| problems.is_empty()) {
        check_secrets(text, &[format!("{device:?}")]);
        iothub_connector::iot_hub::device::check_id(&device.id).expect("an id that the hub takes");
        assert!(device.hub_host.contains('.') || device.hub_host.eq_ignore_ascii_case("localhost"));
    }
    let mut problems = Problems::default();
    let enrollments = enrollment::read(&of("AzureIotHubConnectionStringDefault"), &mut problems);
    assert_eq!(enrollments.is_some(), problems.is_empty(), "a policy or a reason: {}", problems.list());
    check_secrets(text, &[problems.list(), format!("{enrollments:?}")]);
    for name in PASTED.into_iter().filter(|_| text.contains("SharedAccessKey=")) {
        let token = "SharedAccessSignature sr=h.net%2Fdevices%2Fd&sig=x&se=1";
        let rest = [("IoTHubURL", "h.net"), ("IoTHubSharedAccessSignature", token), ("Customer_ID", "c")];
        let settings = rest.into_iter().chain([(name, text)]).collect();
        let shown = Config::from_settings(&settings).map_or_else(|problems| problems.to_string(), |_| String::new());
        check_secrets(text, &[shown]);
    }
}

/// Lines `NAME=VALUE`.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pairs = text.split('\n').filter_map(|line| line.split_once('='));
    // Left out: this setting names a file, which would be read.
    let pairs: Vec<_> = pairs.filter(|(name, _)| *name != "IoTHubTrustedCa").collect();
    let shown = match Config::from_settings(&pairs.iter().copied().collect()) {
        Ok(config) => {
            assert!(config.rapidm2m.is_some() || config.things_network.is_some());
            assert_eq!(config.rapidm2m.is_some(), config.hub.identity.is_some());
            format!("{config:?}")
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let shown = problems.to_string();
            let (first, others) = shown.split_once('\n').unwrap_or((&shown, ""));
            let others: Vec<_> = others.lines().map(str::trim_start).collect();
            let said =
                if others.is_empty() { first.strip_prefix("error: ").unwrap().to_owned() } else { others.join("; ") };
            assert_eq!(said, problems.list(), "each problem has a line of its own: {shown}");
            shown
        }
    };
    for (_, value) in pairs.iter().filter(|(name, _)| SECRET.iter().any(|secret| name.starts_with(secret))) {
        for secret in secrets(value).filter(|secret| text.matches(secret).count() == 1) {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

fn check_secrets(text: &str, shown: &[String]) {
    for secret in secrets(text).filter(|secret| text.matches(secret).count() == 1) {
        assert!(shown.iter().all(|shown| !shown.contains(secret)), "{secret} in {shown:?}");
    }
}

/// The keys and signatures in a setting's value that cannot be mistaken for the program's own words.
fn secrets(value: &str) -> impl Iterator<Item = &str> {
    let is_string = value.contains("Shared") || value.contains("HostName");
    let keys = value.split(';').filter_map(|field| field.trim().strip_prefix("SharedAccessKey=")).map(str::trim);
    let signatures = value.split(['&', ';']).filter_map(|field| field.trim().strip_prefix("sig="));
    let alone = Some(value.trim()).filter(|_| !is_string);
    keys.chain(signatures).chain(alone).filter(|secret| is_telling(secret))
}

fn is_telling(secret: &str) -> bool {
    let has = |test: fn(&char) -> bool| secret.chars().any(|letter| test(&letter));
    secret.len() >= 12
        && !secret.contains(char::is_whitespace)
        && has(char::is_ascii_digit)
        && has(char::is_ascii_lowercase)
        && has(char::is_ascii_uppercase)
        && !SECRET.iter().any(|name| name.contains(secret))
}
