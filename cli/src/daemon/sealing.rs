//! What this host brings to sealed sessions, and what it agreed on with whom.
//!
//! Keys and wishes come from the control plane: of this host by [`Peering::identity`] and [`Peering::keyring`], of the others
//! with [`MeshEvent::HostUp`], of networks with [`MeshEvent::NetworkChanged`].
//!
//! [`Peering::identity`]: peering::io::Peering::identity
//! [`Peering::keyring`]: peering::io::Peering::keyring
//! [`MeshEvent::HostUp`]: peering::mesh::MeshEvent::HostUp
//! [`MeshEvent::NetworkChanged`]: peering::mesh::MeshEvent::NetworkChanged

use std::collections::BTreeMap;
use std::time::Duration;

use engine::session::keeper::Identity;
use engine::session::noise::StaticKey;
use engine::session::suite::Suite;
use engine::types::PeerId;
use ipnet::IpNet;
use peering::io::Peering;
use peering::records::Encryption;
use peering::sealing::{self, AES_256_GCM, Agreement, CHACHA20_POLY1305, Trust};

use super::secrets::psks;
use super::{Daemon, lock_of};
use crate::args::{Cipher, LaunchArgs, Wish};
use crate::shape::{NetworkStatus, Sealing, Warning};

/// What was agreed on with each host that is up.
pub(super) type Agreements = BTreeMap<PeerId, (Agreement, Trust)>;

/// What people asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    encryption: Encryption,
    suites: Vec<u16>,
    trusted: Vec<IpNet>,
    renew_after: Duration,
}

impl Asked {
    pub(super) fn of(launch: &LaunchArgs) -> Self {
        let encryption = match launch.encryption {
            Wish::Auto => Encryption::Auto,
            Wish::On => Encryption::On,
            Wish::Off => Encryption::Off,
        };
        let trusted = launch.trusted_subnets.clone();
        let renew_after = Duration::from_secs(launch.rekey_after);
        Asked { encryption, suites: suites(launch.cipher, has_aes()), trusted, renew_after }
    }

    pub(super) fn encryption(&self) -> Encryption {
        self.encryption
    }

    pub(super) fn suites(&self) -> &[u16] {
        &self.suites
    }

    pub(super) fn trusted(&self) -> &[IpNet] {
        &self.trusted
    }

    /// Whether this host seals, in a cluster with a secret or in an open one.
    pub(super) fn seals(&self, open: bool) -> bool {
        let (encryption, suites) = (self.encryption, self.suites.clone());
        sealing::Sealing { encryption, suites, trusted: self.trusted.clone(), closed: !open }.seals()
    }

    /// Who this host is in its sessions.
    pub(super) async fn identity(&self, peering: &Peering) -> Identity {
        let known = |number: &u16| u8::try_from(*number).ok().and_then(Suite::of_number);
        Identity {
            key: StaticKey::new(**peering.identity().noise_secret_key()),
            start: peering.incarnation().await,
            suites: self.suites.iter().filter_map(known).collect(),
            psks: psks(&peering.keyring()),
            renew_after: self.renew_after,
            seed: rand::random(),
        }
    }
}

/// The suites in the order of this host: with instructions for AES that is the faster one, and without them it tells whoever
/// measures time too much.
fn suites(cipher: Cipher, has_aes: bool) -> Vec<u16> {
    match (cipher, has_aes) {
        (Cipher::Aes256Gcm, _) => vec![AES_256_GCM],
        (Cipher::Chacha20Poly1305, _) => vec![CHACHA20_POLY1305],
        (Cipher::Auto, true) => vec![AES_256_GCM, CHACHA20_POLY1305],
        (Cipher::Auto, false) => vec![CHACHA20_POLY1305, AES_256_GCM],
    }
}

/// Whether the processor has instructions for AES-GCM.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn suite_name(suite: u16) -> String {
    match suite {
        AES_256_GCM => "aes-256-gcm".to_owned(),
        CHACHA20_POLY1305 => "chacha20-poly1305".to_owned(),
        other => other.to_string(),
    }
}

fn mode_name(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Off => "off",
        Encryption::Auto => "auto",
        Encryption::On => "on",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Daemon {
    /// Whether this host seals.
    pub(super) fn seals(&self) -> bool {
        self.asked.seals(self.peering.is_open())
    }

    /// For `status`: what this host wishes and has. `start` counts its starts.
    pub(super) fn sealing(&self, start: u64) -> Sealing {
        Sealing {
            encryption: mode_name(self.asked.encryption).to_owned(),
            suites: self.asked.suites.iter().copied().map(suite_name).collect(),
            trusted_subnets: self.asked.trusted.clone(),
            noise_key: hex(self.peering.identity().noise_public_key()),
            secret: self.peering.keyring().preferred().map(|name| name.to_string()),
            secret_file: self.secret_file(),
            start,
        }
    }

    /// For `launch` and `status`: subnets are trusted, and there is nothing to be trusted with.
    pub(super) fn trust_warning(&self) -> Option<Warning> {
        let unused = !self.asked.trusted.is_empty() && !self.seals();
        unused.then(|| Warning {
            kind: "trust_unused".to_owned(),
            message: "--trusted-subnets has no effect: this host seals no frames at all. Launch it with a secret or with \
                      --encryption on, or without --trusted-subnets"
                .to_owned(),
        })
    }

    /// For `status`: why there is no session with another host.
    pub(super) fn session_fault(&self, peer: &str) -> Option<String> {
        let peer = peer.parse().ok()?;
        lock_of(&self.session_faults).get(&peer).cloned()
    }

    /// For `status`: the networks, by name.
    pub(super) fn network_status(&self) -> Vec<NetworkStatus> {
        let (networks, own) = (self.networks.borrow(), self.peering.peer_id());
        let all = networks.all().into_iter().map(|view| NetworkStatus {
            network: view.name.clone(),
            network_id: view.id.to_string(),
            vni: view.vni.get(),
            mtu: view.mtu,
            encrypted: view.encrypted,
            used: view.is_used_by(own),
        });
        all.collect()
    }

    /// For `status`: what was agreed on with another host, and who of both trusts the underlay between them.
    pub(super) fn agreement(&self, peer: &str) -> Option<(Agreement, Trust)> {
        lock_of(&self.agreements).get(&peer.parse().ok()?).copied()
    }

    /// For `status`: how frames go to another host.
    pub(super) fn path_kind(&self, peer: &str) -> &'static str {
        let in_clear = |peer| lock_of(&self.in_clear).contains(&peer);
        if self.seals() && !peer.parse().is_ok_and(in_clear) { "sealed" } else { "plain" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_suites_follows_the_processor_unless_people_say_otherwise() {
        assert_eq!(suites(Cipher::Auto, true), [AES_256_GCM, CHACHA20_POLY1305]);
        assert_eq!(suites(Cipher::Auto, false), [CHACHA20_POLY1305, AES_256_GCM]);
        assert_eq!(suites(Cipher::Aes256Gcm, false), [AES_256_GCM]);
        assert_eq!(suites(Cipher::Chacha20Poly1305, true), [CHACHA20_POLY1305]);
        assert_eq!([1, 2, 9].map(suite_name), ["aes-256-gcm", "chacha20-poly1305", "9"]);
    }
}
