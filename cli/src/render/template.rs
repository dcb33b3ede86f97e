//! `--format` of `network ls`: a text with `{{.Name}}` and the like, as Docker's templates, as far as scripts use them.

use std::str::FromStr;

use super::network::created;
use super::{Columns, json_line};
use crate::shape::Network;

/// How one network is printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Template {
    /// One JSON object on a line.
    Json,
    /// Text with places to fill in.
    Text {
        /// Aligned in columns at each tab, below titles.
        table: bool,
        /// What stands one after the other.
        parts: Vec<TemplatePart>,
    },
}

/// A part of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TemplatePart {
    /// As it stands.
    Literal(String),
    /// A place to fill in.
    Field(Field),
    /// The value of a label.
    Label(String),
}

/// What is filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Id,
    Name,
    Driver,
    Scope,
    Ipv4,
    Ipv6,
    Internal,
    Labels,
    CreatedAt,
    Vni,
    Mtu,
    Encrypted,
    Subnets,
}

/// The fields, as they are written and as they are titled.
const FIELDS: [(&str, Field, &str); 13] = [
    ("ID", Field::Id, "NETWORK ID"),
    ("Name", Field::Name, "NAME"),
    ("Driver", Field::Driver, "DRIVER"),
    ("Scope", Field::Scope, "SCOPE"),
    ("IPv4", Field::Ipv4, "IPV4"),
    ("IPv6", Field::Ipv6, "IPV6"),
    ("Internal", Field::Internal, "INTERNAL"),
    ("Labels", Field::Labels, "LABELS"),
    ("CreatedAt", Field::CreatedAt, "CREATED AT"),
    ("VNI", Field::Vni, "VNI"),
    ("MTU", Field::Mtu, "MTU"),
    ("Encrypted", Field::Encrypted, "ENCRYPTED"),
    ("Subnets", Field::Subnets, "SUBNETS"),
];

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "json" | "{{json .}}") {
            return Ok(Template::Json);
        }
        let (table, text) = text.strip_prefix("table ").map_or((false, text), |rest| (true, rest));
        parse(&text.replace("\\t", "\t").replace("\\n", "\n")).map(|parts| Template::Text { table, parts })
    }
}

fn parse(text: &str) -> Result<Vec<TemplatePart>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((literal, after)) = rest.split_once("{{") {
        let (place, after) = after.split_once("}}").ok_or("a `{{` has no `}}`")?;
        parts.push(TemplatePart::Literal(literal.to_owned()));
        parts.push(read_place(place.trim())?);
        rest = after;
    }
    parts.push(TemplatePart::Literal(rest.to_owned()));
    Ok(parts)
}

fn read_place(place: &str) -> Result<TemplatePart, String> {
    if let Some(label) = place.strip_prefix(".Label ").map(str::trim) {
        let quoted = label.strip_prefix('"').and_then(|label| label.strip_suffix('"'));
        return quoted.map(|label| TemplatePart::Label(label.to_owned())).ok_or_else(unknown);
    }
    let name = place.strip_prefix('.').unwrap_or_default();
    let known = FIELDS.iter().find(|(known, ..)| *known == name);
    known.map(|(_, field, _)| TemplatePart::Field(*field)).ok_or_else(unknown)
}

fn unknown() -> String {
    let names: Vec<String> = FIELDS.iter().map(|(name, ..)| format!("{{{{.{name}}}}}")).collect();
    format!("expected `json`, or a text with {} or {{{{.Label \"KEY\"}}}}", names.join(", "))
}

impl Template {
    /// All of them, one after the other.
    pub(crate) fn render(&self, networks: &[&Network], whole_ids: bool) -> String {
        match self {
            Template::Json => networks.iter().map(json_line).collect(),
            Template::Text { table: false, parts } => {
                networks.iter().map(|network| fill(parts, network, whole_ids) + "\n").collect()
            }
            Template::Text { table: true, parts } => {
                let lines = networks.iter().map(|network| fill(parts, network, whole_ids));
                let mut columns = Columns::default();
                [titles(parts)].into_iter().chain(lines).for_each(|line| columns.row(line.split('\t')));
                columns.to_string()
            }
        }
    }
}

fn fill(parts: &[TemplatePart], network: &Network, whole_ids: bool) -> String {
    let filled = parts.iter().map(|part| match part {
        TemplatePart::Literal(text) => text.clone(),
        TemplatePart::Field(field) => value(*field, network, whole_ids),
        TemplatePart::Label(key) => network.labels.get(key).cloned().unwrap_or_default(),
    });
    filled.collect()
}

fn titles(parts: &[TemplatePart]) -> String {
    let titled = parts.iter().map(|part| match part {
        TemplatePart::Literal(text) => text.clone(),
        TemplatePart::Field(field) => {
            let known = FIELDS.iter().find(|(_, known, _)| known == field);
            known.map_or("", |(.., title)| title).to_owned()
        }
        TemplatePart::Label(key) => key.to_uppercase(),
    });
    titled.collect()
}

fn value(field: Field, network: &Network, whole_ids: bool) -> String {
    match field {
        Field::Id if whole_ids => network.network_id.clone(),
        Field::Id => super::network::short(&network.network_id).to_owned(),
        Field::Name => network.network.clone(),
        Field::Driver => network.driver.clone(),
        Field::Scope => network.scope.clone(),
        Field::Ipv4 => network.subnets.iter().any(|subnet| subnet.gateway.is_ipv4()).to_string(),
        Field::Ipv6 => network.has_ipv6().to_string(),
        Field::Internal => network.internal.to_string(),
        Field::Labels => {
            let pairs: Vec<String> = network.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        }
        Field::CreatedAt => created(network.created_s),
        Field::Vni => network.vni.to_string(),
        Field::Mtu => network.mtu.to_string(),
        Field::Encrypted => network.encrypted.to_string(),
        Field::Subnets => super::network::subnets(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::network;

    fn rendered(template: &str) -> String {
        let template: Template = template.parse().unwrap();
        template.render(&[&network("blue"), &network("mesh")], false)
    }

    #[test]
    fn places_are_filled_in() {
        assert_eq!(rendered("{{.Name}}: {{ .Driver }}"), "blue: meshnet\nmesh: meshnet\n");
        assert_eq!(rendered(r#"{{.ID}}\t{{.Label "app"}}{{.Label "no"}}"#), "00ab00ab00ab\tx\n".repeat(2));
        assert_eq!(
            rendered("{{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}}"),
            "true true false app=x\n".repeat(2)
        );
        assert_eq!(rendered("plain"), "plain\nplain\n");
    }

    #[test]
    fn a_table_has_titles() {
        let expected = "NAME  VNI\nblue  4096\nmesh  4096\n";
        assert_eq!(rendered(r"table {{.Name}}\t{{.VNI}}"), expected);
    }

    #[test]
    fn json_is_one_object_on_a_line() {
        let text = rendered("json");
        assert_eq!(text.lines().count(), 2);
        let first: Network = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first, network("blue"));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for wrong in ["{{.Colour}}", "{{Name}}", "{{.Name", "{{}}", "{{.Label app}}", "{{json .Name}}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
