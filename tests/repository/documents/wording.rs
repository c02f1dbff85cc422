//! Checks the words of the documents: plain English, one word for one thing.

use std::sync::LazyLock;

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
