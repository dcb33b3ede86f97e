use clap::Parser;

use super::*;
use crate::args::{Cli, Command};

fn network(words: &str) -> Result<NetworkCommand, clap::Error> {
    let words = ["meshnet", "network"].into_iter().chain(words.split_whitespace());
    match Cli::try_parse_from(words)?.command {
        Command::Network(command) => Ok(command),
        other => panic!("{other:?}"),
    }
}

fn create(words: &str) -> CreateArgs {
    match network(&format!("create blue {words}")).unwrap() {
        NetworkCommand::Create(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// The argument to blame, and why.
fn contradiction(words: &str) -> String {
    let Contradiction { argument, reason } = create(words).check().expect_err(words);
    format!("{argument}: {reason}")
}

#[test]
fn everything_finds_its_subnet() {
    let args = create(
        "--subnet 10.99.0.0/16 --subnet fd00:99::/64 --ip-range 10.99.8.0/24 --gateway 10.99.0.254 \
         --gateway fd00:99::1 --aux-address printer=10.99.0.7 --aux-address fax=fd00:99::7",
    );
    assert!(args.check().is_ok());
    let subnets = args.subnets().unwrap();
    let [v4, v6] = subnets.as_slice() else { panic!("{subnets:?}") };
    assert_eq!(v4.range, Some("10.99.8.0/24".parse().unwrap()));
    assert_eq!(v4.gateway, Some("10.99.0.254".parse().unwrap()));
    assert_eq!(v4.aux["printer"], "10.99.0.7".parse::<IpAddr>().unwrap());
    assert_eq!((v6.range, v6.gateway), (None, Some("fd00:99::1".parse().unwrap())));
    assert_eq!(v6.aux["fax"], "fd00:99::7".parse::<IpAddr>().unwrap());
}

#[test]
fn whether_it_is_encrypted_may_be_left_open() {
    let encrypted = |words| create(words).encrypted;
    assert_eq!(
        ["", "--encrypted", "--encrypted=true", "--encrypted=false"].map(encrypted),
        [None, Some(true), Some(true), Some(false)]
    );
    // The word after it is no value of it.
    assert!(network("create --encrypted blue").is_ok());
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for (words, argument) in [
        ("create", "NAME"),
        ("create bl/ue", "NAME"),
        ("create blue.green", "NAME"),
        ("create blue --subnet 10.99.0.0", "--subnet"),
        ("create blue --subnet 10.99.0.1/16", "--subnet"),
        ("create blue --subnet 224.0.0.0/8", "--subnet"),
        ("create blue --subnet 127.0.0.0/8", "--subnet"),
        ("create blue --subnet 169.254.0.0/16", "--subnet"),
        ("create blue --subnet fe80::/64", "--subnet"),
        ("create blue --subnet ff02::/64", "--subnet"),
        ("create blue --subnet 10.99.0.0/33", "--subnet"),
        ("create blue --ip-range 10.99.0.0/24", "--subnet"),
        ("create blue --gateway 10.99.0.1", "--subnet"),
        ("create blue --aux-address a=10.99.0.1", "--subnet"),
        ("create blue --subnet 10.99.0.0/16 --ip-range 10.99.0.1/24", "--ip-range"),
        ("create blue --subnet 10.99.0.0/16 --gateway 10.99.0.0/16", "--gateway"),
        ("create blue --subnet 10.99.0.0/16 --aux-address 10.99.0.1", "--aux-address"),
        ("create blue --subnet 10.99.0.0/16 --aux-address =10.99.0.1", "--aux-address"),
        ("create blue --vni 0", "--vni"),
        ("create blue --vni 1", "--vni"),
        ("create blue --vni 16777216", "--vni"),
        ("create blue --mtu 65536", "--mtu"),
        ("create blue --encrypted=perhaps", "--encrypted"),
        ("create blue --label =x", "--label"),
        ("create blue --opt x", "--opt"),
        ("ls --filter colour=red", "--filter"),
        ("ls --format {{.Colour}}", "--format"),
        ("ls --format {{.Name}} -q", "--format"),
        ("inspect", "NET"),
        ("connect blue", "CONTAINER"),
        ("connect blue web --ip fd00::1", "--ip"),
        ("connect blue web --ip6 10.99.0.2", "--ip6"),
        ("connect blue web --mac 01:00:5e:00:00:01", "--mac"),
        ("disconnect blue", "CONTAINER"),
        ("rm", "NET"),
        ("prune --filter name=x", "--filter"),
    ] {
        let error = network(words).expect_err(words);
        assert_eq!(error.exit_code(), 2, "{words}");
        assert!(error.to_string().contains(argument), "{words}: {error}");
    }
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    for (words, argument) in [
        ("--subnet 10.99.7.0/24", "--subnet"),
        ("--ip-range 10.98.0.0/24", "--ip-range 10.98.0.0/24"),
        ("--ip-range 10.0.0.0/8", "--ip-range 10.0.0.0/8"),
        ("--ip-range 10.99.1.0/24 --ip-range 10.99.2.0/24", "--ip-range 10.99.2.0/24"),
        ("--ip-range 10.99.0.1/32", "--ip-range"),
        ("--gateway 10.98.0.1", "--gateway 10.98.0.1"),
        ("--gateway fd00::1", "--gateway fd00::1"),
        ("--gateway 10.99.0.0", "--gateway"),
        ("--gateway 10.99.255.255", "--gateway"),
        ("--gateway 10.99.0.1 --gateway 10.99.0.2", "--gateway 10.99.0.2"),
        ("--aux-address a=10.98.0.7", "--aux-address a=10.98.0.7"),
        ("--aux-address a=10.99.0.1", "--aux-address"),
        ("--gateway 10.99.0.9 --aux-address a=10.99.0.9", "--aux-address"),
        ("--aux-address a=10.99.0.7 --aux-address a=10.99.0.8", "--aux-address a=10.99.0.8"),
        ("--aux-address a=10.99.0.7 --aux-address b=10.99.0.7", "--aux-address"),
        ("--subnet fd00:99::/64 --mtu 1279", "--mtu"),
        ("--ipv6 --mtu 1000", "--mtu"),
        ("--mtu 500", "--mtu"),
        ("--label a=1 --label a=2", "--label a=2"),
        ("--opt a=1 --opt a=2", "--opt a=2"),
    ] {
        let blamed = contradiction(&format!("--subnet 10.99.0.0/16 {words}"));
        assert!(blamed.starts_with(argument), "{words}: {blamed}");
    }
    for (words, argument) in [("--subnet 10.99.0.0/31", "--subnet"), ("--mtu 65535", "--mtu")] {
        let blamed = contradiction(words);
        assert!(blamed.starts_with(argument), "{words}: {blamed}");
    }
    assert!(create("--mtu 1000").check().is_ok() && create("").check().is_ok());
}
