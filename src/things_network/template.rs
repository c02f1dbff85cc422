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
}

const PLACEHOLDERS: [(&str, Placeholder); 3] = [
    ("application_id", Placeholder::ApplicationId),
    ("device_id", Placeholder::DeviceId),
    ("dev_eui", Placeholder::DevEui),
];

impl Default for Template {
    fn default() -> Self {
        Self(vec![Part::Placeholder(Placeholder::DeviceId)])
    }
}

/// The template needs a DevEUI, but the device has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the webhook has no DevEUI, which DeviceIdTemplate needs: allow end_device_ids.dev_eui in its field mask")]
pub struct NoDevEui;

impl Template {
    /// # Errors
    /// The fault, as the rest of a sentence that begins with the setting's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = "use {device_id}, {application_id} and {dev_eui}";
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
        if text.replace("{application_id}", "").replace("{device_id}", "").replace("{dev_eui}", "").contains('}') {
            return Err(format!("has a }} without its {{: {help}"));
        }
        let of_device = [Placeholder::DeviceId, Placeholder::DevEui];
        if !parts.iter().any(|part| matches!(part, Part::Placeholder(placeholder) if of_device.contains(placeholder))) {
            return Err("gives all devices of an application the same id: it needs {device_id} or {dev_eui}".into());
        }
        Ok(Self(parts))
    }

    /// The id of a device. A DevEUI is written in lower case.
    ///
    /// # Errors
    /// [`NoDevEui`]
    pub fn expand(&self, application: &str, device: &str, dev_eui: Option<&str>) -> Result<String, NoDevEui> {
        let mut id = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => id.push_str(text),
                Part::Placeholder(Placeholder::ApplicationId) => id.push_str(application),
                Part::Placeholder(Placeholder::DeviceId) => id.push_str(device),
                Part::Placeholder(Placeholder::DevEui) => {
                    id.push_str(&dev_eui.filter(|eui| !eui.is_empty()).ok_or(NoDevEui)?.to_ascii_lowercase());
                }
            }
        }
        Ok(id)
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

    #[test]
    fn ids_are_made_of_what_the_template_says() {
        let expand =
            |template: &str| Template::parse(template).unwrap().expand("app1", "dev1", Some("0004A30B001C0530"));
        assert_eq!(expand("{device_id}").unwrap(), "dev1");
        assert_eq!(expand("ttn-{application_id}.{device_id}:x").unwrap(), "ttn-app1.dev1:x");
        assert_eq!(expand("{dev_eui}").unwrap(), "0004a30b001c0530");
        assert_eq!(Template::default(), Template::parse("{device_id}").unwrap());
        assert_eq!(Template::parse("{dev_eui}").unwrap().expand("a", "d", None), Err(NoDevEui));
        assert_eq!(Template::parse("a{device_id}b{dev_eui}").unwrap().to_string(), "a{device_id}b{dev_eui}");
    }

    #[test]
    fn templates_that_cannot_be_meant_are_refused() {
        for (template, problem) in [
            ("logger", "the same id"),
            ("{application_id}", "the same id"),
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
            prop_assert_eq!(template.expand(&application, &device, Some(&dev_eui.to_uppercase())), Ok(expected));
        }
    }
}
