//! Parses a document.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The parts of a document, each with its line.
pub struct Page {
    pub path: String,
    /// The anchors that GitHub makes from headings.
    pub anchors: BTreeSet<String>,
    pub links: Vec<(usize, String)>,
    /// The texts in back-ticks.
    pub codes: Vec<(usize, String)>,
    /// The texts in back-ticks in the first column of tables whose heading is `Setting`.
    pub settings: Vec<(usize, String)>,
}

impl Page {
    pub fn read(path: &str, text: &str) -> Self {
        let (path, anchors) = (path.to_owned(), BTreeSet::new());
        let mut page = Self { path, anchors, links: Vec::new(), codes: Vec::new(), settings: Vec::new() };
        let line = |range: &Range<usize>| text[..range.start].matches('\n').count() + 1;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let (mut heading, mut row, mut cell, mut cells) = (None::<String>, 0, String::new(), 0);
        let mut of_settings = false;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let count = seen.entry(anchor.clone()).or_default();
                    page.anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                    *count += 1;
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push((line(&range), dest_url.into_string()));
                }
                Event::Start(Tag::Table(_)) => row = 0,
                Event::Start(Tag::TableHead | Tag::TableRow) => (row, cells) = (row + 1, 0),
                Event::Start(Tag::TableCell) => (cells, cell) = (cells + 1, String::new()),
                Event::End(TagEnd::TableCell) if row == 1 && cells == 1 => of_settings = cell == "Setting",
                Event::End(TagEnd::Table) => of_settings = false,
                Event::Code(code) => {
                    if of_settings && cells == 1 {
                        page.settings.push((line(&range), code.to_string()));
                    }
                    if let Some(heading) = &mut heading {
                        *heading += &code;
                    }
                    page.codes.push((line(&range), code.into_string()));
                }
                Event::Text(part) => {
                    cell += &part;
                    if let Some(heading) = &mut heading {
                        *heading += &part;
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// The target of a relative link: a path from the root, and the anchor there.
    pub fn resolve(&self, link: &str) -> (String, Option<String>) {
        let (path, anchor) =
            link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor.to_owned())));
        if path.is_empty() {
            return (self.path.clone(), anchor);
        }
        let mut resolved = PathBuf::new();
        for component in Path::new(&self.path).parent().unwrap().join(path).components() {
            match component {
                Component::ParentDir => assert!(resolved.pop(), "{}: {link} leads out of the repository", self.path),
                component => resolved.push(component),
            }
        }
        (resolved.to_str().unwrap().to_owned(), anchor)
    }

    pub fn say(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// <https://docs.github.com/get-started/writing-on-github/getting-started-with-writing-and-formatting-on-github/basic-writing-and-formatting-syntax#section-links>
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
