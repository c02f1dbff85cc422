//! Checks the webhooks in The Things Stack: that each application has one that leads to this app, that it is set up right,
//! and how it fares. It changes nothing.

use std::collections::BTreeSet;

use iothub_connector::{
    config::{Problems, Settings, things_stack},
    iot_hub::devices::enrollment::Enrollments,
    things_network::registry::{
        Registry, RegistryError, Webhook, address,
        health::State,
        plan::{self, Change, Part, Wanted},
        rights::{self, FOR_SETUP, WRITE_DOWNLINKS},
    },
};
use url::Url;

use super::{
    advice,
    report::{Row, Verdict},
};
use crate::cli::things_stack as of_settings;

/// What the rows are about.
const STACK: &str = "The Things Stack";

/// Nothing without the settings of The Things Stack's API.
pub async fn check<T>(settings: &Settings, enrollments: &Enrollments<T>) -> Vec<Row> {
    if !things_stack::is_set(settings) {
        return Vec::new();
    }
    let mut problems = Problems::default();
    let registry = of_settings::registry(settings, &mut problems);
    let wanted = of_settings::wanted(settings, &mut problems);
    let (Some(registry), Some((address, with_address)), true) = (registry, wanted, problems.is_empty()) else {
        return problems.iter().map(|(name, text)| Row::setting(name, text)).collect();
    };
    let own = match registry.own_application().await {
        Ok(own) => own,
        Err(error) => return vec![fault(STACK.into(), &error)],
    };
    let mut applications = applications(enrollments);
    if enrollments.default.is_some() {
        applications.extend(own);
    }
    if applications.is_empty() {
        let text = "no setting names an application, and the API key does not belong to one";
        return vec![Row::skipped(STACK, format!("{text}: see `iothub-connector things-stack health`"))];
    }
    let mut rows = Vec::new();
    for application in applications {
        let webhooks = match registry.webhooks(&application).await {
            Ok(webhooks) => webhooks,
            Err(error) => {
                rows.push(fault(format!("webhooks of {application}"), &error));
                continue;
            }
        };
        rows.extend(of_application(&application, &webhooks, address.as_ref(), &with_address));
        rows.extend(keys(&registry, &application, &webhooks, address.as_ref()).await);
    }
    rows
}

/// The applications that the settings name. What may be an application, or another one with a port, is left to the other
/// one's row: The Things Stack does not tell whether an application exists.
fn applications<T>(enrollments: &Enrollments<T>) -> BTreeSet<String> {
    let with_port = enrollments.ports.keys();
    let of_ports =
        with_port.filter_map(|suffix| suffix.rsplit_once('-')).map(|(application, _)| application.to_owned());
    let alone = enrollments.applications.keys().filter(|name| !enrollments.ports.contains_key(*name)).cloned();
    alone.chain(of_ports).collect()
}

/// What the key may not do says nothing about the webhooks, so that it is a warning.
fn fault(what: String, error: &RegistryError) -> Row {
    let row = Row::setting(&what, &error.to_string());
    match error {
        RegistryError::NoRights { .. } | RegistryError::Lacking { .. } => Row { result: Verdict::Warning, ..row },
        RegistryError::Status { .. } => Row { to_do: row.to_do.or_else(|| Some("try again later".to_owned())), ..row },
        _ => row,
    }
}

fn of_application(
    application: &str,
    webhooks: &[Webhook],
    address: Option<&Url>,
    with_address: &impl Fn(Url) -> Wanted,
) -> Vec<Row> {
    let what = format!("webhooks of {application}");
    let setup = |id: Option<&str>| {
        let webhook = id.map(|id| format!(" --webhook {id}")).unwrap_or_default();
        format!("run `iothub-connector things-stack setup --application {application}{webhook}`")
    };
    let Some(address) = address.cloned().or_else(|| webhooks.iter().find_map(address::of_any_app)) else {
        let to_do = format!("{} with FunctionAppUrl", setup(None));
        return vec![Row::failed(what, "none leads to a function app", &to_do)];
    };
    let wanted = with_address(address);
    let leading: Vec<_> = webhooks.iter().filter(|webhook| address::leads_to(webhook, &wanted.address)).collect();
    let on_server = webhooks.iter().find(|webhook| address::leads_to_server(webhook, &wanted.address));
    let astray = on_server.and_then(|webhook| Some((webhook.id(), address::astray(webhook, &wanted.address)?)));
    match (&leading[..], astray) {
        ([], None) => vec![Row::failed(what, format!("none leads to {}", wanted.address), &setup(None))],
        ([], Some((id, (message, place)))) => {
            let message = message.replace('_', " ");
            let text = format!("webhook {id} sends the event {message} to {place}, not to {}", wanted.address);
            vec![Row::failed(what, text, &setup(Some(id)))]
        }
        (leading, _) => {
            let ids = || leading.iter().map(|webhook| webhook.id()).collect::<Vec<_>>().join(", ");
            let twice = (leading.len() > 1).then(|| {
                let text = format!("{} lead here: each uplink comes {} times", ids(), leading.len());
                Row::warning(&what, text, "delete all but one of them in the console")
            });
            let each = leading
                .iter()
                .flat_map(|webhook| of_webhook(application, webhook, &wanted, &setup(Some(webhook.id()))));
            each.chain(twice).collect()
        }
    }
}

fn of_webhook(application: &str, webhook: &Webhook, wanted: &Wanted, setup: &str) -> Vec<Row> {
    let what = format!("webhook {} of {application}", webhook.id());
    let plan = match plan::plan(Some(webhook), wanted) {
        Ok(plan) => plan,
        Err(refused) => return vec![Row::setting(&what, &refused.to_string())],
    };
    let mut rows: Vec<_> = plan.changes.iter().map(|change| of_change(&what, change, webhook, setup)).collect();
    if rows.is_empty() {
        let health = match webhook.health_status.state() {
            State::Healthy => "healthy",
            State::Unknown | State::Unhealthy(_) => "nothing was sent since it was made or set up",
        };
        rows.push(Row::ok(&what, format!("leads to {}; {health}", wanted.address)));
    }
    rows.extend(plan.remarks.iter().map(|remark| {
        Row::warning(&what, *remark, "set it in the console, or run `iothub-connector things-stack setup`; or leave it")
    }));
    rows
}

fn of_change(what: &str, Change { what: part, now, wanted }: &Change, webhook: &Webhook, setup: &str) -> Row {
    match (part, webhook.health_status.state()) {
        (Part::Health, State::Unhealthy(failures)) => Row::failed(what, failures.text(), failures.to_do()),
        (Part::Paused, _) => Row::failed(what, "is paused: nothing is sent", "resume it in the console"),
        (Part::FieldMask, _) => Row::failed(what, format!("its field mask leaves out what is used: {wanted}"), setup),
        (part, _) => {
            let now = now.as_deref().unwrap_or("absent");
            Row::failed(what, format!("{part} is {now}, not {wanted}"), setup)
        }
    }
}

/// What the connector's own key and the webhooks' downlink keys may do.
async fn keys(registry: &Registry, application: &str, webhooks: &[Webhook], address: Option<&Url>) -> Vec<Row> {
    let leads_here = |webhook: &Webhook| match address {
        Some(address) => address::leads_to(webhook, address),
        None => address::of_any_app(webhook).is_some(),
    };
    let mut rows = Vec::new();
    let what = format!("API key for {application}");
    match registry.rights(application, None).await {
        Ok(None) => {}
        Ok(Some(own)) => {
            let lacking = own.lacking(&FOR_SETUP);
            let text = match lacking[..] {
                [] => "may read and set up webhooks".to_owned(),
                _ => format!("may read webhooks; for things-stack setup it lacks {}", rights::in_words(lacking)),
            };
            rows.push(Row::ok(what, text));
        }
        Err(error) => rows.push(fault(what, &error)),
    }
    for webhook in webhooks {
        let Some(key) = webhook.downlink_api_key().filter(|_| leads_here(webhook)) else { continue };
        let what = format!("webhook {} of {application}", webhook.id());
        let to_do = format!("give it a downlink API key with the right {}", rights::in_words([WRITE_DOWNLINKS]));
        match registry.rights(application, Some(&key)).await {
            Ok(None) => {}
            Ok(Some(rights)) if rights.lacking(&[WRITE_DOWNLINKS]).is_empty() => {}
            Ok(Some(_)) => rows.push(Row::failed(what, "its downlink API key may not write downlinks", &to_do)),
            Err(RegistryError::Unauthorized { .. }) => {
                rows.push(Row::failed(what, "The Things Stack does not know its downlink API key any more", &to_do));
            }
            Err(error) => {
                let (text, to_do) = advice::split(&error.to_string());
                rows.push(Row::warning(what, text, to_do.as_deref().unwrap_or("try again later")));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_may_be_a_port_is_one() {
        let index = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 0)).collect::<HashMap<_, _>>();
        let enrollments = Enrollments {
            all: vec![()],
            ports: index(&["pumps-10", "app-1"]),
            applications: index(&["wells", "pumps-10", "app-1", "app"]),
            default: None,
        };
        assert_eq!(applications(&enrollments), ["app", "pumps", "wells"].map(str::to_owned).into());
    }
}
