//! Checks unusable rows among good ones, with an overlap: each is counted once.

use iothub_connector::rapidm2m::ledger::{Cursor, Recorded};

use crate::{
    backend::{Row, stamp},
    rules::{Rule, Violation},
    scope::Scope,
    store::Store,
};

/// Whether the list says that an unusable row is counted.
pub fn is_told(list: &Recorded, row: usize) -> bool {
    list.clone().note_unusable(&[stamp(row)]) == 0
}

/// Checks that the records and the cursor count the unusable rows that the list names, each once.
pub fn check_counts(cursor: &Cursor, store: &Store, scope: &Scope) -> Result<(), Violation> {
    let Some(list) = &cursor.recorded else { return Ok(()) };
    let listed = scope.unusable().iter().filter(|row| is_told(list, **row)).count();
    let told = cursor.activity.as_ref().map_or(0, |activity| activity.unusable_rows);
    let told = usize::try_from(told).unwrap_or(usize::MAX);
    Rule::CountedOnce.check(store.unusable == listed && told == listed, || {
        let counted = store.unusable;
        format!("the list names {listed} unusable rows, the records count {counted}, the cursor {told}")
    })
}

/// Checks that each unusable row is counted.
pub fn check_settled(mut rows: impl Iterator<Item = Row>, list: &Recorded) -> Result<(), Violation> {
    let forgotten = rows.find(|row| !row.is_usable() && !is_told(list, row.number));
    Rule::CountedOnce.check(forgotten.is_none(), || format!("{forgotten:?} is not counted after an undisturbed turn"))
}

/// Sabotage.
pub fn forget(cursor: &mut Cursor) {
    if let Some(list) = &mut cursor.recorded {
        let mut document = serde_json::to_value(&*list).expect("a list is a document");
        document.as_object_mut().and_then(|fields| fields.remove("Unusable"));
        *list = serde_json::from_value(document).expect("the list may lack unusable rows");
    }
}
