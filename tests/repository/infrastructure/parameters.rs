//! Follows parameters of the deployment from azd, or from `az deployment`, to the properties of resources.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    bicep::text,
    expression::{Expression, Scope},
};

struct Parameter {
    name: String,
    kind: String,
    default: Option<Value>,
    /// `@minValue`.
    least: Option<i64>,
}

fn parameters(bicep: &str) -> Vec<Parameter> {
    let (mut parameters, mut least) = (Vec::new(), None);
    for line in bicep.lines() {
        if let Some(value) = line.strip_prefix("@minValue(") {
            least = Some(value.trim_end_matches(')').parse().unwrap());
        } else if let Some(parameter) = line.strip_prefix("param ") {
            let (declared, default) = parameter.split_once(" = ").map_or((parameter, None), |(a, b)| (a, Some(b)));
            let (name, kind) = declared.split_once(' ').unwrap();
            let default = default.map(|text| Expression::parse(text).value(&Scope::new()).unwrap());
            parameters.push(Parameter { name: name.to_owned(), kind: kind.to_owned(), default, least });
            least = None;
        }
    }
    assert!(!parameters.is_empty());
    parameters
}

/// What is in quotes behind `resource NAME` or `module NAME`, and the body.
fn body<'a>(bicep: &'a str, keyword: &str, name: &str) -> (&'a str, Expression) {
    let start = format!("\n{keyword} {name} '");
    let rest = bicep.split_once(&start).unwrap_or_else(|| panic!("no {keyword} {name}")).1;
    let (quoted, rest) = rest.split_once("' = ").unwrap();
    (quoted, Expression::parse(rest))
}

/// What a deployment would make.
struct Deployment {
    main: String,
    scope: Scope,
}

impl Deployment {
    /// The deployment with these values of parameters. All others have their defaults.
    fn with(values: &[(&str, Value)]) -> Self {
        let main = text("infra/main.bicep");
        let parameters = parameters(&main);
        let mut scope: Scope = [("location".to_owned(), json!("westeurope"))].into();
        scope.extend(
            parameters.iter().filter_map(|parameter| Some((parameter.name.clone(), parameter.default.clone()?))),
        );
        for (name, value) in values {
            assert!(parameters.iter().any(|parameter| parameter.name == *name), "no parameter {name}");
            scope.insert((*name).to_owned(), value.clone());
        }
        Self { main, scope }
    }

    /// The deployment that azd makes with these variables in its environment.
    fn by_azd(environment: &[(&str, &str)]) -> Self {
        let mut deployment = Self::with(&[]);
        let parameters = parameters(&deployment.main);
        for (name, value) in parameters_file() {
            let parameter = parameters.iter().find(|parameter| parameter.name == name).unwrap();
            let substituted = substituted(&value, environment);
            if let Some(value) = converted(&parameter.kind, &substituted) {
                deployment.scope.insert(name, value);
            }
        }
        deployment
    }

    /// The value of a property of a resource in a module, such as `vault`, `vault`, `properties.sku`.
    fn property(&self, module: &str, resource: &str, path: &str) -> Value {
        let (file, called) = body(&self.main, "module", module);
        let bicep = text(&format!("infra/{file}"));
        let mut scope = Scope::new();
        for parameter in parameters(&bicep) {
            // What is made by another module has no value before the deployment.
            let value = called.below("params").below(&parameter.name).value(&self.scope);
            scope.extend(value.map(|value| (parameter.name, value)));
        }
        for variable in bicep.split("\nvar ").skip(1) {
            let (name, expression) = variable.split_once(" = ").unwrap();
            let value = Expression::parse(expression).value(&scope);
            scope.extend(value.map(|value| (name.to_owned(), value)));
        }
        let (_, body) = body(&bicep, "resource", resource);
        body.below(path).value(&scope).unwrap_or_else(|| panic!("{resource}: {path} has no value in {scope:?}"))
    }

    fn always_ready(&self) -> Value {
        self.property("app", "app", "properties.functionAppConfig.scaleAndConcurrency.alwaysReady")
    }
}

/// The parameters that azd sets, with the texts that it substitutes.
fn parameters_file() -> BTreeMap<String, String> {
    let file: Value = serde_json::from_str(&text("infra/main.parameters.json")).unwrap();
    let given = file["parameters"].as_object().unwrap().iter();
    given.map(|(name, given)| (name.clone(), given["value"].as_str().unwrap().to_owned())).collect()
}

/// The variable and the default of `${VARIABLE}` or `${VARIABLE=default}`.
fn variable(value: &str) -> (&str, &str) {
    let inner = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let inner = inner.unwrap_or_else(|| panic!("{value} is not one variable"));
    inner.split_once('=').unwrap_or((inner, ""))
}

/// As azd does it, with github.com/drone/envsubst: behind `=` is the default of a variable that is empty or not set.
/// (With a `-` instead of `=`, it would belong to the variable's name.)
fn substituted(value: &str, environment: &[(&str, &str)]) -> String {
    let (variable, default) = variable(value);
    let set = environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| *value);
    set.filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
}

/// As azd does it, which knows the parameter's type from the template: a text becomes a number or truth value if it is one;
/// otherwise, and if it is empty, azd sets nothing, and the default in the template holds.
/// `armParameterFileValue` and `ensureParameters` in
/// <https://github.com/Azure/azure-dev/blob/main/cli/azd/pkg/infra/provisioning/bicep/bicep_provider.go>
fn converted(kind: &str, text: &str) -> Option<Value> {
    match kind {
        "int" => text.parse::<i64>().ok().map(Value::from),
        "bool" => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(json!(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(json!(false)),
            _ => None,
        },
        "string" => (!text.is_empty()).then(|| json!(text)),
        other => panic!("azd has no {other} from a text"),
    }
}

#[test]
fn what_azd_does_not_know_has_the_default_of_the_template() {
    let file = parameters_file();
    let (main, page) = (text("infra/main.bicep"), text("docs/reference/infrastructure.md"));
    let parameters = parameters(&main);
    for (name, value) in &file {
        let parameter = parameters.iter().find(|parameter| parameter.name == *name).unwrap();
        let (variable, default) = variable(value);
        let is_azds_own = variable.starts_with("AZURE_");
        assert!(
            is_azds_own || page.contains(&format!("`{variable}`")),
            "docs/reference/infrastructure.md says nothing of {variable}"
        );
        let Some(of_template) = &parameter.default else {
            assert_eq!(default, "", "{name} is required");
            continue;
        };
        // An empty text is not set: the default of the template holds.
        let of_azd = converted(&parameter.kind, default).unwrap_or_else(|| json!(""));
        assert_eq!(of_azd, *of_template, "{name} has another default with azd than by hand");
        let is_allowed = parameter.least.is_none_or(|least| of_template.as_i64().is_some_and(|value| value >= least));
        assert!(is_allowed, "{name}: @minValue refuses the default");
    }
    let kind_of = |name: &str| parameters.iter().find(|parameter| parameter.name == name).unwrap().kind.as_str();
    assert!(file.keys().any(|name| kind_of(name) == "int") && file.keys().any(|name| kind_of(name) == "bool"));
}

#[test]
fn instances_that_always_run_are_those_of_the_parameters() {
    let http = |count: u8| json!({ "name": "http", "instanceCount": count });
    let timer = json!({ "name": "function:rapidM2MForwarding", "instanceCount": 1 });
    for (environment, expected) in [
        (&[][..], json!([http(1)])),
        (&[("HTTP_ALWAYS_READY", "")], json!([http(1)])),
        (&[("HTTP_ALWAYS_READY", "0")], json!([])),
        (&[("HTTP_ALWAYS_READY", "2")], json!([http(2)])),
        (&[("HTTP_ALWAYS_READY", "two")], json!([http(1)])),
        (&[("THINGS_NETWORK", "false")], json!([])),
        (&[("THINGS_NETWORK", "false"), ("HTTP_ALWAYS_READY", "1")], json!([http(1)])),
        (&[("THINGS_NETWORK", "false"), ("TIMER_ALWAYS_READY", "1")], json!([timer])),
        (&[("TIMER_ALWAYS_READY", "1")], json!([http(1), timer])),
    ] {
        assert_eq!(Deployment::by_azd(environment).always_ready(), expected, "{environment:?}");
    }
    // By hand, without azd.
    assert_eq!(Deployment::with(&[]).always_ready(), json!([http(1)]));
    assert_eq!(Deployment::with(&[("httpAlwaysReady", json!(3))]).always_ready(), json!([http(3)]));
    // Azure takes any name, and starts nothing for one that is not there.
    let function = timer["name"].as_str().unwrap().strip_prefix("function:").unwrap();
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(function).join("function.json").is_file());
}

#[test]
fn iot_hub_and_its_provisioning_service_have_a_location_of_their_own() {
    for (environment, expected) in [(&[][..], "westeurope"), (&[("IOT_LOCATION", "northeurope")], "northeurope")] {
        let deployment = Deployment::by_azd(environment);
        assert_eq!(deployment.property("hub", "hub", "location"), expected);
        assert_eq!(deployment.property("hub", "provisioningService", "location"), expected);
        assert_eq!(deployment.property("hub", "provisioningService", "properties.iotHubs.0.location"), expected);
        for (module, resource) in [("app", "plan"), ("storage", "account"), ("cosmos", "account"), ("vault", "vault")] {
            assert_eq!(deployment.property(module, resource, "location"), "westeurope", "{module}");
        }
    }
}

/// Azure refuses `enablePurgeProtection: false`: without it, the property must be absent.
#[test]
fn purge_protection_is_on_or_not_mentioned() {
    for (is_on, expected) in [(true, json!(true)), (false, Value::Null)] {
        let deployment = Deployment::with(&[("purgeProtection", json!(is_on))]);
        assert_eq!(deployment.property("vault", "vault", "properties.enablePurgeProtection"), expected);
    }
    assert_eq!(Deployment::with(&[]).property("vault", "vault", "properties.enablePurgeProtection"), Value::Null);
}

#[test]
fn zone_redundancy_reaches_all_that_can_be_spread_over_zones() {
    for (is_on, sku) in [(true, "Standard_ZRS"), (false, "Standard_LRS")] {
        let deployment = Deployment::with(&[("zoneRedundancy", json!(is_on))]);
        assert_eq!(deployment.property("app", "plan", "properties.zoneRedundant"), is_on);
        assert_eq!(deployment.property("storage", "account", "sku.name"), sku);
        let locations = deployment.property("cosmos", "account", "properties.locations");
        let expected = json!([{ "locationName": "westeurope", "failoverPriority": 0, "isZoneRedundant": is_on }]);
        assert_eq!(locations, expected);
    }
    assert_eq!(Deployment::with(&[]).property("app", "plan", "properties.zoneRedundant"), false);
}
