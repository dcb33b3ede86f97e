use super::*;

fn secret(byte: u8) -> Secret {
    Secret::new(Zeroizing::new(vec![byte; MIN_LEN])).unwrap()
}

fn closed(byte: u8) -> Admission {
    Admission::new(Keyring::new(Some(secret(byte))))
}

/// What a host has that goes over from one secret to another.
fn both(old: u8, new: u8) -> Admission {
    let mut keyring = Keyring::new(Some(secret(old)));
    keyring.take(secret(new), secret(old).name());
    Admission::new(keyring)
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
    let admission = Admission::new(Keyring::new(Some(Secret::parse(&"a5".repeat(32)).unwrap())));
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
        (Refusal::RetiredThere, Refusal::RetiredHere),
        (Refusal::RetiredHere, Refusal::RetiredThere),
    ] {
        assert_eq!(Refusal::told(refusal.code().into()), Some(other));
    }
    assert_eq!(Refusal::told(0), None);
}

#[test]
fn hosts_on_the_way_to_another_secret_let_in_who_has_either() {
    let all = [closed(1), both(1, 2), both(2, 1), closed(2)];
    for (at, one) in all.iter().enumerate() {
        for (to, other) in all.iter().enumerate() {
            let common = one.keyring().names().iter().any(|name| other.keyring().holds(*name));
            let judged = other.judge(&one.prove(&BINDING, Role::Dialler), &BINDING, Role::Dialler);
            assert_eq!(judged.is_ok(), common, "{at} {to}");
            let back = one.judge(&other.prove(&BINDING, Role::Acceptor), &BINDING, Role::Acceptor);
            assert_eq!(back.is_ok(), common, "{to} {at}");
        }
    }
    let (one, two) = (closed(1).prove(&BINDING, Role::Dialler), both(1, 2).prove(&BINDING, Role::Dialler));
    assert_eq!(one[..PROOF_LEN], two[..PROOF_LEN]);
    for proofs in [one, two] {
        assert!(proofs[PROOF_LEN..] != [0; PROOF_LEN] && proofs[PROOF_LEN..] != proofs[..PROOF_LEN]);
    }
}

#[test]
fn who_has_a_secret_of_before_is_told_that_it_is_one() {
    let mut keyring = both(1, 2).keyring().clone();
    keyring.keep_only(secret(2).name());
    let gone_over = Admission::new(keyring);
    let judge =
        |who: &Admission| gone_over.judge(&who.prove(&BINDING, Role::Dialler), &BINDING, Role::Dialler);
    assert_eq!(judge(&closed(1)), Err(Refusal::RetiredThere));
    assert_eq!(judge(&closed(3)), Err(Refusal::WrongSecret));
    assert_eq!(judge(&both(1, 2)), Ok(()));
    assert!(Refusal::RetiredHere.to_string().contains("this host's secret is no longer taken"));
}

/// Computed apart, with another implementation of HMAC, from the description in `docs/protocol.md` alone.
#[test]
fn keys_and_proofs_are_as_the_page_says() {
    let data_key = secret(0x11).data_key();
    assert_eq!(hex(&data_key[..]), "d9343406a800acbc0599d25d2223f579c43629e57edc1763f9fe0b7996b64542");
    assert_eq!(secret(0x11).name().to_string(), "cee26465d3173d75");
    assert!(Admission::default().is_open() && Admission::default().keyring().names().is_empty());
    assert_eq!(
        hex(&secret(0x11).control_key()[..]),
        "cf658907a5c94d45011ef26c641a28c4b052cdf6f8900e48c3b24026f9aff50d"
    );
    let proofs = closed(0x11).prove(&BINDING, Role::Dialler);
    assert_eq!(hex(&proofs[..PROOF_LEN]), "a9dd9bfe31bc90ee2830ee71487b39b52b1d2a63d5a98ec2d44ac60114a8e5ce");
    assert_eq!(hex(&proofs[PROOF_LEN..]), "00e8ba998eb357eea1771505ad5e1ff19a3bbccd8dc4cf6b440bb16ed94f1a1b");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
