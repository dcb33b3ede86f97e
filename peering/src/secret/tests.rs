use super::*;

fn secret(byte: u8) -> Secret {
    Secret::new(Zeroizing::new(vec![byte; MIN_LEN])).unwrap()
}

fn closed(byte: u8) -> Admission {
    Admission::new(Some(secret(byte)))
}

const BINDING: Binding = Binding { exported: [7; 32], dialler: PeerId([1; 16]), acceptor: PeerId([2; 16]) };

#[test]
fn the_text_is_read_back_and_anything_else_is_refused() {
    let text = secret(0xa5).text();
    assert_eq!(*text, "a5".repeat(32));
    assert_eq!(Secret::parse(&format!(" {}\n", text.as_str())).unwrap().0, secret(0xa5).0);
    assert_eq!(Secret::parse("").unwrap_err(), SecretError::Short(0));
    assert_eq!(Secret::parse(&"a5".repeat(31)).unwrap_err(), SecretError::Short(31));
    assert_eq!(Secret::parse(&"a5".repeat(257)).unwrap_err(), SecretError::Long);
    assert_eq!(Secret::parse(&"a".repeat(65)).unwrap_err(), SecretError::Digits);
    assert_eq!(Secret::parse(&"g5".repeat(32)).unwrap_err(), SecretError::Digits);
    assert!(Secret::parse(&"A5".repeat(MAX_LEN)).is_ok());
}

#[test]
fn a_secret_is_never_printed() {
    let admission = Admission::new(Some(Secret::parse(&"a5".repeat(32)).unwrap()));
    let shown = format!("{admission:?}");
    assert!(!shown.contains("a5") && !shown.contains("165"), "{shown}");
    for error in [SecretError::Short(3), SecretError::Long, SecretError::Digits] {
        assert!(!error.to_string().contains("a5"));
    }
}

#[test]
fn the_same_secret_opens_in_both_directions() {
    for role in [Role::Dialler, Role::Acceptor] {
        let proof = closed(1).prove(&BINDING, role);
        assert_eq!(closed(1).judge(&proof, &BINDING, role), Ok(()));
        assert_eq!(closed(2).judge(&proof, &BINDING, role), Err(Refusal::WrongSecret));
        let open = Admission::default();
        assert_eq!(open.judge(&proof, &BINDING, role), Err(Refusal::NoSecretHere));
        assert_eq!(open.judge(&open.prove(&BINDING, role), &BINDING, role), Ok(()));
        assert_eq!(closed(1).judge(&open.prove(&BINDING, role), &BINDING, role), Err(Refusal::NoSecretThere));
    }
}

#[test]
fn a_proof_is_good_for_one_connection_one_direction_and_two_hosts() {
    let proof = closed(1).prove(&BINDING, Role::Dialler);
    let judge = |binding: &Binding, role| closed(1).judge(&proof, binding, role);
    assert_eq!(judge(&BINDING, Role::Acceptor), Err(Refusal::WrongSecret), "sent back to whoever sent it");
    let turned = Binding { dialler: BINDING.acceptor, acceptor: BINDING.dialler, ..BINDING };
    for other in [
        Binding { exported: [8; 32], ..BINDING },
        Binding { dialler: PeerId([3; 16]), ..BINDING },
        Binding { acceptor: PeerId([3; 16]), ..BINDING },
        turned,
    ] {
        assert_eq!(judge(&other, Role::Dialler), Err(Refusal::WrongSecret), "{other:?}");
    }
    for bit in 0..8 * PROOF_LEN {
        let mut changed = proof;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(closed(1).judge(&changed, &BINDING, Role::Dialler), Err(Refusal::WrongSecret));
    }
}

#[test]
fn each_side_hears_why_from_where_it_stands() {
    for (refusal, other) in [
        (Refusal::NoSecretHere, Refusal::NoSecretThere),
        (Refusal::NoSecretThere, Refusal::NoSecretHere),
        (Refusal::WrongSecret, Refusal::WrongSecret),
    ] {
        assert_eq!(Refusal::told(refusal.code().into()), Some(other));
    }
    assert_eq!(Refusal::told(0), None);
}

/// Computed apart, with another implementation of HMAC, from the description in `docs/protocol.md` alone.
#[test]
fn keys_and_proofs_are_as_the_page_says() {
    let data_key = closed(0x11).data_key().unwrap();
    assert_eq!(hex(&data_key[..]), "d9343406a800acbc0599d25d2223f579c43629e57edc1763f9fe0b7996b64542");
    assert_eq!(hex(&closed(0x11).name().unwrap()), "cee26465d3173d75");
    assert!(Admission::default().data_key().is_none() && Admission::default().name().is_none());
    assert_eq!(
        hex(&secret(0x11).key(CONTROL)[..]),
        "cf658907a5c94d45011ef26c641a28c4b052cdf6f8900e48c3b24026f9aff50d"
    );
    assert_eq!(
        hex(&closed(0x11).prove(&BINDING, Role::Dialler)),
        "a9dd9bfe31bc90ee2830ee71487b39b52b1d2a63d5a98ec2d44ac60114a8e5ce"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
