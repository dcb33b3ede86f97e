//! The last things worth telling people, for `status`.

use std::collections::VecDeque;
use std::time::Instant;

use super::{EventStatus, MeshEvent};

/// So many are kept.
const LENGTH: usize = 64;

/// What happened lately, oldest first.
#[derive(Default)]
pub(super) struct Journal {
    entries: VecDeque<(Instant, &'static str, String)>,
}

impl Journal {
    /// Notes something that happened and hands it back as an event.
    pub(super) fn note(&mut self, now: Instant, kind: &'static str, message: String) -> MeshEvent {
        if self.entries.len() == LENGTH {
            self.entries.pop_front();
        }
        self.entries.push_back((now, kind, message.clone()));
        MeshEvent::Notice { kind, message }
    }

    /// For `status`.
    pub(super) fn status(&self, now: Instant) -> Vec<EventStatus> {
        let entries = self.entries.iter();
        entries
            .map(|(at, kind, message)| EventStatus {
                kind: (*kind).to_owned(),
                message: message.clone(),
                age_s: now.saturating_duration_since(*at).as_secs_f64(),
            })
            .collect()
    }
}
