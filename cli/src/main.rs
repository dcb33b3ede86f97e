//! `meshnet`: one flat network for the containers of several hosts.

mod allowed;
mod args;
mod capture;
mod client;
mod command;
mod daemon;
mod demo;
mod docker;
mod failure;
mod http;
mod kernel;
mod log;
mod render;
mod resolver;
mod secret;
mod shape;
mod spec;

use std::ffi::OsStr;
use std::process::ExitCode;

use crate::args::{Cli, Format};
use crate::failure::{Failure, code};

/// The command line made no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = cli.common.output;
    match command::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            render::failure(&failure, format);
            ExitCode::FAILURE
        }
    }
}

/// Help and version go to standard output and are no errors; all else is bad usage.
fn usage(error: &clap::Error) -> ExitCode {
    let wants_json = error.use_stderr() && asks_for_json(std::env::args_os().skip(1));
    if wants_json {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        render::failure(&Failure::new(code::BAD_USAGE, line).hint("see `meshnet --help`"), Format::Json);
    } else {
        // Nothing is left to be told when even this cannot be written.
        let _ = error.print();
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Whether words that could not be understood still say how errors are to be printed.
fn asks_for_json(words: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    let words: Vec<String> = words.map(|w| w.as_ref().to_string_lossy().into_owned()).collect();
    let joined = words.iter().any(|w| matches!(w.as_str(), "-ojson" | "-o=json" | "--output=json"));
    joined || words.windows(2).any(|w| matches!(w[0].as_str(), "-o" | "--output") && w[1] == "json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_for_json_is_seen_in_any_words() {
        let asks = |words: &str| asks_for_json(words.split(' '));
        assert!(asks("atach -o json") && asks("--output=json x") && asks("-ojson"));
        assert!(!asks("attach json -o text"));
    }
}
