//! Finds the site that a user names.

use anyhow::bail;
use iothub_connector::rapidm2m::{
    directory::Known,
    ledger::{Ledger, SiteKey},
};

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

/// What to say if a text names several sites.
pub fn ambiguous<'a>(text: &str, uids: impl Iterator<Item = &'a str>) -> String {
    format!("several sites are or were called {text:?}: name one by its _uid: {}", uids.collect::<Vec<_>>().join(", "))
}
