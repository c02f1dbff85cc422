//! Makes registration ids from names. No I/O. An id must never change once it is in use: the rules are fixed in this
//! file and depend on no table of a library.

use sha2::{Digest as _, Sha256};

use crate::support::hex::hex;

use crate::iot_hub::device::MAX_ID;

/// Hexadecimal digits of the hash in the id.
const HASH: usize = 8;

/// The registration id for a name. It is also the device id at the hub.
///
/// A name that is already a valid id in lower case is used unchanged: `pump-7`. Any other name becomes a readable form
/// and a hash of the whole name: `Pump 7` is `pump-7-538ca4f8`. Two names have the same id only if their readable forms
/// and 32 bits of their hashes are equal, or if one name was chosen to look like the other's id.
///
/// The service accepts up to 128 letters, digits and `-._:`, requires a letter, a digit or `-` at the end, and ignores
/// case.
/// <https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id>
#[must_use]
pub fn registration_id(name: &str) -> String {
    if is_id(name) {
        return name.to_owned();
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash = hex(&hash[..HASH / 2]);
    let slug = slug(name);
    // The slug is ASCII, so every index is a character boundary.
    let slug = &slug[..slug.len().min(MAX_ID - HASH - 1)];
    if slug.is_empty() { format!("device-{hash}") } else { format!("{slug}-{hash}") }
}

/// The readable form: lower case, without characters that the service or the hub refuses. May be empty.
fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            'a'..='z' | '0'..='9' | '-' | '.' | '_' | ':' => slug.push(letter),
            'A'..='Z' => slug.push(letter.to_ascii_lowercase()),
            'ä' | 'Ä' => slug.push_str("ae"),
            'ö' | 'Ö' => slug.push_str("oe"),
            'ü' | 'Ü' => slug.push_str("ue"),
            'ß' => slug.push_str("ss"),
            _ if slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_matches(['-', '.', '_', ':']).to_owned()
}

/// Whether the name can be used unchanged. Other spellings would give the same id, so they cannot.
fn is_id(name: &str) -> bool {
    check_registration_id(name).is_ok() && !name.contains(|letter: char| letter.is_ascii_uppercase())
}

/// Checks the service's rule for registration ids.
///
/// # Errors
/// The rule. The error does not contain the value.
pub fn check_registration_id(id: &str) -> Result<(), &'static str> {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || "-._:".contains(letter);
    if id.is_empty() || id.len() > MAX_ID || !id.chars().all(valid) || id.ends_with(['.', '_', ':']) {
        return Err(
            "is not a registration id: at most 128 of A-Z a-z 0-9 - . _ : with a letter, a digit or - at the end",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::iot_hub::device::check_id;

    #[test]
    fn ids_are_readable_and_never_change() {
        for (name, id) in [
            ("pump-7", "pump-7"),
            ("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6", "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6"),
            ("0123456789abcdef", "0123456789abcdef"),
            ("Pump 7", "pump-7-538ca4f8"),
            ("Reservoir Süd", "reservoir-sued-255c8c5e"),
            ("Well 7 / Level", "well-7-level-84e03c0f"),
            ("a.b.", "a.b-3c97b3ea"),
            ("", "device-e3b0c442"),
            ("?!", "device-545f940d"),
            ("🚰", "device-6d626b9d"),
        ] {
            assert_eq!(registration_id(name), id, "{name:?}");
        }
        assert_eq!(registration_id(&"x".repeat(128)), "x".repeat(128));
        let long = registration_id(&"x".repeat(129));
        assert!(long.len() == MAX_ID && long.starts_with("xxx"), "{long}");
    }

    #[test]
    fn names_that_look_alike_have_different_ids() {
        let names =
            ["pump 7", "Pump 7", "PUMP 7", "pump-7", "pump_7", "pump/7", "pump 7 ", "pümp 7", "puemp 7", "Pump-7"];
        let ids: HashSet<_> = names.iter().map(|name| registration_id(name)).collect();
        assert_eq!(ids.len(), names.len(), "{ids:?}");
    }

    proptest! {
        #[test]
        fn an_id_is_valid_and_always_the_same(name in any::<String>()) {
            let id = registration_id(&name);
            prop_assert!(is_id(&id) && check_id(&id).is_ok(), "{id:?}");
            prop_assert_eq!(&id, &registration_id(&name));
            prop_assert_eq!(&id, &registration_id(&id), "an id is its own id");
        }

        /// 32 bits of hash do not collide by chance in a few hundred names. Where the slugs differ, the hash is not
        /// needed.
        #[test]
        fn different_names_have_different_ids(names in proptest::collection::hash_set("[ -~äöüß]{0,140}", 2..20)) {
            let ids: HashSet<_> = names.iter().map(|name| registration_id(name)).collect();
            prop_assert_eq!(ids.len(), names.len());
        }

        #[test]
        fn case_alone_makes_a_difference(name in "[a-z]{1,20}", at in any::<prop::sample::Index>()) {
            let mut other = name.clone().into_bytes();
            let at = at.index(other.len());
            other[at] = other[at].to_ascii_uppercase();
            prop_assert_ne!(registration_id(&name), registration_id(str::from_utf8(&other).unwrap()));
        }
    }
}
