//! Docker, as far as meshnet needs it: which process a container is, and when it starts and ends.

mod client;
mod events;

pub(crate) use client::{Container, Docker, DockerError};
pub(crate) use events::{Change, Events};
