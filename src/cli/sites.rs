//! Finds the site that a user names.

use anyhow::bail;
use iothub_connector::rapidm2m::{
    directory::Known,
    ledger::{Ledger, SiteKey},
};

use super::similar;

/// Where the documents of a site are: `text` is its name (today or earlier), its `_uid`, or `Site_Id` of its documents. A
/// site that is not known is looked for under the text itself.
///
/// # Errors
/// The ledger cannot be read, or the text names several sites.
pub async fn key(ledger: &Ledger, customer: &str, text: &str) -> anyhow::Result<SiteKey> {
    let directory = ledger.directory(customer).await?;
    let site = match directory.find(text).as_slice() {
        [] => text,
        [Known { place, .. }] => place,
        several => bail!("{}", ambiguous(text, several.iter().filter_map(|known| known.uid.as_deref()))),
    };
    Ok(SiteKey { customer: customer.to_owned(), site: site.to_owned() })
}

/// The text for a site that has no records.
pub async fn unknown(key: &SiteKey, ledger: &Ledger) -> anyhow::Result<String> {
    let SiteKey { customer, site } = key;
    let known = ledger.sites().await?;
    let text = format!("site {site:?} of customer {customer:?} was never polled");
    if let Some(other) = known.iter().find(|known| known.site == *site) {
        return Ok(format!("{text}; customer {:?} has a site of this name: give --customer", other.customer));
    }
    let sites = known.iter().filter(|known| known.customer == *customer).map(|known| known.site.as_str());
    let (sites, count) = (similar::closest(site, sites.clone()), sites.count());
    Ok(match (sites.is_empty(), count) {
        (false, _) => format!("{text}; similar ones that were: {}", sites.join(", ")),
        (true, 0) => {
            format!("{text}, nor was any other of its sites: check --customer and the settings of the database")
        }
        (true, count) => format!("{text}, {count} others were; none of them is called anything like it"),
    })
}

/// What to say if a text names several sites.
pub fn ambiguous<'a>(text: &str, uids: impl Iterator<Item = &'a str>) -> String {
    format!("several sites are or were called {text:?}: name one by its _uid: {}", uids.collect::<Vec<_>>().join(", "))
}
