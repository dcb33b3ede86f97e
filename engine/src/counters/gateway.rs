//! What the gateway of this host did.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the counters once: field, meaning.
macro_rules! gateway_counters {
    ($($(#[$doc:meta])+ $field:ident,)+) => {
        /// Counters of the gateway. The gateway's thread writes them, anybody may read them.
        #[derive(Default, Debug)]
        pub struct GatewayCounters {
            $($(#[$doc])+ pub(crate) $field: AtomicU64,)+
        }

        /// What the gateway counted until some moment.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct GatewayTotals {
            $($(#[$doc])+ pub $field: u64,)+
        }

        impl GatewayCounters {
            /// The counters as they stand.
            pub fn totals(&self) -> GatewayTotals {
                GatewayTotals { $($field: self.$field.load(Ordering::Relaxed),)+ }
            }
        }

        impl GatewayTotals {
            /// All of them by name, in order.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }
        }
    };
}

gateway_counters! {
    /// Echo requests answered.
    pings,
    /// DNS questions that came.
    questions,
    /// Questions answered with records from the tables, or with none of the type asked for.
    answered,
    /// Questions for names that do not exist.
    nxdomain,
    /// Questions refused, not understood, or failed.
    refused,
    /// Questions for other names, told to who forwards.
    forwarded,
    /// Answers of others that were passed on.
    passed_on,
    /// Questions that nobody answered in time.
    unanswered,
    /// Answers that did not fit and said so.
    truncated,
    /// TCP connections.
    streams,
    /// How often the gateway failed and began anew.
    restarts,
}

/// Counts one.
pub(crate) fn count(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_told_by_its_name() {
        let counters = GatewayCounters::default();
        count(&counters.questions);
        count(&counters.restarts);
        let told: Vec<_> = counters.totals().named().filter(|(_, count)| *count > 0).collect();
        assert_eq!(told, [("questions", 1), ("restarts", 1)]);
        assert_eq!(counters.totals().named().count(), 11);
    }
}
