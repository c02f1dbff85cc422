//! Compares things by their text without the names in it. Ids of records, ETags and the milliseconds of clocks are
//! names: they differ from way to way but mean the same. Whether a process has tried the site is one too, because it matters
//! only if a site backs off. So a text is kept as its names and a hash of the text between
//! them.

use std::{
    hash::{DefaultHasher, Hasher as _},
    ops::Deref,
    sync::OnceLock,
};

/// A value whose text is made once and compared often.
#[derive(Default)]
pub struct Known<T> {
    thing: T,
    text: OnceLock<Text>,
}

/// Writes everything that matters about a value as text.
pub trait Describe {
    fn describe(&self) -> String;
}

#[derive(Debug)]
pub struct Text {
    pub hash: [u64; 2],
    /// The names in the order of the text.
    pub names: Vec<Name>,
    /// Ids from a set, which are printed in no fixed order.
    pub set: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    Id(String),
    Etag(String),
    /// Whether a process has tried the site.
    Tried(bool),
    /// The milliseconds of a clock.
    Millis(u32),
}

/// The ETag of the cursor's `version`.
pub fn etag(version: u32) -> String {
    format!("@{version};")
}

impl<T> From<T> for Known<T> {
    fn from(thing: T) -> Self {
        Self { thing, text: OnceLock::new() }
    }
}

impl<T> Deref for Known<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.thing
    }
}

impl<T: Describe> Known<T> {
    pub fn text(&self) -> &Text {
        self.text.get_or_init(|| Text::new(&self.thing.describe()))
    }
}

/// A hash of 128 bits.
fn hash(bytes: &[u8]) -> [u64; 2] {
    [0, 1].map(|salt| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(bytes);
        hasher.finish()
    })
}

impl Text {
    fn new(text: &str) -> Self {
        const SET: &str = "acknowledged: {";
        let cut = text.split_once(SET).and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
        let mut names = Vec::new();
        let Some((head, (set, tail))) = cut else {
            return Self { hash: hash(without_names(text, &mut names).as_bytes()), names, set: Vec::new() };
        };
        let mut rest = without_names(head, &mut names);
        rest.push_str(&without_names(tail, &mut names));
        let set = set.split(", ").filter(|id| !id.is_empty()).map(|id| id.trim_matches('"').to_owned()).collect();
        Self { hash: hash(rest.as_bytes()), names, set }
    }
}

fn without_names(text: &str, names: &mut Vec<Name>) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        let Some(length) = name(&bytes[at..]) else {
            at += 1;
            continue;
        };
        out.push_str(&text[copied..at]);
        let name = text[at..at + length].to_owned();
        match bytes[at] {
            b'.' => names.push(Name::Millis(name[1..].parse().unwrap_or_default())),
            b't' => names.push(Name::Tried(name == TRIED)),
            b'@' => names.push(Name::Etag(name)),
            _ => names.push(Name::Id(name)),
        }
        if bytes[at] != b'.' {
            out.push('#');
        }
        at += length;
        copied = at;
    }
    out.push_str(&text[copied..]);
    out
}

const TRIED: &str = "tried: true";
const NOT_TRIED: &str = "tried: false";

/// The length of the name at the start of this text.
fn name(text: &[u8]) -> Option<usize> {
    /// `1767225600123-0000-89abcdef`: all times in the model begin with these digits.
    const ID: (&[u8], usize) = (b"1767", 27);
    match text[0] {
        b't' => [TRIED, NOT_TRIED].into_iter().find(|tried| text.starts_with(tried.as_bytes())).map(str::len),
        // Milliseconds can only come from a clock, because rows have whole seconds.
        b'.' if text.get(4) == Some(&b'Z') => Some(4),
        b'1' if text.starts_with(ID.0) && text.get(13) == Some(&b'-') && text.get(18) == Some(&b'-') => Some(ID.1),
        b'@' => text.iter().position(|byte| *byte == b';').map(|end| end + 1),
        _ => None,
    }
}
