use super::super::key::WrongTag;
use super::super::mac::MacKeys;
use super::*;
use crate::wire::sealed::Header;

struct Host {
    key: StaticKey,
    public: [u8; KEY_LEN],
}

fn host(number: u8) -> Host {
    let key = StaticKey::new([number; 32]);
    let public = key.public();
    Host { key, public }
}

const STAMP: Stamp = Stamp { start: 3, count: 9 };

fn begin(from: &Host, to: &Host, psks: &[Psk]) -> (Pending, Vec<u8>) {
    let ids: Vec<PskId> = psks.iter().map(Psk::id).collect();
    let (pending, mut bytes) =
        Pending::begin(Suite::AesGcm, &from.key, &to.public, 17, (STAMP, &ids), [40; 32]).unwrap();
    MacKeys::of(&to.public).finish(&mut bytes, None);
    (pending, bytes)
}

fn answer(asked: Asked, peer: &Host, psks: &[Psk]) -> Result<(Established, Vec<u8>), HandshakeError> {
    assert_eq!(asked.peer, peer.public);
    let (established, mut bytes) = asked.answer(psks, 6, 23)?;
    MacKeys::of(&peer.public).finish(&mut bytes, None);
    Ok((established, bytes))
}

fn passes(from: &Established, to: &Established) -> Result<(), WrongTag> {
    let header = Header { lane: 1, receiver: from.remote, counter: 0 };
    let mut body = b"a frame".to_vec();
    let tag = from.seal.lane(1).unwrap().seal(header, &mut body);
    let mut datagram = [&header.to_bytes()[..], &body, &tag].concat();
    to.open.lane(1).unwrap().open(header, &mut datagram).map(|content| assert_eq!(content, b"a frame"))
}

#[test]
fn two_hosts_agree_on_keys_and_numbers() {
    let (one, two, psks) = (host(1), host(2), [Psk::new([9; 32])]);
    let (mut pending, initiation) = begin(&one, &two, &psks);
    let asked = Asked::read(&two.key, &initiation, [41; 32]).unwrap();
    assert_eq!((asked.stamp, asked.suite()), (STAMP, Suite::AesGcm));
    let (theirs, response) = answer(asked, &one, &psks).unwrap();
    assert_eq!(answered(&response), Some(17));
    let ours = pending.finish(&psks, &response).unwrap();
    assert_eq!((ours.local, ours.remote, theirs.local, theirs.remote), (17, 23, 23, 17));
    assert_eq!((ours.life, theirs.life), (6, 3), "the start counts");
    assert!(ours.initiator && !theirs.initiator);
    passes(&ours, &theirs).unwrap();
    passes(&theirs, &ours).unwrap();
    assert_eq!(passes(&ours, &ours), Err(WrongTag), "each direction has its own key");
}

#[test]
fn the_newest_common_secret_is_used() {
    let (one, two) = (host(1), host(2));
    let (old, new, other) = (Psk::new([1; 32]), Psk::new([2; 32]), Psk::new([3; 32]));
    let meet = |ours: &[Psk], theirs: &[Psk]| {
        let (mut pending, initiation) = begin(&one, &two, ours);
        let asked = Asked::read(&two.key, &initiation, [41; 32])?;
        let (_, response) = answer(asked, &one, theirs)?;
        pending.finish(ours, &response).map(|_| response[12..20].to_vec())
    };
    let both = [new.clone(), old.clone()];
    assert_eq!(meet(&both, &both), Ok(new.id().0.to_vec()));
    assert_eq!(meet(std::slice::from_ref(&old), &both), Ok(old.id().0.to_vec()));
    assert_eq!(meet(&both, std::slice::from_ref(&old)), Ok(old.id().0.to_vec()));
    assert_eq!(meet(&both, &[other]), Err(HandshakeError::Psk));
}

#[test]
fn what_was_changed_on_the_way_or_made_for_another_leads_to_nothing() {
    let (one, two, psks) = (host(1), host(2), [Psk::new([9; 32])]);
    let (mut pending, initiation) = begin(&one, &two, &psks);
    assert!(Asked::read(&host(3).key, &initiation, [41; 32]).is_err());
    let signed = initiation.len() - MACS_LEN;
    for at in (0..signed).filter(|at| !(4..8).contains(at)) {
        let mut bent = initiation.clone();
        bent[at] ^= 1;
        assert!(Asked::read(&two.key, &bent, [41; 32]).is_err(), "byte {at}");
    }
    (0..initiation.len())
        .for_each(|len| assert!(Asked::read(&two.key, &initiation[..len], [41; 32]).is_err()));
    let mut downgraded = initiation.clone();
    downgraded[1] = Suite::ChaChaPoly.number();
    assert_eq!(Asked::read(&two.key, &downgraded, [41; 32]).err(), Some(Mismatch.into()));

    let asked = Asked::read(&two.key, &initiation, [41; 32]).unwrap();
    let (_, response) = answer(asked, &one, &psks).unwrap();
    for at in (0..response.len() - MACS_LEN).filter(|at| !(4..8).contains(at)) {
        let mut bent = response.clone();
        bent[at] ^= 1;
        assert!(pending.finish(&psks, &bent).is_err(), "byte {at}");
    }
    assert!(pending.finish(&[Psk::new([8; 32])], &response).is_err());
    assert!(pending.finish(&psks, &response).is_ok(), "and the right answer still fits");
}
