//! Checks the names of queues against the service's rules.
//! <https://learn.microsoft.com/rest/api/storageservices/naming-queues-and-metadata>

/// # Errors
/// Says which rule the name breaks.
pub fn check(name: &str) -> Result<(), &'static str> {
    let is_word = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    if !(3..=63).contains(&name.len()) {
        Err("a queue's name has 3 to 63 characters")
    } else if !name.chars().all(|letter| is_word(letter) || letter == '-') {
        Err("a queue's name has lower-case letters, digits and hyphens only")
    } else if !name.starts_with(is_word) || !name.ends_with(is_word) || name.contains("--") {
        Err("a queue's name has hyphens only between letters or digits, one at a time")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_the_services_rules() {
        for name in ["abc", "uplinks-poison", "0-1", &"a".repeat(63)] {
            check(name).expect(name);
        }
        for (name, problem) in [
            ("", "3 to 63"),
            ("ab", "3 to 63"),
            (&"a".repeat(64), "3 to 63"),
            ("Uplinks", "lower-case"),
            ("up_links", "lower-case"),
            ("ünlinks", "lower-case"),
            ("-uplinks", "hyphens"),
            ("uplinks-", "hyphens"),
            ("up--links", "hyphens"),
        ] {
            assert!(check(name).unwrap_err().contains(problem), "{name}");
        }
    }
}
