//! Sealed sessions between hosts: the handshake, the keys of frames, and what was seen.
//!
//! `Noise_IKpsk2_25519_{AESGCM,ChaChaPoly}_BLAKE2s` by `snow` agrees on two keys; each is split into one key a lane, so that
//! the workers of a sender share no counter, and frames are sealed and opened where they lie.

pub mod chance;
pub mod epoch;
pub mod handshake;
pub mod keeper;
pub mod key;
pub mod mac;
pub mod noise;
pub mod psk;
pub mod sealed;
pub mod sessions;
pub mod signals;
pub mod suite;
pub mod window;
