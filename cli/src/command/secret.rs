//! `meshnet secret generate`: what closes a cluster.

use std::path::PathBuf;

use crate::args::Format;
use crate::failure::Failure;
use crate::render;
use crate::secret;
use crate::shape::Generated;

pub(super) fn generate(format: Format, file: Option<PathBuf>) -> Result<(), Failure> {
    let made = secret::generate()?;
    let secret = match &file {
        Some(file) => {
            secret::write(&made, file)?;
            None
        }
        None => Some(made.text().to_string()),
    };
    render::answer(format, &Generated { file, secret }, |done| {
        done.secret.as_ref().map_or_else(String::new, |secret| format!("{secret}\n"))
    });
    Ok(())
}
