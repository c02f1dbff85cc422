//! Checks Cosmos DB: the account, the database, its containers, and whether documents could be written. It writes
//! nothing.

use std::sync::Arc;

use chrono::SecondsFormat;
use iothub_connector::{
    cosmos::{Failure, Found, Requirements, Ttl, Unfit},
    iot_hub::devices::{Store, store},
    rapidm2m::ledger::{ALL_SITES, Ledger, MESSAGE_PATH, Options, REQUIREMENTS, SiteKey},
    support::kind::Kind,
};

use super::report::{Checked, Row};

const MAKE_IT: &str = "create it: docs/how-to/deploy-by-hand.md#cosmos-db";

/// `customer`: whose sites are polled, if any are.
pub async fn check(options: Options, needs_devices: bool, customer: Option<&str>) -> Checked {
    let (host, database) =
        (options.account.endpoint.host_str().unwrap_or_default().to_owned(), options.account.database.clone());
    let container = options.container.clone();
    let keeps_history = options.history_days.is_none();
    let ledger = Ledger::new(options);
    let account = ledger.account();
    let what = format!("Cosmos DB {host}");
    if let Err(failure) = account.reach().await {
        let containers = Row::skipped("containers", "fix the account first");
        return Checked { rows: vec![fault(what, &failure), containers], clock: None };
    }
    let mut rows = vec![Row::ok(what, "signed in")];
    let is_made = account.makes_containers();
    if let Some(customer) = customer {
        let what = format!("container {container}");
        match ledger.inspect().await {
            Ok(found) => {
                rows.extend(of_container(what, &database, &found, is_made, &REQUIREMENTS, Some(keeps_history)));
                rows.extend(of_contacts(&ledger, customer).await);
            }
            Err(failure) => rows.push(fault(what, &failure)),
        }
    }
    if needs_devices {
        let what = format!("container {}", store::CONTAINER);
        match Store::new(Arc::clone(&account)).inspect().await {
            Ok(found) => rows.extend(of_container(what, &database, &found, is_made, &store::REQUIREMENTS, None)),
            Err(failure) => rows.push(fault(what, &failure)),
        }
    }
    Checked { rows, clock: None }
}

/// Whether the app has found the contacts of the site list to be wrong. If that cannot be read, another row says why.
async fn of_contacts(ledger: &Ledger, customer: &str) -> Option<Row> {
    let key = SiteKey { customer: customer.to_owned(), site: ALL_SITES.to_owned() };
    let cursors = ledger.cursors_of_site(&key).await.ok()?;
    let since = cursors.into_iter().find_map(|cursor| cursor.contacts_wrong_since)?;
    let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
    let text = format!("since {since}: a site had new rows, but the site list showed no new contact (device.stamp)");
    Some(Row::warning("contacts of the sites", text, "nothing: each site is polled in each run"))
}

fn fault(what: impl Into<String>, failure: &Failure) -> Row {
    Row::fault(what, failure.kind(), &failure.to_string())
}

/// `keeps_history`: whether documents must never expire. `None` for a container whose documents never expire anyway.
fn of_container(
    what: String,
    database: &str,
    found: &Found,
    is_made: bool,
    requirements: &Requirements,
    keeps_history: Option<bool>,
) -> Vec<Row> {
    let facts = match found {
        Found::Container(facts) => facts,
        _ if is_made => return vec![Row::ok(what, format!("not there yet: the first run makes it in {database}"))],
        Found::NoDatabase => {
            let row = Row::failed(
                what,
                format!("there is no database {database}, and without a key it is not made"),
                MAKE_IT,
            );
            return vec![Row { kind: Some(Kind::LedgerMissing), ..row }];
        }
        Found::NoContainer => {
            let row = Row::failed(what, "it is not there, and without a key it is not made", MAKE_IT);
            return vec![Row { kind: Some(Kind::LedgerMissing), ..row }];
        }
    };
    let unfit = || requirements.unfit(&facts.partition_key, facts.time_to_live);
    let unfit = facts.foreign.clone().or_else(unfit);
    if let Some(Unfit { reason, remedy }) = &unfit
        && facts.access.is_none()
    {
        return vec![Row::failed(what, reason, remedy)];
    }
    let mut rows = Vec::new();
    match &facts.access {
        Some(Err(failure)) => rows.push(fault(&what, failure)),
        _ => rows.push(Row::ok(&what, "documents can be read and written")),
    }
    if let Some(Unfit { reason, remedy }) = unfit {
        rows.push(Row::failed(&what, reason, remedy));
    }
    if (facts.time_to_live, keeps_history) == (Ttl::Off, Some(false)) {
        let text = "its time to live is off: records are never removed";
        rows.push(Row::warning(&what, text, "set it to -1 (on, no default), or PollHistoryDays=0"));
    }
    if keeps_history.is_some() && !facts.excluded_paths.iter().any(|path| path == MESSAGE_PATH || path == "/*") {
        let text = format!("it indexes {}, which makes each write dearer", MESSAGE_PATH.trim_end_matches("/?"));
        rows.push(Row::warning(&what, text, "exclude the path /IoTHubMessage/? from its index"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use iothub_connector::cosmos::Facts;

    use super::*;
    use crate::cli::check::report::Verdict;
    use iothub_connector::rapidm2m::ledger::PARTITION_KEY;

    fn rows(found: &Found, is_made: bool, keeps_history: Option<bool>) -> Vec<(Verdict, String)> {
        let rows = of_container("container x".into(), "db", found, is_made, &REQUIREMENTS, keeps_history);
        rows.into_iter().map(|row| (row.result, row.text)).collect()
    }

    #[test]
    fn what_is_not_there_is_made_with_a_key_only() {
        for (found, what) in [(Found::NoDatabase, "there is no database db"), (Found::NoContainer, "it is not there")] {
            let [(Verdict::Failed, text)] = &rows(&found, false, Some(false))[..] else { panic!("{found:?}") };
            assert!(text.starts_with(what), "{text}");
            let [(Verdict::Ok, text)] = &rows(&found, true, Some(false))[..] else { panic!("{found:?}") };
            assert!(text.contains("the first run makes it in db"), "{text}");
        }
    }

    #[test]
    fn records_that_are_kept_for_ever_need_no_time_to_live() {
        let found = |time_to_live| {
            Found::Container(Facts {
                partition_key: PARTITION_KEY.map(str::to_owned).to_vec(),
                time_to_live,
                excluded_paths: vec![MESSAGE_PATH.to_owned()],
                access: Some(Ok(())),
                foreign: None,
            })
        };
        for (ttl, keeps_history, verdicts) in [
            (Ttl::NoDefault, Some(false), &[Verdict::Ok][..]),
            (Ttl::Off, Some(false), &[Verdict::Ok, Verdict::Warning]),
            (Ttl::Off, Some(true), &[Verdict::Ok]),
            (Ttl::Off, None, &[Verdict::Ok]),
            (Ttl::Default(60), Some(true), &[Verdict::Ok, Verdict::Failed]),
        ] {
            let found: Vec<_> =
                rows(&found(ttl), false, keeps_history).into_iter().map(|(verdict, _)| verdict).collect();
            assert_eq!(found, verdicts, "{ttl:?} {keeps_history:?}");
        }
    }
}
