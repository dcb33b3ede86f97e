//! A container with a port on the overlay.

use std::net::IpAddr;
use std::ops::Deref;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::container::{Addressed, Container};

/// What `attach -o json` told about a container; otherwise the container itself.
#[derive(Clone, Debug)]
pub struct Attached {
    container: Container,
    /// Its (first) address on the overlay.
    pub address: IpAddr,
    /// The same with the prefix length of the network, as `10.32.0.2/12`.
    pub prefix: String,
    /// The Ethernet address of its port.
    pub mac: String,
    /// The name of the interface inside.
    pub ifname: String,
    /// Everything that was told.
    pub told: Value,
}

impl Attached {
    pub(crate) fn new(container: Container, told: &Value) -> Result<Self> {
        let text = |key: &str| {
            let value = told.get(key).and_then(Value::as_str).map(str::to_owned);
            value.ok_or_else(|| anyhow!("`attach -o json` has no text {key:?}: {told}"))
        };
        let prefix = text("address")?;
        let address = prefix.split('/').next().unwrap_or_default();
        let address = address.parse().with_context(|| format!("`attach` printed the address {prefix:?}"))?;
        Ok(Attached {
            container,
            address,
            prefix,
            mac: text("mac")?,
            ifname: text("ifname")?,
            told: told.clone(),
        })
    }

    /// All its addresses on the network, those of IPv4 first.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let told = self.told.get("addresses").and_then(Value::as_array);
        let told = told.ok_or_else(|| anyhow!("no addresses in {}", self.told))?;
        let address = |text: &Value| text.as_str()?.split('/').next()?.parse().ok();
        let read = told.iter().map(|text| address(text).ok_or_else(|| anyhow!("{text} is no address")));
        let mut addresses = read.collect::<Result<Vec<IpAddr>>>()?;
        addresses.sort();
        Ok(addresses)
    }
}

impl Deref for Attached {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Addressed for Attached {
    fn address(&self) -> IpAddr {
        self.address
    }
}
