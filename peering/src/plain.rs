//! How the words of `engine::types` are serialised: each as a plain type that serde knows.
//!
//! Used as `#[serde(with = "plain")]`. The engine's types stay free of serde, and their form on the wire
//! is fixed here, in one place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use engine::types::{IpPrefix, MacAddr, NetworkId, PeerId, PortId, Vni};
use ipnet::IpNet;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A type with a plain form.
pub(crate) trait Plain: Sized {
    /// The form that is written.
    type Raw: Serialize + DeserializeOwned;
    /// The value as it is written.
    fn to_raw(&self) -> Self::Raw;
    /// The value that was written; none if there is no such value.
    fn from_raw(raw: Self::Raw) -> Option<Self>;
}

pub(crate) fn serialize<T: Plain, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_raw().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Plain, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::from_raw(T::Raw::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("value out of range"))
}

macro_rules! plain_bytes {
    ($($name:ident $len:literal)*) => {$(
        impl Plain for $name {
            type Raw = [u8; $len];
            fn to_raw(&self) -> [u8; $len] {
                self.0
            }
            fn from_raw(raw: [u8; $len]) -> Option<Self> {
                Some($name(raw))
            }
        }
    )*};
}

plain_bytes! { PeerId 16 PortId 8 NetworkId 32 MacAddr 6 }

/// Types that serde knows, for use beside the others in lists and maps.
macro_rules! plain_itself {
    ($($name:ty),*) => {$(
        impl $crate::plain::Plain for $name {
            type Raw = $name;
            fn to_raw(&self) -> $name {
                self.clone()
            }
            fn from_raw(raw: $name) -> Option<Self> {
                Some(raw)
            }
        }
    )*};
}
pub(crate) use plain_itself;

plain_itself! { u64, IpAddr, (u16, u16) }

impl Plain for Vni {
    type Raw = u32;
    fn to_raw(&self) -> u32 {
        self.get()
    }
    fn from_raw(raw: u32) -> Option<Self> {
        Vni::new(raw)
    }
}

impl Plain for IpPrefix {
    type Raw = (IpAddr, u8);
    fn to_raw(&self) -> Self::Raw {
        (self.addr, self.len)
    }
    fn from_raw((addr, len): Self::Raw) -> Option<Self> {
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        (len <= longest).then_some(IpPrefix { addr, len })
    }
}

impl Plain for IpNet {
    type Raw = (IpAddr, u8);
    fn to_raw(&self) -> Self::Raw {
        (self.addr(), self.prefix_len())
    }
    fn from_raw((addr, len): Self::Raw) -> Option<Self> {
        IpNet::new(addr, len).ok()
    }
}

impl<T: Plain> Plain for Option<T> {
    type Raw = Option<T::Raw>;
    fn to_raw(&self) -> Self::Raw {
        self.as_ref().map(T::to_raw)
    }
    fn from_raw(raw: Self::Raw) -> Option<Self> {
        match raw {
            Some(raw) => T::from_raw(raw).map(Some),
            None => Some(None),
        }
    }
}

impl<T: Plain> Plain for Vec<T> {
    type Raw = Vec<T::Raw>;
    fn to_raw(&self) -> Self::Raw {
        self.iter().map(T::to_raw).collect()
    }
    fn from_raw(raw: Self::Raw) -> Option<Self> {
        raw.into_iter().map(T::from_raw).collect()
    }
}

impl<K: Plain + Ord, V: Plain> Plain for BTreeMap<K, V> {
    type Raw = Vec<(K::Raw, V::Raw)>;
    fn to_raw(&self) -> Self::Raw {
        self.iter().map(|(key, value)| (key.to_raw(), value.to_raw())).collect()
    }
    fn from_raw(raw: Self::Raw) -> Option<Self> {
        raw.into_iter().map(|(key, value)| Some((K::from_raw(key)?, V::from_raw(value)?))).collect()
    }
}

impl<A: Plain, B: Plain> Plain for (A, B) {
    type Raw = (A::Raw, B::Raw);
    fn to_raw(&self) -> Self::Raw {
        (self.0.to_raw(), self.1.to_raw())
    }
    fn from_raw((a, b): Self::Raw) -> Option<Self> {
        Some((A::from_raw(a)?, B::from_raw(b)?))
    }
}
