//! Which networks are meant: `KEY=VALUE`, as Docker's filters.

use std::str::FromStr;
use std::time::Duration;

use crate::shape::Network;

/// One `--filter` of `network ls`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Filter {
    /// A part of the name.
    Name(String),
    /// The first digits of the id.
    Id(String),
    /// The driver, `meshnet`.
    Driver(String),
    /// The scope, `global`.
    Scope(String),
    /// Made by people, or there from the start.
    Custom(bool),
    /// Nobody uses it.
    Dangling(bool),
    /// A label, with a value or any.
    Label(Label),
}

/// A label that a network must have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Label {
    key: String,
    value: Option<String>,
}

impl Label {
    fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)));
        match key.is_empty() {
            true => Err("expected label=KEY or label=KEY=VALUE".to_owned()),
            false => Ok(Label { key: key.to_owned(), value: value.map(str::to_owned) }),
        }
    }

    fn fits(&self, network: &Network) -> bool {
        let has = network.labels.get(&self.key);
        has.is_some_and(|has| self.value.as_ref().is_none_or(|value| has == value))
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value_of = |value: &str| value.to_owned();
        match text.split_once('=') {
            Some(("name", value)) => Ok(Filter::Name(value_of(value))),
            Some(("id", value)) => Ok(Filter::Id(value_of(value))),
            Some(("driver", value)) => Ok(Filter::Driver(value_of(value))),
            Some(("scope", value)) => Ok(Filter::Scope(value_of(value))),
            Some(("type", "custom")) => Ok(Filter::Custom(true)),
            Some(("type", "builtin")) => Ok(Filter::Custom(false)),
            Some(("type", _)) => Err("expected type=builtin or type=custom".to_owned()),
            Some(("dangling", "true" | "1")) => Ok(Filter::Dangling(true)),
            Some(("dangling", "false" | "0")) => Ok(Filter::Dangling(false)),
            Some(("dangling", _)) => Err("expected dangling=true or dangling=false".to_owned()),
            Some(("label", value)) => Label::parse(value).map(Filter::Label),
            _ => {
                Err("expected name=, id=, label=, driver=, scope=, type= or dangling= and a value".to_owned())
            }
        }
    }
}

impl Filter {
    fn fits(&self, network: &Network) -> bool {
        match self {
            Filter::Name(part) => network.network.contains(part.as_str()),
            Filter::Id(start) => network.network_id.starts_with(start.as_str()),
            Filter::Driver(name) => network.driver == *name,
            Filter::Scope(name) => network.scope == *name,
            Filter::Custom(custom) => network.is_builtin() != *custom,
            Filter::Dangling(dangling) => (network.endpoints == 0 && !network.is_builtin()) == *dangling,
            Filter::Label(label) => label.fits(network),
        }
    }

    /// Whether a network passes all filters: of those of one kind any, but of labels all.
    pub(crate) fn pass(filters: &[Filter], network: &Network) -> bool {
        let kind = std::mem::discriminant::<Filter>;
        filters.iter().all(|filter| match filter {
            Filter::Label(label) => label.fits(network),
            filter => filters.iter().any(|other| kind(other) == kind(filter) && other.fits(network)),
        })
    }
}

/// One `--filter` of `network prune`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PruneFilter {
    /// Made at least so long ago.
    Until(Duration),
    /// With this label.
    Label(Label),
    /// Without it.
    NotLabel(Label),
}

impl FromStr for PruneFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(label) = text.strip_prefix("label!=") {
            return Label::parse(label).map(PruneFilter::NotLabel);
        }
        match text.split_once('=') {
            Some(("label", value)) => Label::parse(value).map(PruneFilter::Label),
            Some(("until", value)) => crate::args::value::span(value).map(PruneFilter::Until),
            _ => Err("expected label=KEY[=VALUE], label!=KEY[=VALUE] or until=DURATION".to_owned()),
        }
    }
}

impl PruneFilter {
    /// Whether a network passes all filters at `now_s`, in seconds since 1970.
    pub(crate) fn pass(filters: &[PruneFilter], network: &Network, now_s: u64) -> bool {
        filters.iter().all(|filter| match filter {
            PruneFilter::Until(age) => now_s.saturating_sub(network.created_s) >= age.as_secs(),
            PruneFilter::Label(label) => label.fits(network),
            PruneFilter::NotLabel(label) => !label.fits(network),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::network;

    fn passes(filters: &[&str], network: &Network) -> bool {
        let filters: Vec<Filter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        Filter::pass(&filters, network)
    }

    #[test]
    fn each_kind_looks_at_its_own() {
        let blue = network("blue");
        for fits in [
            "name=lu",
            "id=00",
            "driver=meshnet",
            "scope=global",
            "type=custom",
            "dangling=false",
            "label=app",
        ] {
            assert!(passes(&[fits], &blue), "{fits}");
        }
        for fits_not in
            ["name=red", "id=ff", "driver=bridge", "scope=local", "type=builtin", "dangling=1", "label=app=y"]
        {
            assert!(!passes(&[fits_not], &blue), "{fits_not}");
        }
        assert!(passes(&["dangling=true"], &Network { endpoints: 0, ..blue.clone() }));
        assert!(passes(&["type=builtin"], &network("mesh")) && !passes(&["dangling=true"], &network("mesh")));
    }

    #[test]
    fn of_one_kind_any_fits_but_of_labels_all() {
        let blue = network("blue");
        assert!(passes(&["name=red", "name=blue"], &blue));
        assert!(!passes(&["name=blue", "driver=bridge"], &blue));
        assert!(passes(&["label=app", "label=app=x"], &blue) && !passes(&["label=app", "label=no"], &blue));
        assert!(passes(&[], &blue));
    }

    #[test]
    fn what_is_pruned_is_old_enough_and_labelled() {
        let blue = network("blue");
        let passes = |text: &str, now| PruneFilter::pass(&[text.parse().unwrap()], &blue, now);
        let made = blue.created_s;
        assert!(passes("until=1h", made + 3600) && !passes("until=1h", made + 3599));
        assert!(passes("label=app=x", made) && !passes("label!=app", made) && passes("label!=no", made));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in ["", "name", "colour=red", "type=odd", "dangling=maybe", "label=", "label==x"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
        for wrong in ["", "until=", "until=soon", "name=x", "label!=", "label"] {
            assert!(wrong.parse::<PruneFilter>().is_err(), "{wrong}");
        }
    }
}
