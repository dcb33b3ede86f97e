use super::*;

#[test]
fn failures_are_told_once_if_they_agree() {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let refused = |port| (at(port), "connection refused".to_owned());
    assert_eq!(told_together(&[refused(1), refused(2)]), "connection refused");
    let mixed = [refused(1), (at(2), "timed out after 3 s".to_owned())];
    assert_eq!(told_together(&mixed), "127.0.0.1:1: connection refused; 127.0.0.1:2: timed out after 3 s");
    assert_eq!(told_together(&[]), "the name has no address");
}
