//! Removes credentials from texts of other software: the libraries' log and the services' responses. No I/O, one pass.
//!
//! The connector's own credentials are in types that do not print. But a careless service may answer with a page that
//! shows the whole request, and a library at `trace` logs this page.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const REDACTED: &str = "[REDACTED]";
/// Names, in lower case, that precede a secret after `=` or `:`.
const NAMES: [&str; 10] = [
    "sig",
    "sharedaccesskey",
    "accountkey",
    "primarykey",
    "secondarykey",
    "x-webhook-secret",
    "x-functions-key",
    "x-identity-header",
    "x-downlink-apikey",
    "apikey",
];
/// A longer value after `Bearer` is a token. A shorter one is a token only if it does not look like a word.
const LONGEST_WORD: usize = 15;
/// The shortest text that counts as `user:password` in Base64.
const SHORTEST_BASIC: usize = 8;
/// So many bytes of a value decide whether it is a credential.
const ENOUGH: usize = 512;
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Replaces the credentials in the text. JSON stays JSON.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while at < text.len() {
        match credential(text, at) {
            Some((begin, end)) => {
                kept.push_str(&text[copied..begin]);
                kept.push_str(REDACTED);
                (copied, at) = (end, end);
            }
            None => at += 1,
        }
    }
    kept + &text[copied..]
}

/// The start and end of the credential whose name, scheme or mark begins at `at`.
fn credential(text: &str, at: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    // A word may also begin after a percent-encoded separator.
    let is_encoded = at >= 3 && bytes[at - 3] == b'%';
    let begins_word = at == 0 || is_encoded || !bytes[at - 1].is_ascii_alphanumeric();
    match bytes[at].to_ascii_lowercase() {
        b':' => user_info(text, at),
        b'n' if bytes[at..].starts_with(b"NNSXS.") => Some((at, value_end(text, at))),
        b'?' | b'&' => named(text, at + 1, "code", b"="),
        b'b' if begins_word => scheme(text, at),
        b's' | b'a' | b'p' | b'x' => {
            let name = NAMES.iter().find(|name| starts_with(text, at, name))?;
            (begins_word || name.len() > 6).then(|| named(text, at, name, b"=:")).flatten()
        }
        _ => None,
    }
}

fn starts_with(text: &str, at: usize, lower: &str) -> bool {
    text.as_bytes().get(at..at + lower.len()).is_some_and(|part| part.eq_ignore_ascii_case(lower.as_bytes()))
}

/// `name=value`, `name: value`, `"name":"value"`, also percent-encoded once or twice.
fn named(text: &str, at: usize, name: &str, separators: &[u8]) -> Option<(usize, usize)> {
    if !starts_with(text, at, name) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut begin = skip_quotes(bytes, at + name.len());
    begin = match bytes.get(begin) {
        Some(letter) if separators.contains(letter) => begin + 1,
        Some(b'%') => begin + ["%3d", "%253d", "%3a"].iter().find(|code| starts_with(text, begin, code))?.len(),
        _ => return None,
    };
    begin = skip_quotes(bytes, begin);
    let end = value_end(text, begin);
    (end > begin).then_some((begin, end))
}

/// `Basic dXNlcjpw…`, `Bearer …`. Only a value that can be a credential counts, because these words have other uses.
fn scheme(text: &str, at: usize) -> Option<(usize, usize)> {
    let (word, is_secret): (&str, fn(&str) -> bool) =
        if starts_with(text, at, "basic") { ("basic", is_basic) } else { ("bearer", is_token) };
    if !starts_with(text, at, word) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut begin = at + word.len();
    loop {
        begin = match bytes.get(begin)? {
            b' ' | b'\t' | b'+' | b':' | b'=' => begin + 1,
            b'%' if starts_with(text, begin, "%20") => begin + 3,
            b'\\' if starts_with(text, begin, "\\t") => begin + 2,
            _ => break,
        };
    }
    if begin == at + word.len() {
        return None;
    }
    let enough = value_end(&text[..floor_char_boundary(text, begin + ENOUGH)], begin);
    is_secret(&text[begin..enough]).then(|| (begin, value_end(text, begin)))
}

/// Whether the value is Base64 of a text with a colon. It may be cut off.
fn is_basic(value: &str) -> bool {
    let mut plain = value.replace("\\/", "/");
    for (code, letter) in [("\\u002b", "+"), ("\\u002B", "+"), ("\\u003d", "="), ("\\u003D", "="), ("%2B", "+")] {
        plain = plain.replace(code, letter);
    }
    for (code, letter) in [("%2b", "+"), ("%2F", "/"), ("%2f", "/"), ("%3D", "="), ("%3d", "=")] {
        plain = plain.replace(code, letter);
    }
    let plain = plain.trim_end_matches(['=', '.']);
    plain.len() >= SHORTEST_BASIC
        && (0..4).any(|less| {
            let part = &plain.get(..plain.len() - less).unwrap_or_default();
            let decoded = LENIENT.decode(part).unwrap_or_default();
            let user = decoded.split(|byte| *byte == b':').next().unwrap_or_default();
            user.len() < decoded.len() && user.is_ascii()
        })
}

fn is_token(value: &str) -> bool {
    value.len() > LONGEST_WORD || !value.chars().all(|letter| letter.is_lowercase() || ".:!?-".contains(letter))
}

/// `://user:password@`
fn user_info(text: &str, at: usize) -> Option<(usize, usize)> {
    let begin = at + 3;
    if !text.as_bytes()[at..].starts_with(b"://") {
        return None;
    }
    let rest = &text[begin..];
    let end = rest.find(|letter: char| letter.is_whitespace() || "@/\"'<>\\?#".contains(letter))?;
    (rest[end..].starts_with('@') && rest[..end].contains(':')).then_some((begin, begin + end))
}

/// Skips blanks and quotes, also the escaped quotes of JSON in JSON.
fn skip_quotes(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += match bytes.get(at..) {
            Some([b'"' | b' ' | b'\t', ..]) => 1,
            Some([b'\\', b'"', ..]) => 2,
            _ => return at,
        };
    }
}

/// The last character boundary at or before `at`.
pub fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// The end of a value: white space, a quote or a separator, but not a JSON escape of a Base64 letter.
fn value_end(text: &str, begin: usize) -> usize {
    let mut at = begin;
    while let Some(letter) = text[at..].chars().next() {
        at += match letter {
            '\\' if starts_with(text, at, "\\/") => 2,
            '\\' if starts_with(text, at, "\\u00") && text.is_char_boundary((at + 6).min(text.len())) => {
                6.min(text.len() - at)
            }
            letter if letter.is_whitespace() || "\"'<>&,;)}\\".contains(letter) => return at,
            letter => letter.len_utf8(),
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credentials_are_found_in_all_their_shapes() {
        for (text, expected) in [
            ("authorization: Basic ZGVtbzpzZWNyZXQ= accept: */*", "authorization: Basic [REDACTED] accept: */*"),
            (r#"{"Authorization":"bearer NNSXS.A.B","x":1}"#, r#"{"Authorization":"bearer [REDACTED]","x":1}"#),
            ("SharedAccessSignature sr=h%2Fd&sig=aB%2b1%3D&se=7", "SharedAccessSignature sr=h%2Fd&sig=[REDACTED]&se=7"),
            (
                "type%3Dmaster%26ver%3D1.0%26sig%3DaB1%3D date: x",
                "type%3Dmaster%26ver%3D1.0%26sig%3D[REDACTED] date: x",
            ),
            ("sig%253DaB1 x", "sig%253D[REDACTED] x"),
            ("HostName=h;SharedAccessKey=aB1=;DeviceId=d", "HostName=h;SharedAccessKey=[REDACTED];DeviceId=d"),
            ("SharedAccessKey = abc", "SharedAccessKey = [REDACTED]"),
            ("AccountName=a;AccountKey=aB1+/==;x", "AccountName=a;AccountKey=[REDACTED];x"),
            (r#"{"primaryKey":"aB\u002B1","id":1}"#, r#"{"primaryKey":"[REDACTED]","id":1}"#),
            (r#"{"said":"{\"sharedAccessKey\":\"aB1\"}"}"#, r#"{"said":"{\"sharedAccessKey\":\"[REDACTED]\"}"}"#),
            (r#"{"a":"Basic ZGVtbzpz\/ZWNyZXQ="}"#, r#"{"a":"Basic [REDACTED]"}"#),
            (r#"{"a":"x&sig=ab\u002Bcd&se=1"}"#, r#"{"a":"x&sig=[REDACTED]&se=1"}"#),
            ("X-Webhook-Secret: hunter2", "X-Webhook-Secret: [REDACTED]"),
            ("x-functions-key: abc==, y", "x-functions-key: [REDACTED], y"),
            ("X-Downlink-Apikey: whatever", "X-Downlink-Apikey: [REDACTED]"),
            ("key NNSXS.AB.CD.", "key [REDACTED]"),
            ("POST /api/uplink?code=abc==&x=1", "POST /api/uplink?code=[REDACTED]&x=1"),
            ("https://me:hunter2@host/api", "https://[REDACTED]@host/api"),
            ("Bearer abcdefghijklmnop", "Bearer [REDACTED]"),
            ("Basic\t ZGVtbzpzZWNyZXQ=", "Basic\t [REDACTED]"),
            ("Basic+ZGVtbzpzZWNyZXQ%3D", "Basic+[REDACTED]"),
            ("Basic ZGVtbzpzZWN", "Basic [REDACTED]"),
        ] {
            assert_eq!(without_credentials(text), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "",
            "site=Basic Plant 3, Hydrobasic Nord, Basic Süd, basic 3",
            "Basic Authentication required, Basic realm=\"x\"",
            "no Bearer authentication",
            "status code: 400, code=7, signal=3, design: new, sig: ",
            "https://host:443/path?at=a@b, mailto:a@b",
            "SharedAccessKeyName=device;partitionKey=[\"c\",\"s\"]",
            "info: rapidM2MForwarding: 1 of 1 sites polled, 3 rows recorded",
        ] {
            assert_eq!(without_credentials(text), text);
        }
    }

    #[test]
    fn it_takes_no_longer_for_a_text_made_for_it() {
        let started = Instant::now();
        for part in ["sig=a ", "Basic ", "://a:", "basic+", "sig\\", "\\u00", "NNSXS."] {
            assert!(!without_credentials(&part.repeat(40_000)).is_empty());
        }
        // It takes milliseconds. It took minutes when each search for one name scanned the rest of the text.
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn what_is_json_stays_json(text in "([a-z \"\\\\\n=:&?ü]|sig=|Basic |Bearer |://|NNSXS\\.|apikey|%3d|\\+|/){0,30}") {
            let json = serde_json::to_string(&serde_json::json!({ "text": text, "other": 1 })).unwrap();
            let redacted = without_credentials(&json);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&redacted).is_ok(), "{} {}", json, redacted);
        }
    }
}
