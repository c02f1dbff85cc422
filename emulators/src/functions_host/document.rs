//! A JSON file whose errors name the file and the member, so that a mistake in an app is found quickly.

use std::{fmt, fs, path::Path};

use anyhow::{Context, anyhow};
use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::Value;

/// A value inside a JSON file, with its path there.
#[derive(Clone)]
pub struct Node<'a> {
    file: &'a str,
    path: String,
    value: &'a Value,
}

/// A JSON file.
pub struct Document {
    file: String,
    value: Value,
}

impl Document {
    /// # Errors
    /// The file cannot be read or is not valid JSON.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
        // Editors on Windows often write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        // The real host allows comments and trailing commas, too.
        let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
        let value =
            parse_to_serde_value(text, &options).map_err(|error| anyhow!("{file} is not valid JSON: {error}"))?;
        Ok(Self { file, value })
    }

    #[cfg(test)]
    pub fn of(file: &str, value: Value) -> Self {
        Self { file: file.to_owned(), value }
    }

    pub fn root(&self) -> Node<'_> {
        Node { file: &self.file, path: String::new(), value: &self.value }
    }
}

impl<'a> Node<'a> {
    /// The member. `None` if it is absent or `null`, or if this value is not an object.
    pub fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Some(Node { file: self.file, path, value })
    }

    pub fn error(&self, problem: impl fmt::Display) -> anyhow::Error {
        anyhow!("{}: {} {problem}", self.file, if self.path.is_empty() { "the file" } else { &self.path })
    }

    /// # Errors
    /// Names the file and the missing member.
    pub fn required(&self, name: &str) -> anyhow::Result<Node<'a>> {
        self.get(name).ok_or_else(|| match self.path.as_str() {
            "" => anyhow!("{}: {name} is missing", self.file),
            path => anyhow!("{}: {path}.{name} is missing", self.file),
        })
    }

    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn str(&self) -> anyhow::Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.error("must be a string"))
    }

    pub fn bool(&self) -> anyhow::Result<bool> {
        self.value.as_bool().ok_or_else(|| self.error("must be true or false"))
    }

    pub fn integer(&self) -> anyhow::Result<i64> {
        self.value.as_i64().ok_or_else(|| self.error("must be an integer"))
    }

    pub fn list(&self) -> anyhow::Result<Vec<Node<'a>>> {
        let values = self.value.as_array().ok_or_else(|| self.error("must be an array"))?;
        let node = |(index, value)| Node { file: self.file, path: format!("{}[{index}]", self.path), value };
        Ok(values.iter().enumerate().map(node).collect())
    }

    pub fn strings(&self) -> anyhow::Result<Vec<String>> {
        self.list()?.iter().map(|node| node.str().map(str::to_owned)).collect()
    }

    /// Names and values of an object.
    pub fn members(&self) -> anyhow::Result<Vec<(&'a str, Node<'a>)>> {
        let members = self.value.as_object().ok_or_else(|| self.error("must be an object"))?;
        Ok(members.keys().filter_map(|name| Some((name.as_str(), self.get(name)?))).collect())
    }
}
