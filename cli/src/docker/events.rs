//! Docker's stream of events: one JSON object per line, for as long as Docker runs.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

/// A line longer than this is nothing Docker writes; the stream ends there.
const LONGEST_LINE_BYTES: usize = 1 << 20;

/// A container started, died, was removed, or came to or left a network of Docker: look at it.
///
/// Which of these is not told, since by the time it is read another may have followed: the container's
/// present state decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// The full id of the container.
    pub(crate) id: String,
}

/// The stream, until Docker closes it.
pub(crate) struct Events {
    body: Incoming,
    pending: Vec<u8>,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Self {
        Events { body, pending: Vec::new() }
    }

    /// The next change; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Change> {
        loop {
            while let Some(line) = self.line() {
                if let Some(change) = parse(&line) {
                    return Some(change);
                }
            }
            if self.pending.len() > LONGEST_LINE_BYTES {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.pending.extend_from_slice(&data);
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.iter().position(|&b| b == b'\n')?;
        Some(self.pending.drain(..=end).collect())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    r#type: String,
    action: String,
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: Attributes,
}

/// What happens to a network tells the container here.
#[derive(Default, Deserialize)]
struct Attributes {
    container: Option<String>,
}

fn parse(line: &[u8]) -> Option<Change> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let id = match (line.r#type.as_str(), line.action.as_str()) {
        ("container", "start" | "die" | "destroy") => line.actor.id,
        ("network", "connect" | "disconnect") => line.actor.attributes.container?,
        _ => return None,
    };
    Some(Change { id })
}
