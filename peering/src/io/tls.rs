//! TLS 1.3 in which both sides show the Ed25519 key of their host itself, without a certificate around it
//! (RFC 7250). A host is its key, so there is nothing that a certificate could add.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use engine::types::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use crate::identity::{self, Identity};

/// The application protocol (RFC 7301): a host that does not know it is no host of ours.
const ALPN: &[u8] = b"meshnet";

/// A SubjectPublicKeyInfo of Ed25519 up to the 32 bytes of the key (RFC 8410 section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a host shows of itself in every handshake.
#[derive(Debug)]
pub(super) struct Credentials {
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    alpn: Vec<u8>,
}

impl Credentials {
    pub(super) fn new(identity: Arc<Identity>) -> Self {
        let spki = CertificateDer::from([&SPKI_HEAD[..], identity.public_key()].concat());
        let key = Arc::new(CertifiedKey::new(vec![spki], Arc::new(HostKey(identity))));
        Credentials { key, provider: Arc::new(aws_lc_rs::default_provider()), alpn: ALPN.to_vec() }
    }

    /// The same host speaking another protocol.
    #[cfg(test)]
    pub(super) fn with_alpn(mut self, alpn: &[u8]) -> Self {
        self.alpn = alpn.to_vec();
        self
    }

    /// For those who dial us. Nothing is resumed: every handshake proves both keys.
    pub(super) fn server_config(&self) -> Result<ServerConfig, Error> {
        let resolver = AlwaysResolvesServerRawPublicKeys::new(self.key.clone());
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(AnyHost))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![self.alpn.clone()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For one attempt to reach the host that `check` accepts.
    pub(super) fn client_config(&self, check: Arc<ServerCheck>) -> Result<ClientConfig, Error> {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(self.key.clone());
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(check)
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![self.alpn.clone()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Who is behind the raw public key that a handshake showed.
pub(super) fn peer_of(shown: &[CertificateDer<'_>]) -> Option<PeerId> {
    shown.first().and_then(|spki| public_key(spki)).map(|key| identity::peer_id_of(&key))
}

fn public_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

/// Signs handshakes with the key of the host.
#[derive(Clone)]
struct HostKey(Arc<Identity>);

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.0.peer_id()).finish()
    }
}

impl SigningKey for HostKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some([&SPKI_HEAD[..], self.0.public_key()].concat().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for HostKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Checks that the other side has the key it shows, and says whose it is.
fn proven(
    message: &[u8],
    shown: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<PeerId, Error> {
    let key = public_key(shown).ok_or(CertificateError::BadEncoding)?;
    let signature = signed.signature().try_into().map_err(|_| CertificateError::BadSignature)?;
    match signed.scheme == SignatureScheme::ED25519 && identity::verify(&key, message, signature) {
        true => Ok(identity::peer_id_of(&key)),
        false => Err(CertificateError::BadSignature.into()),
    }
}

fn shows_one_key(shown: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
    match public_key(shown) {
        Some(_) if more.is_empty() => Ok(()),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

fn only_tls13() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}

/// Judges the host that answers one attempt of a dial. The attempts of a dial share one prize, so that of
/// several addresses of a host exactly one connection comes about on both sides.
#[derive(Debug)]
pub(super) struct ServerCheck {
    expected: Option<PeerId>,
    prize: Arc<AtomicBool>,
    met: OnceLock<PeerId>,
}

impl ServerCheck {
    pub(super) fn new(expected: Option<PeerId>, prize: Arc<AtomicBool>) -> Self {
        ServerCheck { expected, prize, met: OnceLock::new() }
    }

    /// The host that answered and the one that was expected, if they differ.
    pub(super) fn unexpected(&self) -> Option<(PeerId, PeerId)> {
        self.met.get().copied().zip(self.expected)
    }

    fn judge(&self, met: PeerId) -> Result<(), Error> {
        if self.expected.is_some_and(|expected| expected != met) {
            let _ = self.met.set(met);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match self.prize.swap(true, Ordering::AcqRel) {
            false => Ok(()),
            true => Err(Error::General("another address of the host answered first".to_owned())),
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        shows_one_key(shown, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge(proven(message, shown, signed)?).map(|()| HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts every host that proves its key: who it is decides what it may do, later.
#[derive(Debug)]
struct AnyHost;

impl ClientCertVerifier for AnyHost {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        shows_one_key(shown, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        proven(message, shown, signed).map(|_| HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
