//! Random schedules of faults, and the laws that must hold in each of them.

#![allow(unreachable_pub, reason = "one test file uses it")]

mod clones;
mod laws;
mod plan;
mod run;
mod shrink;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::Plan;
pub use shrink::shrink;

thread_local! {
    /// What the last panic of this thread said.
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Carries a plan out. The error says which law was broken.
///
/// # Errors
/// The words of the panic.
pub fn carry_out(plan: &Plan) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run::run(plan))).map_err(|_| LAST_WORDS.take())
}

/// Keeps what a panic says for [`carry_out`], instead of printing it.
pub fn catch_last_words() {
    std::panic::set_hook(Box::new(|panic| LAST_WORDS.set(panic.to_string())));
}
