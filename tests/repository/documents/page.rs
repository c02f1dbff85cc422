//! Parses a document.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Stands in prose for a text in back-ticks.
const CODE: &str = "`…`";

/// The parts of a document, each with its line.
#[derive(Default)]
pub struct Page {
    pub path: String,
    /// The anchors that GitHub makes from headings, and those that are written as `<a id="…"></a>`.
    pub anchors: BTreeSet<String>,
    pub links: Vec<(usize, String)>,
    /// The texts in back-ticks.
    pub codes: Vec<(usize, String)>,
    /// The texts in back-ticks in the first column of tables whose heading is `Setting`.
    pub settings: Vec<(usize, String)>,
    /// The rows of tables, each with the texts of its cells.
    pub rows: Vec<(usize, Vec<String>)>,
    /// The lines of code blocks.
    pub blocks: Vec<(usize, String)>,
    /// Paragraphs, headings and cells as they are read, without the texts in back-ticks.
    pub prose: Vec<(usize, String)>,
}

impl Page {
    pub fn read(path: &str, text: &str) -> Self {
        let mut page = Self { path: path.to_owned(), ..Self::default() };
        let line = |range: &Range<usize>| text[..range.start].matches('\n').count() + 1;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let (mut heading, mut row, mut cells) = (None::<String>, 0, Vec::<String>::new());
        let (mut of_settings, mut in_block, mut prose) = (false, false, String::new());
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            if matches!(&event, Event::End(end) if !is_within_a_sentence(*end)) && !prose.is_empty() {
                page.prose.push((line(&range), mem::take(&mut prose)));
            }
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
                Event::Start(Tag::CodeBlock(_)) => in_block = true,
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Start(Tag::Table(_)) => row = 0,
                Event::Start(Tag::TableHead | Tag::TableRow) => row += 1,
                Event::End(TagEnd::TableHead | TagEnd::TableRow) => {
                    page.rows.push((line(&range), mem::take(&mut cells)));
                }
                Event::Start(Tag::TableCell) => cells.push(String::new()),
                Event::End(TagEnd::TableCell) if row == 1 && cells.len() == 1 => of_settings = cells[0] == "Setting",
                Event::End(TagEnd::Table) => of_settings = false,
                Event::InlineHtml(html) | Event::Html(html) => {
                    page.anchors
                        .extend(html.split("id=\"").skip(1).filter_map(|id| Some(id.split_once('"')?.0.to_owned())));
                }
                Event::Code(code) => {
                    if of_settings && cells.len() == 1 {
                        page.settings.push((line(&range), code.to_string()));
                    }
                    heading.iter_mut().chain(cells.last_mut()).for_each(|text| *text += &code);
                    prose += CODE;
                    page.codes.push((line(&range), code.into_string()));
                }
                Event::Text(part) if in_block => {
                    let first = line(&range);
                    page.blocks.extend(part.lines().enumerate().map(|(at, text)| (first + at, text.to_owned())));
                }
                Event::Text(part) => {
                    heading.iter_mut().chain(cells.last_mut()).for_each(|text| *text += &part);
                    prose += &part;
                }
                Event::SoftBreak | Event::HardBreak => prose.push(' '),
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

fn is_within_a_sentence(end: TagEnd) -> bool {
    matches!(end, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Image)
}

/// <https://docs.github.com/get-started/writing-on-github/getting-started-with-writing-and-formatting-on-github/basic-writing-and-formatting-syntax#section-links>
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
