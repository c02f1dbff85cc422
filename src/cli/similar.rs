//! Suggests names that the user may have meant.

/// The least similarity of a suggested name, from 0 to 1.
const LIKENESS: f64 = 0.8;
const MOST: usize = 5;

/// The names that are most similar to `name`, the most similar first.
pub fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let mut rated: Vec<_> = names
        .map(|other| {
            let lower = other.to_lowercase();
            let is_part = !wanted.is_empty() && (lower.contains(&wanted) || wanted.contains(&lower));
            (if is_part { 1.0 } else { strsim::jaro_winkler(&wanted, &lower) }, other)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .collect();
    rated.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then(a_name.cmp(b_name)));
    rated.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// `; did you mean …?`, or nothing if no name is like it.
pub fn meant<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    match closest(name, names).as_slice() {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_cases_parts_and_slips_are_like_it() {
        let names = ["Well 7", "Well 71", "Energy meter 1", "Reservoir Süd", "Pump"];
        let closest = |name| closest(name, names.into_iter());
        assert_eq!(closest("well 7"), ["Well 7", "Well 71"]);
        assert_eq!(closest("Enregy meter 1"), ["Energy meter 1"]);
        assert_eq!(closest("süd"), ["Reservoir Süd"]);
        assert!(closest("Quelle").is_empty() && closest("").is_empty());
    }
}
