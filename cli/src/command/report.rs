//! `meshnet report`: one document with everything that may help to find a fault.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::{Format, ReportArgs};
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::kernel;
use crate::render;
use crate::shape::{Report, Reported};

pub(super) async fn run(client: &Client, args: &ReportArgs) -> Result<(), Failure> {
    let (daemon, failure, kernel) = match client.get::<Reported>("/report").await {
        Ok(Reported { daemon, kernel }) => (Some(daemon), None, kernel),
        // A daemon that does not start is worth a report too.
        Err(failure) if failure.code == code::NOT_RUNNING => {
            (None, Some(failure), kernel::facts(&args.state_dir))
        }
        Err(failure) => return Err(failure),
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        daemon,
        failure,
        kernel,
    };
    render::answer(Format::Json, &report, |_| String::new());
    Ok(())
}
