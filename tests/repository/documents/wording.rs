//! Checks the words of the documents and of messages: plain English, one word for one thing.

use std::{path::Path, sync::LazyLock};

use regex::Regex;

use super::{Page, files::Files, pages};

/// Words over which readers stumbled, and better ones. Texts in back-ticks and code blocks are not looked at.
const BETTER: [(&str, &str); 17] = [
    (r"(?i)\bnobody reads\b", "unknown"),
    (r"(?i)\btold as\b", "reported as"),
    (r"(?i)\bbehind the (newest )?row\b", "older than, or just after"),
    (r"(?i)\b(is|was) done since\b", "finished at"),
    (r"(?i)\bwhom they stand for\b", "what each represents"),
    (r"(?i)\bstrangers?\b", "must register again"),
    (r"(?i)\benrolments?\b", "enrollment, as Azure spells it"),
    (r"(?i)\b(left|leaves|leave) (it |the site |the device )?alone\b", "not polled until; next attempt at"),
    (r"(?i)\bmade[- ]up\b", "simulated, emulated"),
    (r"(?i)\b(takes|take) the credentials\b", "credentials accepted"),
    (r"(?i)\blets us in\b", "signed in"),
    (r"(?i)\bthe settings come first\b", "fix the settings first"),
    (r"(?i)\bmend(s|ed|ing)?\b", "fix, correct"),
    (r"(?i)\bstand-ins?\b", "emulator"),
    (r"(?i)\bfailed 1 times\b", "1 failure"),
    (r"(?i)\bstands? for (somebody|whom)\b", "belongs to"),
    (r"(?i)\bgone round\b", "repeated"),
];
/// The code's word for what is in Cosmos DB. Pages for engineers explain it and use it.
const OF_CODE: (&str, &str) = (r"(?i)\bledger\b", "Cosmos DB, records");
const FOR_ENGINEERS: [&str; 2] = ["ARCHITECTURE.md", "docs/internals/"];
/// Pages with texts of the code, which are not written here.
const GENERATED: [&str; 2] = ["docs/faults.md", "docs/reference/cli.md"];

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    BETTER.iter().chain([&OF_CODE]).map(|(pattern, better)| (Regex::new(pattern).unwrap(), *better)).collect()
});
/// "There is no array", but "it is not an array".
static IS_NO: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"(?i)(\w+)\s+is no (\w+)").unwrap());

fn found(page: &Page) -> Vec<String> {
    let is_for_engineers = FOR_ENGINEERS.iter().any(|begin| page.path.starts_with(begin));
    let patterns = &PATTERNS[..PATTERNS.len() - usize::from(is_for_engineers)];
    let mut found = Vec::new();
    for (line, text) in &page.prose {
        for (pattern, better) in patterns {
            found.extend(
                pattern.find_iter(text).map(|seen| page.say(*line, &format!("{:?}: write {better}", seen.as_str()))),
            );
        }
        for seen in IS_NO.captures_iter(text) {
            let is_plain = seen[1].eq_ignore_ascii_case("there") || &seen[2] == "longer";
            if !is_plain {
                found.push(page.say(*line, &format!("{:?}: write is not a", &seen[0])));
            }
        }
    }
    found
}

#[test]
fn documents_are_in_plain_english() {
    let pages = pages(&Files::read());
    let read = pages.iter().filter(|page| !GENERATED.contains(&page.path.as_str()));
    assert_eq!(read.flat_map(found).collect::<Vec<_>>(), [""; 0]);
}

/// Where texts of the product are.
const CODE: [&str; 3] = ["src/", "emulators/src/", "xtask/src/"];
/// The strings of a file's code with their lines, without those of unit tests.
fn strings(code: &str) -> Vec<(usize, String)> {
    // A raw string first: it may have quotes in it.
    static STRING: LazyLock<Regex> = LazyLock::new(|| Regex::new(r##"(?s)r#".*?"#|"(?:[^"\\]|\\.)*""##).unwrap());
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    let code = lines.collect::<Vec<_>>().join("\n").replace("'\"'", "' '");
    let line = |at: usize| code[..at].matches('\n').count() + 1;
    STRING.find_iter(&code).map(|found| (line(found.start()), found.as_str().replace('\n', " "))).collect()
}

/// What is found in the strings of a file. A name in dots or underscores, such as `ledger.max_ms`, is not a word.
fn found_in_code(path: &str, code: &str) -> Vec<String> {
    let prose = strings(code).into_iter().filter(|(_, text)| text.contains(' ')).collect();
    found(&Page { path: path.to_owned(), prose, ..Page::default() })
}

#[test]
fn messages_and_help_are_in_plain_english() {
    let files = Files::read();
    let is_code = |path: &&String| {
        Path::new(path.as_str()).extension().is_some_and(|extension| extension == "rs")
            && CODE.iter().any(|begin| path.starts_with(begin))
            && !path.ends_with("tests.rs")
            && !path.contains("/tests/")
    };
    let read = |path: &String| std::fs::read_to_string(super::root().join(path)).unwrap();
    let of_code = files.all.iter().filter(is_code).flat_map(|path| found_in_code(path, &read(path)));
    let page = "docs/reference/cli.md".to_owned();
    let help = Page::read(&page, &read(&page));
    let help = found(&Page { path: help.path, prose: help.blocks, ..Page::default() });
    assert_eq!(of_code.chain(help).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn words_in_strings_are_found_and_comments_and_names_are_not() {
    let code = "\
// nobody reads this
fail(\"it is no JSON\"); name(\"ledger\", \"mended\");
#[cfg(test)]
mod tests { const A: &str = \"a ledger and more\"; }
say(\"see the ledger\");
";
    let said = found_in_code("src/planted.rs", code);
    assert_eq!(said, ["src/planted.rs:2: \"it is no JSON\": write is not a"]);
}

#[test]
fn words_that_stop_a_reader_are_found() {
    let text = "\
# Nobody reads this

There is no array, and it is no longer there. An answer that is no array
is told as an enrolment. `stand-in` is code.

```
mended
```

| Mend it | ledger |
|---|---|
";
    let wrong = |line: usize, what: &str| format!("docs/planted.md:{line}: {what}");
    assert_eq!(
        found(&Page::read("docs/planted.md", text)),
        [
            wrong(1, "\"Nobody reads\": write unknown"),
            wrong(3, "\"told as\": write reported as"),
            wrong(3, "\"enrolment\": write enrollment, as Azure spells it"),
            wrong(3, "\"that is no array\": write is not a"),
            wrong(10, "\"Mend\": write fix, correct"),
            wrong(10, "\"ledger\": write Cosmos DB, records"),
        ]
    );
    assert!(found(&Page::read("docs/internals/planted.md", "The ledger.")).is_empty());
}
