//! Selects the members that a message has beside those of the C# sample: `ThingsNetworkMembers`.

/// A group of members that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Simulated,
    Session,
    Network,
    Radio,
    Battery,
    Attributes,
    Locations,
    Normalized,
    Warnings,
    Version,
}

/// The names of the groups, and those of their members.
const GROUPS: [(Group, &str, &[&str]); 10] = [
    (Group::Simulated, "simulated", &["Simulated"]),
    (Group::Session, "session", &["JoinEUI", "DevAddr", "SessionKeyID"]),
    (Group::Network, "network", &["NetworkIDs"]),
    (
        Group::Radio,
        "radio",
        &["Confirmed", "ConsumedAirtime", "PacketErrorRate", super::extras::RECEPTIONS, "PacketBroker"],
    ),
    (Group::Battery, "battery", &["LastBatteryPercentage", "LastBatteryPercentageAtUTC"]),
    (Group::Attributes, "attributes", &["Attributes"]),
    (Group::Locations, "locations", &["Locations"]),
    (Group::Normalized, "normalized", &["NormalizedPayload", "NormalizedPayloadWarnings"]),
    (Group::Warnings, "warnings", &["DecodedPayloadWarnings"]),
    (Group::Version, "version", &["VersionIDs"]),
];
/// Stands for all groups.
const ALL: &str = "all";

/// The groups that are selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(Vec<Group>);

impl Members {
    /// Reads names of groups, separated by commas, or `all`. Case does not matter.
    ///
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut groups = Vec::new();
        for name in text.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            match GROUPS.iter().find(|(_, known, _)| *known == name) {
                Some((group, ..)) => groups.push(*group),
                None if name == ALL => groups.extend(GROUPS.map(|(group, ..)| group)),
                None => return Err(unknown(&name)),
            }
        }
        Ok(Self(groups))
    }

    #[must_use]
    pub fn all() -> Self {
        Self(GROUPS.map(|(group, ..)| group).into())
    }

    pub fn has(&self, group: Group) -> bool {
        self.0.contains(&group)
    }

    /// Whether a member of a selected group has this name. Whether the uplink at hand brings that member does not matter:
    /// a decoded field of this name is always in the same place.
    pub fn claims(&self, name: &str) -> bool {
        !self.0.is_empty() && GROUPS.iter().any(|(group, _, members)| self.has(*group) && members.contains(&name))
    }
}

fn unknown(name: &str) -> String {
    let names = || GROUPS.iter().map(|(_, known, _)| *known).chain([ALL]);
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let nearest = names().max_by(|one, other| likeness(one).total_cmp(&likeness(other))).unwrap_or(ALL);
    let names = names().collect::<Vec<_>>().join(", ");
    format!("has {name:?}, which is not a group of members: did you mean {nearest:?}? The groups are {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_in_any_order_and_case() {
        let members = Members::parse(" battery,Attributes ").unwrap();
        assert!(members.has(Group::Battery) && members.has(Group::Attributes) && !members.has(Group::Radio));
        assert!(members.claims("Attributes") && !members.claims("DevAddr") && !Members::default().claims("Attributes"));
        assert_eq!(Members::parse("all"), Ok(Members::all()));
        assert!(Members::all().claims("DevAddr"));
    }

    #[test]
    fn an_unknown_group_is_told_with_the_nearest_one() {
        for (name, nearest) in
            [("batery", "battery"), ("attribute", "attributes"), ("al", "all"), ("versions", "version")]
        {
            let error = Members::parse(&format!("radio,{name}")).unwrap_err();
            assert!(
                error.starts_with(&format!("has {name:?}")) && error.contains(&format!("mean {nearest:?}")),
                "{error}"
            );
        }
        assert!(Members::parse("radio,,battery").is_err() && Members::parse("").is_err());
    }
}
