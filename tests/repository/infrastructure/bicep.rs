//! Parses the part of Bicep that `infra/` uses.

use std::{collections::BTreeMap, fs, path::Path};

/// The text of a file in the repository.
pub fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All `var NAME = { … }` with one `key: expression` a line.
pub fn objects(bicep: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut objects = BTreeMap::new();
    let mut lines = bicep.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("var ").and_then(|rest| rest.strip_suffix(" = {")) else { continue };
        let members =
            lines.by_ref().take_while(|line| *line != "}").filter(|line| !line.trim_start().starts_with("//"));
        let pair = |line: &str| {
            let (key, value) = line.trim().split_once(": ").unwrap_or_else(|| panic!("{line:?} is not a member"));
            (key.trim_matches('\'').to_owned(), value.to_owned())
        };
        objects.insert(name.to_owned(), members.map(pair).collect());
    }
    objects
}

/// The text of `resource NAME …` up to its end.
pub fn resource<'a>(bicep: &'a str, name: &str) -> &'a str {
    let start = bicep.find(&format!("\nresource {name} '")).unwrap_or_else(|| panic!("no resource {name}"));
    let end = bicep[start..].find("\n}").expect("its end");
    &bicep[start..start + end]
}

/// The value of `var NAME = 'value'`.
pub fn variable<'a>(bicep: &'a str, name: &str) -> &'a str {
    let definition = format!("var {name} = '");
    let rest = bicep.split(&definition).nth(1).unwrap_or_else(|| panic!("no variable {name}"));
    rest.split('\'').next().unwrap()
}

/// The quoted texts, in order.
pub fn quoted(text: &str, quote: char) -> Vec<&str> {
    text.split(quote).skip(1).step_by(2).collect()
}
