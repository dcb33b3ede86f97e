//! Offload features of an interface, by their kernel names (`ethtool -k`), through the `SIOCETHTOOL` request.
//!
//! The request goes to the namespace of the calling thread: call within [`super::netns::Netns::run`].
//! Names and layouts: linux/ethtool.h, net/ethtool/common.c.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

/// Segmentation that a plain network card does not do for tunnels and datagrams; switched off, a virtual wire
/// carries packets of its MTU only, as copper does.
pub const CUTTING: [&str; 8] = [
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
];

/// Joining of received packets ahead of the network stack.
pub const GRO: &str = "rx-gro";

/// The features of an interface cannot be read or set.
#[derive(Debug, Error)]
pub enum EthtoolError {
    /// Longer than the 15 bytes the kernel allows (linux/if.h, IFNAMSIZ).
    #[error("{0:?} is too long for an interface name")]
    NameTooLong(String),
    /// No such interface, no permission, or a driver without features.
    #[error("cannot {what} of {ifname}: {source}")]
    Request {
        /// What was asked of the kernel.
        what: &'static str,
        /// The interface.
        ifname: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Which features an interface has switched on, by name.
pub fn features(ifname: &str) -> Result<BTreeMap<String, bool>, EthtoolError> {
    let interface = Interface::open(ifname)?;
    let names = interface.feature_names()?;
    let active = interface.active(names.len())?;
    Ok(names.into_iter().zip(active).filter(|(name, _)| !name.is_empty()).collect())
}

/// Switches features on or off and returns the names whose state is not as wanted afterwards: unknown to this kernel,
/// or fixed by the driver. The caller decides whether that matters.
pub fn set_features(ifname: &str, wanted: &[(&str, bool)]) -> Result<Vec<String>, EthtoolError> {
    let interface = Interface::open(ifname)?;
    let names = interface.feature_names()?;
    let mut blocks = vec![Wish::default(); names.len().div_ceil(32)];
    for (bit, name) in names.iter().enumerate() {
        let Some((_, on)) = wanted.iter().find(|(wanted, _)| wanted == name) else { continue };
        blocks[bit / 32].valid |= 1 << (bit % 32);
        blocks[bit / 32].requested |= u32::from(*on) << (bit % 32);
    }
    interface.request_features(&blocks)?;
    let active = features(ifname)?;
    let differs = |(name, on): &&(&str, bool)| active.get(*name).copied().unwrap_or(false) != *on;
    Ok(wanted.iter().filter(differs).map(|(name, _)| (*name).to_owned()).collect())
}

/// `ETH_SS_FEATURES`: the set of strings that names the features, in the order of their bits.
const SS_FEATURES: u32 = 4;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
/// `ETH_GSTRING_LEN`
const NAME_BYTES: usize = 32;

/// One block of `struct ethtool_set_features_block`: 32 features.
#[derive(Clone, Copy, Default)]
struct Wish {
    valid: u32,
    requested: u32,
}

/// An interface by name, and a socket to ask through.
struct Interface {
    name: String,
    socket: OwnedFd,
}

impl Interface {
    fn open(name: &str) -> Result<Self, EthtoolError> {
        if name.len() >= libc::IFNAMSIZ {
            return Err(EthtoolError::NameTooLong(name.to_owned()));
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|errno| failed("open a socket for the features", name, errno.into()))?;
        Ok(Self { name: name.to_owned(), socket })
    }

    /// The names in the order of their bits; an unused bit has an empty name.
    fn feature_names(&self) -> Result<Vec<String>, EthtoolError> {
        // struct ethtool_sset_info: cmd, reserved, u64 mask, one u32 per set bit.
        let mut info = vec![GSSET_INFO, 0, 0, 0, 0];
        write_u64(&mut info[2..4], 1 << SS_FEATURES);
        self.request("count the features", &mut info)?;
        let count = if read_u64(&info[2..4]) == 0 { 0 } else { info[4] as usize };
        // struct ethtool_gstrings: cmd, set, length, then the strings.
        let mut strings = vec![0; 3 + count * NAME_BYTES / 4];
        strings[..3].copy_from_slice(&[GSTRINGS, SS_FEATURES, count as u32]);
        self.request("name the features", &mut strings)?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(NAME_BYTES).map(text).collect())
    }

    /// struct ethtool_gfeatures: cmd, size, blocks of (available, requested, active, never changed).
    fn active(&self, count: usize) -> Result<Vec<bool>, EthtoolError> {
        let blocks = count.div_ceil(32);
        let mut words = vec![0; 2 + 4 * blocks];
        words[..2].copy_from_slice(&[GFEATURES, blocks as u32]);
        self.request("read the features", &mut words)?;
        Ok((0..count).map(|bit| words[2 + 4 * (bit / 32) + 2] & (1 << (bit % 32)) != 0).collect())
    }

    /// struct ethtool_sfeatures: cmd, size, blocks of (valid, requested).
    fn request_features(&self, blocks: &[Wish]) -> Result<(), EthtoolError> {
        let mut words = vec![SFEATURES, blocks.len() as u32];
        words.extend(blocks.iter().flat_map(|block| [block.valid, block.requested]));
        self.request("set the features", &mut words)
    }

    /// One `SIOCETHTOOL`; `words` holds the command and has room for the whole answer.
    fn request(&self, what: &'static str, words: &mut [u32]) -> Result<(), EthtoolError> {
        // SAFETY: an all-zero `ifreq` is a valid value of that plain C structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the name ends in a zero (its length was checked), and `words` outlives the call and was sized by
        // the caller for the command in its first word, so that the kernel writes inside it.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if done < 0 { Err(failed(what, &self.name, io::Error::last_os_error())) } else { Ok(()) }
    }
}

fn failed(what: &'static str, ifname: &str, source: io::Error) -> EthtoolError {
    EthtoolError::Request { what, ifname: ifname.to_owned(), source }
}

/// A fixed-width C string.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn write_u64(words: &mut [u32], value: u64) {
    for (word, bytes) in words.iter_mut().zip(value.to_ne_bytes().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

fn read_u64(words: &[u32]) -> u64 {
    let mut bytes = [0; 8];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_features_with_names() {
        let features = features("lo").unwrap();
        assert!(features.contains_key("tx-udp-segmentation"), "{features:?}");
        assert!(features.contains_key(GRO));
    }

    #[test]
    fn names_that_no_kernel_knows_come_back_as_refused() {
        assert_eq!(set_features("lo", &[("no-such-feature", true)]).unwrap(), ["no-such-feature"]);
    }

    #[test]
    fn a_missing_interface_is_an_error_that_names_it() {
        let error = features("no-such-if0").unwrap_err();
        assert!(error.to_string().contains("no-such-if0"), "{error}");
        assert!(matches!(features("a-name-far-too-long"), Err(EthtoolError::NameTooLong(_))));
    }

    #[test]
    fn a_number_keeps_its_value_over_two_words() {
        let mut words = [0, 0];
        write_u64(&mut words, 0x0102_0304_0506_0708);
        assert_eq!(read_u64(&words), 0x0102_0304_0506_0708);
    }
}
