//! The published vectors for both suites: the whole exchange byte for byte, then frames under the keys it gives.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../tests/vectors/noise-ikpsk2.json");

fn vectors() -> Vec<Value> {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    all["vectors"].as_array().unwrap().clone()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

fn suite(vector: &Value) -> Suite {
    let named = |suite: &Suite| vector["protocol_name"] == suite.protocol();
    Suite::ALL.into_iter().find(named).unwrap()
}

/// A transport message of the Noise specification: no associated data, a counter from 0.
fn sealed(suite: Suite, split: &SplitKey, counter: u64, plain: &[u8]) -> Vec<u8> {
    let (algorithm, counter) = match suite {
        Suite::AesGcm => (&AES_256_GCM, counter.to_be_bytes()),
        Suite::ChaChaPoly => (&CHACHA20_POLY1305, counter.to_le_bytes()),
    };
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter);
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &split[..]).unwrap());
    let mut text = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).unwrap();
    text
}

#[test]
fn the_published_exchanges_come_out_byte_for_byte() {
    assert_eq!(vectors().iter().map(suite).collect::<Vec<_>>(), Suite::ALL);
    for vector in vectors() {
        let suite = suite(&vector);
        let (ours, theirs) =
            (StaticKey::new(key(&vector["init_static"])), StaticKey::new(key(&vector["resp_static"])));
        let (peer, prologue) = (key(&vector["init_remote_static"]), bytes(&vector["init_prologue"]));
        let psk = Psk::new(key(&vector["init_psks"][0]));
        let mut initiator =
            Noise::initiator(suite, &prologue, &ours, &peer, key(&vector["init_ephemeral"])).unwrap();
        let mut responder =
            Noise::responder(suite, &prologue, &theirs, key(&vector["resp_ephemeral"])).unwrap();
        let messages = vector["messages"].as_array().unwrap();
        let text = |at: usize| (bytes(&messages[at]["payload"]), bytes(&messages[at]["ciphertext"]));

        let (payload, expected) = text(0);
        assert_eq!(initiator.write(&payload).unwrap(), expected);
        assert_eq!(responder.read(&expected).unwrap(), payload);
        responder.set_psk(&psk).unwrap();
        initiator.set_psk(&psk).unwrap();
        let (payload, expected) = text(1);
        assert_eq!(responder.write(&payload).unwrap(), expected);
        assert_eq!(initiator.read(&expected).unwrap(), payload);

        let (to_responder, to_initiator) = initiator.split().unwrap();
        assert_eq!(responder.split().unwrap(), (to_initiator.clone(), to_responder.clone()));
        for at in 2..messages.len() {
            let (payload, expected) = text(at);
            let split = if at % 2 == 0 { &to_responder } else { &to_initiator };
            assert_eq!(sealed(suite, split, (at as u64 - 2) / 2, &payload), expected, "message {at}");
        }
    }
}

#[test]
fn a_wrong_answer_does_not_spoil_the_exchange() {
    let (ours, theirs) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let public = Noise::responder(Suite::AesGcm, b"", &theirs, [3; 32]);
    assert!(public.is_ok_and(|noise| noise.remote_static().is_none()));
    let peer = theirs.public();
    let psk = Psk::new([5; 32]);
    let mut initiator = Noise::initiator(Suite::AesGcm, b"", &ours, &peer, [6; 32]).unwrap();
    let first = initiator.write(b"first").unwrap();
    let mut responder = Noise::responder(Suite::AesGcm, b"", &theirs, [7; 32]).unwrap();
    assert_eq!(responder.read(&first).unwrap(), b"first");
    assert_eq!(responder.remote_static(), Some(ours.public()));
    responder.set_psk(&psk).unwrap();
    initiator.set_psk(&psk).unwrap();
    let second = responder.write(b"").unwrap();
    for at in 0..second.len() {
        let mut bent = second.clone();
        bent[at] ^= 1;
        assert_eq!(initiator.read(&bent), Err(Mismatch), "byte {at}");
    }
    assert!(initiator.split().is_err());
    initiator.read(&second).unwrap();
    assert_eq!(initiator.split().unwrap().0, responder.split().unwrap().1);
}
