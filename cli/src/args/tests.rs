use super::value::{duration, vtep};
use super::*;

fn parse(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("meshnet").chain(words.split_whitespace())).and_then(Cli::checked)
}

fn usage_error(words: &str) -> ErrorKind {
    let error = parse(words).expect_err(words);
    assert_eq!(error.exit_code(), 2, "{words}");
    error.kind()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn launch_has_the_documented_defaults() {
    let Command::Launch(args) = parse("launch node01 192.0.2.1:7000 --mtu 1400").unwrap().command else {
        panic!()
    };
    assert_eq!((args.port, args.data_port, args.mtu), (6783, 4789, Some(1400)));
    assert_eq!(args.peers.len(), 2);
    assert!(!args.foreground && !args.detached && !args.found && !args.no_discovery);
}

#[test]
fn run_dir_and_output_are_accepted_anywhere() {
    for words in
        ["--run-dir /tmp/x -o json ps", "ps --run-dir /tmp/x -o json", "vtep ls -o json --run-dir /tmp/x"]
    {
        let cli = parse(words).unwrap();
        assert_eq!(cli.common.run_dir, PathBuf::from("/tmp/x"));
        assert_eq!(cli.common.output, Format::Json);
    }
}

#[test]
fn attach_takes_several_addresses() {
    let words =
        "attach web --ip 10.32.0.9 --ip 10.32.0.10 --mac 02:00:00:00:00:01 --ifname eth7 --timeout 1.5";
    let Command::Attach(args) = parse(words).unwrap().command else { panic!() };
    assert_eq!(args.ip.len(), 2);
    assert_eq!(args.endpoint.timeout, Duration::from_millis(1500));
    assert_eq!(args.network, "mesh");
}

#[test]
fn bad_usage_is_told_apart_before_anything_happens() {
    assert_eq!(usage_error("attach"), ErrorKind::MissingRequiredArgument);
    assert_eq!(usage_error("atach web"), ErrorKind::InvalidSubcommand);
    assert_eq!(usage_error("attach web --ip 10.32.0.9/12"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --mac 01:00:5e:00:00:01"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --mac 02:6d:65:00:00:01"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --ifname a/b"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --ifname sixteen-letters-"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --name -web"), ErrorKind::UnknownArgument);
    assert_eq!(usage_error("attach web --name we/b"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("attach web --timeout soon"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("launch --ipalloc-range 10.32.0.1/12"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("launch --ipalloc-range 10.32.0.0/30"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("launch --port 0"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("status --wait peers"), ErrorKind::ValueValidation);
    assert_eq!(usage_error("status --timeout 3"), ErrorKind::MissingRequiredArgument);
    assert_eq!(usage_error("connect"), ErrorKind::MissingRequiredArgument);
}

#[test]
fn no_more_subnets_are_trusted_than_others_can_be_told() {
    let words = |count: usize| {
        let subnets: Vec<String> = (0..count).map(|number| format!("10.{number}.0.0/16")).collect();
        format!("launch --trusted-subnets {}", subnets.join(","))
    };
    assert!(parse(&words(64)).is_ok());
    assert_eq!(usage_error(&words(65)), ErrorKind::TooManyValues);
    let twice = format!("{} --trusted-subnets fd00::/8", words(64));
    assert_eq!(usage_error(&twice), ErrorKind::TooManyValues, "however they are given");
}

#[test]
fn conditions_are_read() {
    assert_eq!("ready".parse(), Ok(Condition::Ready));
    assert_eq!("peers=3".parse(), Ok(Condition::Peers(3)));
    assert!("peers=-1".parse::<Condition>().is_err());
}

#[test]
fn a_vtep_has_a_default_port() {
    assert_eq!(vtep("192.0.2.9").unwrap().to_string(), "192.0.2.9:4789");
    assert_eq!(vtep("192.0.2.9:8472").unwrap().port(), 8472);
    assert_eq!(vtep("2001:db8::1").unwrap().to_string(), "[2001:db8::1]:4789");
    assert_eq!(vtep("[2001:db8::1]").unwrap().port(), 4789);
    assert_eq!(vtep("[2001:db8::1]:1").unwrap().port(), 1);
    assert!(vtep("239.1.1.1").is_err());
    assert!(vtep("node01").is_err());
}

#[test]
fn reclaim_after_is_a_number_with_a_unit() {
    for (text, seconds) in [("5s", 5), ("30s", 30), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)] {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for wrong in ["", "s", "30", "4s", "-5s", "1.5h", "24 h", "9999999999999999999d", "367d", "5é"] {
        assert!(duration(wrong).is_err(), "{wrong}");
    }
}
