//! Makes device ids from a template such as `{application_id}-{device_id}`.

use std::fmt;

/// `DeviceIdTemplate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Placeholder(Placeholder),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    ApplicationId,
    DeviceId,
    DevEui,
    TenantId,
}

const PLACEHOLDERS: [(&str, Placeholder); 4] = [
    ("application_id", Placeholder::ApplicationId),
    ("device_id", Placeholder::DeviceId),
    ("dev_eui", Placeholder::DevEui),
    ("tenant_id", Placeholder::TenantId),
];

impl Default for Template {
    fn default() -> Self {
        Self(vec![Part::Placeholder(Placeholder::DeviceId)])
    }
}

/// The template needs what the webhook does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error(
        "the webhook has no DevEUI, which DeviceIdTemplate needs: allow end_device_ids.dev_eui in its field mask; an event \
         without it finds its device when an uplink was forwarded before"
    )]
    DevEui,
    #[error(
        "the webhook names no tenant, which DeviceIdTemplate needs: The Things Stack names it in the header X-Tts-Domain and \
         in uplink_message.network_ids, which the field mask must allow"
    )]
    Tenant,
}

/// What an id is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub application: &'a str,
    pub device: &'a str,
    pub dev_eui: Option<&'a str>,
    pub tenant: Option<&'a str>,
}

impl Template {
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = "use {device_id}, {application_id}, {dev_eui} and {tenant_id}";
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("has a {{ without its }}: {help}"))?;
            let known = PLACEHOLDERS.iter().find(|(known, _)| *known == name);
            let (_, placeholder) = known.ok_or_else(|| format!("has {{{name}}}, which is not known: {help}"))?;
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            parts.push(Part::Placeholder(*placeholder));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        let without = |text: String, (name, _): &(&str, Placeholder)| text.replace(&format!("{{{name}}}"), "");
        if PLACEHOLDERS.iter().fold(text.to_owned(), without).contains('}') {
            return Err(format!("has a }} without its {{: {help}"));
        }
        let of_device = [Placeholder::DeviceId, Placeholder::DevEui];
        if !parts.iter().any(|part| matches!(part, Part::Placeholder(placeholder) if of_device.contains(placeholder))) {
            return Err("gives all devices of an application the same id: it needs {device_id} or {dev_eui}".into());
        }
        Ok(Self(parts))
    }

    /// Whether ids contain the DevEUI.
    #[must_use]
    pub fn has_dev_eui(&self) -> bool {
        self.0.contains(&Part::Placeholder(Placeholder::DevEui))
    }

    /// The id of a device. A DevEUI is written in lower case.
    ///
    /// # Errors
    /// [`Missing`]
    pub fn expand(&self, parts: Parts<'_>) -> Result<String, Missing> {
        let known =
            |text: Option<&str>, missing| text.filter(|text| !text.is_empty()).map(str::to_owned).ok_or(missing);
        let text = |part: &Part| match part {
            Part::Literal(text) => Ok(text.clone()),
            Part::Placeholder(Placeholder::ApplicationId) => Ok(parts.application.to_owned()),
            Part::Placeholder(Placeholder::DeviceId) => Ok(parts.device.to_owned()),
            Part::Placeholder(Placeholder::DevEui) => {
                known(parts.dev_eui, Missing::DevEui).map(|eui| eui.to_ascii_lowercase())
            }
            Part::Placeholder(Placeholder::TenantId) => known(parts.tenant, Missing::Tenant),
        };
        self.0.iter().map(text).collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => out.write_str(text),
            Part::Placeholder(placeholder) => {
                let named = PLACEHOLDERS.iter().find(|(_, other)| other == placeholder);
                named.map_or(Ok(()), |(name, _)| write!(out, "{{{name}}}"))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: Parts<'static> =
        Parts { application: "app1", device: "dev1", dev_eui: Some("0004A30B001C0530"), tenant: Some("north") };

    #[test]
    fn ids_are_made_of_what_the_template_says() {
        let expand = |template: &str| Template::parse(template).unwrap().expand(DEVICE);
        assert_eq!(expand("{device_id}").unwrap(), "dev1");
        assert_eq!(expand("ttn-{application_id}.{device_id}:x").unwrap(), "ttn-app1.dev1:x");
        assert_eq!(expand("{dev_eui}").unwrap(), "0004a30b001c0530");
        assert_eq!(Template::default(), Template::parse("{device_id}").unwrap());
        assert_eq!(expand("{tenant_id}-{device_id}").unwrap(), "north-dev1");
        let bare = Parts { dev_eui: None, tenant: None, ..DEVICE };
        assert_eq!(Template::parse("{dev_eui}").unwrap().expand(bare), Err(Missing::DevEui));
        assert_eq!(Template::parse("{tenant_id}{device_id}").unwrap().expand(bare), Err(Missing::Tenant));
        assert_eq!(Template::parse("a{device_id}b{dev_eui}").unwrap().to_string(), "a{device_id}b{dev_eui}");
    }

    #[test]
    fn templates_that_cannot_be_meant_are_refused() {
        for (template, problem) in [
            ("logger", "the same id"),
            ("{application_id}", "the same id"),
            ("{tenant_id}", "the same id"),
            ("{device}", "{device}, which is not known"),
            ("{device_id", "a { without its }"),
            ("{device_id}}", "a } without its {"),
            ("}{device_id}", "a } without its {"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(problem), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_template_is_written_as_it_was_read_and_says_where_everything_goes(
            literals in prop::collection::vec("[^{}]{0,8}", 4), application: String, device: String, dev_eui in "[0-9a-f]{16}",
        ) {
            let [a, b, c, d] = &literals[..] else { unreachable!() };
            let text = format!("{a}{{application_id}}{b}{{device_id}}{c}{{dev_eui}}{d}");
            let template = Template::parse(&text).unwrap();
            prop_assert_eq!(template.to_string(), text);
            let expected = format!("{a}{application}{b}{device}{c}{dev_eui}{d}");
            let upper = dev_eui.to_uppercase();
            let parts = Parts { application: &application, device: &device, dev_eui: Some(&upper), tenant: None };
            prop_assert_eq!(template.expand(parts), Ok(expected));
        }
    }
}
