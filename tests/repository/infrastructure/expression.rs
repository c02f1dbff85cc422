//! Parses and evaluates the part of Bicep's expressions that `infra/` uses. What only Azure knows has no value here.
//! <https://learn.microsoft.com/azure/azure-resource-manager/bicep/expressions>

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The values of parameters and variables.
pub type Scope = BTreeMap<String, Value>;

#[derive(Debug)]
pub enum Expression {
    Literal(Value),
    /// The parts of a text with `${…}`.
    Text(Vec<Expression>),
    Name(String),
    Call(String, Vec<Expression>),
    List(Vec<Expression>),
    Object(Vec<(String, Expression)>),
    Not(Box<Expression>),
    Compared(Box<Expression>, &'static str, Box<Expression>),
    Conditional(Box<[Expression; 3]>),
    /// A property of a resource, or an output of a module.
    OfAzure,
}

impl Expression {
    /// Parses the expression at the beginning of the text.
    pub fn parse(text: &str) -> Self {
        Parser { rest: text }.conditional()
    }

    /// The expression below these members and numbers of items, such as `properties.iotHubs.0`.
    pub fn below(&self, path: &str) -> &Self {
        path.split('.').fold(self, |within, name| {
            let found = match within {
                Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, of)| of),
                Self::List(items) => name.parse().ok().and_then(|at: usize| items.get(at)),
                _ => None,
            };
            found.unwrap_or_else(|| panic!("{path}: {name} is missing"))
        })
    }

    pub fn value(&self, scope: &Scope) -> Option<Value> {
        let values = |all: &[Self]| all.iter().map(|one| one.value(scope)).collect::<Option<Vec<_>>>();
        Some(match self {
            Self::Literal(value) => value.clone(),
            Self::Name(name) => scope.get(name)?.clone(),
            Self::Text(parts) => {
                let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                values(parts)?.into_iter().map(text).collect::<String>().into()
            }
            Self::List(items) => values(items)?.into(),
            Self::Object(members) => {
                let member = |(key, of): &(String, Self)| Some((key.clone(), of.value(scope)?));
                Value::Object(members.iter().map(member).collect::<Option<_>>()?)
            }
            Self::Call(name, arguments) => call(name, &values(arguments)?)?,
            Self::Not(of) => (!of.value(scope)?.as_bool()?).into(),
            Self::Compared(left, operator, right) => {
                let (left, right) = (left.value(scope)?.as_i64()?, right.value(scope)?.as_i64()?);
                if *operator == ">=" { left >= right } else { left > right }.into()
            }
            Self::Conditional(parts) => {
                let [condition, when_true, when_false] = &**parts;
                if condition.value(scope)?.as_bool()? { when_true } else { when_false }.value(scope)?
            }
            Self::OfAzure => return None,
        })
    }
}

fn call(name: &str, arguments: &[Value]) -> Option<Value> {
    Some(match (name, arguments) {
        ("empty", [Value::String(text)]) => text.is_empty().into(),
        ("concat", lists) => {
            let lists = lists.iter().map(|list| list.as_array().cloned()).collect::<Option<Vec<_>>>()?;
            lists.concat().into()
        }
        _ => return None,
    })
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
        while self.rest.starts_with("//") {
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest.trim_start());
        }
    }

    /// Whether this comes next. If so, it is taken.
    fn takes(&mut self, token: &str) -> bool {
        self.skip();
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn expects(&mut self, token: &str) {
        assert!(self.takes(token), "{token:?} is missing before {:.60?}", self.rest);
    }

    fn word(&mut self) -> &'a str {
        self.skip();
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        assert!(!word.is_empty(), "not known here: {:.60?}", self.rest);
        self.rest = rest;
        word
    }

    fn conditional(&mut self) -> Expression {
        let condition = self.comparison();
        if !self.takes("?") {
            return condition;
        }
        let when_true = self.conditional();
        self.expects(":");
        Expression::Conditional(Box::new([condition, when_true, self.conditional()]))
    }

    fn comparison(&mut self) -> Expression {
        let left = self.operand();
        match [">=", ">"].into_iter().find(|operator| self.takes(operator)) {
            Some(operator) => Expression::Compared(Box::new(left), operator, Box::new(self.operand())),
            None => left,
        }
    }

    fn operand(&mut self) -> Expression {
        if self.takes("!") {
            return Expression::Not(Box::new(self.operand()));
        }
        let mut operand = self.primary();
        loop {
            if self.rest.starts_with('.') {
                self.expects(".");
                self.word();
                if self.rest.starts_with('(') {
                    self.expects("(");
                    self.list(")");
                }
            } else if self.rest.starts_with('[') {
                self.expects("[");
                self.list("]");
            } else {
                return operand;
            }
            operand = Expression::OfAzure;
        }
    }

    fn primary(&mut self) -> Expression {
        if self.takes("(") {
            let inner = self.conditional();
            self.expects(")");
            return inner;
        }
        if self.takes("[") {
            return Expression::List(self.list("]"));
        }
        if self.takes("{") {
            return self.object();
        }
        if self.takes("'") {
            return self.text();
        }
        let sign = if self.takes("-") { "-" } else { "" };
        let word = self.word();
        match word {
            "true" | "false" => Expression::Literal(json!(word == "true")),
            "null" => Expression::Literal(Value::Null),
            _ if word.starts_with(|first: char| first.is_ascii_digit()) => {
                let number: i64 = format!("{sign}{word}").parse().unwrap_or_else(|error| panic!("{word}: {error}"));
                Expression::Literal(number.into())
            }
            _ if self.rest.starts_with('(') => {
                self.expects("(");
                Expression::Call(word.to_owned(), self.list(")"))
            }
            _ => Expression::Name(word.to_owned()),
        }
    }

    fn list(&mut self, end: &str) -> Vec<Expression> {
        let mut items = Vec::new();
        while !self.takes(end) {
            items.push(self.conditional());
            self.takes(",");
        }
        items
    }

    fn object(&mut self) -> Expression {
        let mut members = Vec::new();
        while !self.takes("}") {
            let key = if self.takes("'") {
                let (key, rest) = self.rest.split_once('\'').expect("the end of a key");
                self.rest = rest;
                key
            } else {
                self.word()
            };
            self.expects(":");
            members.push((key.to_owned(), self.conditional()));
            self.takes(",");
        }
        Expression::Object(members)
    }

    /// A text behind its first quote.
    fn text(&mut self) -> Expression {
        let (mut parts, mut literal) = (Vec::new(), String::new());
        loop {
            if let Some(rest) = self.rest.strip_prefix("${") {
                self.rest = rest;
                parts.push(Expression::Literal(std::mem::take(&mut literal).into()));
                parts.push(self.conditional());
                self.expects("}");
                continue;
            }
            let mut letters = self.rest.chars();
            let letter = match letters.next().expect("the end of a text") {
                '\'' => break,
                '\\' => letters.next().expect("an escaped letter"),
                letter => letter,
            };
            literal.push(letter);
            self.rest = letters.as_str();
        }
        self.rest = &self.rest[1..];
        if parts.is_empty() {
            return Expression::Literal(literal.into());
        }
        parts.push(Expression::Literal(literal.into()));
        Expression::Text(parts)
    }
}

#[test]
fn expressions_have_the_values_that_bicep_gives_them() {
    let scope: Scope = [("one".to_owned(), json!(1)), ("name".to_owned(), json!("x"))].into();
    for (text, value) in [
        ("one >= 0 ? one : 5", Some(json!(1))),
        ("one > 1 ? 'a' : one > 0 ? 'b' : 'c'", Some(json!("b"))),
        ("!empty(name) ? [{ a: -1, 'b-c': null }] : []", Some(json!([{ "a": -1, "b-c": null }]))),
        ("concat([one], [\n  2 // a comment\n  3\n])", Some(json!([1, 2, 3]))),
        ("'a \\'${name}\\' ${one}'", Some(json!("a 'x' 1"))),
        ("hub.listkeys().value[0].keyName", None),
        ("'${unknown}'", None),
    ] {
        assert_eq!(Expression::parse(text).value(&scope), value, "{text}");
    }
}
