//! What happens in the world whatever the pollers do: rows appear and change, and the site is listed in another way.

use crate::{
    backend::{Row, Value},
    late,
    world::World,
};

impl World {
    /// A batch of rows appears.
    pub fn produce(&mut self, batch: usize) {
        let batch = self.batches.remove(batch);
        let nonsense = |row: &usize| self.scope.nonsense.contains(row);
        let within_reach = late::within_reach(batch, &self.rows, self.scope.overlap);
        self.owed.extend(within_reach.filter(|row| !nonsense(row)));
        let value = |row: &usize| if nonsense(row) { Value::Nonsense } else { Value::First };
        self.rows.extend(batch.iter().map(|row| (*row, value(row))));
    }

    /// The next row whose value changes, if the row is there.
    pub fn next_change(&self) -> Option<Row> {
        let (number, value) = *self.changes.first()?;
        self.rows.contains_key(&number).then_some(Row { number, value })
    }

    /// A row gets another value.
    pub fn change(&mut self, row: Row) {
        self.changes = &self.changes[1..];
        let is_within_reach = late::within_reach(&[row.number], &self.rows, self.scope.overlap).next().is_some();
        if is_within_reach && row.is_usable() {
            self.changed.insert(row.number);
        } else {
            // What it was before is no longer there to be recorded.
            self.changed.remove(&row.number);
        }
        self.rows.insert(row.number, row.value);
    }

    /// The next run is told something else of the site.
    pub fn relist(&mut self) {
        if let Some((listing, rest)) = self.listings.split_first() {
            (self.listing, self.listings) = (*listing, rest);
        }
    }
}
