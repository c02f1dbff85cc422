//! The queue of a cursor: whose messages are not finished.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Poll;

/// Ids of polls, oldest first. The record of the first one may be in the cursor itself. In the document its id is then
/// `{"Id": "…"}`: a version that does not know this cannot read the cursor, and does not take the record for lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unforwarded {
    ids: Vec<String>,
    is_first_in_cursor: bool,
}

impl Unforwarded {
    pub fn push(&mut self, id: String) {
        self.ids.push(id);
    }

    pub(super) fn note_first_is_in_cursor(&mut self) {
        self.is_first_in_cursor = !self.ids.is_empty();
    }

    /// Whether the first one's record is in the cursor itself.
    #[must_use]
    pub fn is_first_in_cursor(&self) -> bool {
        self.is_first_in_cursor
    }

    /// Takes the ones out that are finished. Returns whether the first one is.
    pub(super) fn take_out(&mut self, is_finished: impl Fn(&String) -> bool) -> bool {
        let first = self.ids.first().is_some_and(&is_finished);
        self.ids.retain(|id| !is_finished(id));
        self.is_first_in_cursor &= !first;
        first
    }
}

impl Deref for Unforwarded {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.ids
    }
}

impl From<Vec<String>> for Unforwarded {
    fn from(ids: Vec<String>) -> Self {
        Self { ids, is_first_in_cursor: false }
    }
}

/// A record in a cursor.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kept(Box<Poll>);

impl From<Poll> for Kept {
    fn from(poll: Poll) -> Self {
        Self(Box::new(poll))
    }
}

impl From<Kept> for Poll {
    fn from(Kept(poll): Kept) -> Self {
        *poll
    }
}

impl Deref for Kept {
    type Target = Poll;

    fn deref(&self) -> &Poll {
        &self.0
    }
}

/// A record never changes while it waits, so its id says which one it is.
impl fmt::Debug for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.id.fmt(out)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Place<T> {
    Document(T),
    Cursor {
        #[serde(rename = "Id")]
        id: T,
    },
}

impl Serialize for Unforwarded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ids.iter().enumerate().map(|(place, id)| {
            if place == 0 && self.is_first_in_cursor { Place::Cursor { id } } else { Place::Document(id) }
        }))
    }
}

impl<'de> Deserialize<'de> for Unforwarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let places = Vec::<Place<String>>::deserialize(deserializer)?;
        let is_first_in_cursor = matches!(places.first(), Some(Place::Cursor { .. }));
        let ids = places.into_iter().map(|(Place::Document(id) | Place::Cursor { id })| id).collect();
        Ok(Self { ids, is_first_in_cursor })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_that_expects_ids_only_refuses_a_record_in_the_cursor() {
        let mut queue = Unforwarded::from(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(serde_json::to_value(&queue).unwrap(), json!(["a", "b"]));
        queue.note_first_is_in_cursor();
        let text = serde_json::to_value(&queue).unwrap();
        assert_eq!(text, json!([{"Id": "a"}, "b"]));
        assert!(serde_json::from_value::<Vec<String>>(text.clone()).is_err());
        assert_eq!(serde_json::from_value::<Unforwarded>(text).unwrap(), queue);
    }

    #[test]
    fn what_is_finished_leaves_the_queue() {
        let mut queue = Unforwarded::from(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        queue.note_first_is_in_cursor();
        assert!(!queue.take_out(|id| id == "b") && queue.is_first_in_cursor());
        assert!(queue.take_out(|id| id == "a") && !queue.is_first_in_cursor());
        assert_eq!(*queue, ["c"]);
    }
}
