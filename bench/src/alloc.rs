//! An allocator that counts what each thread asks for: the proof that a path allocates nothing.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use nix::unistd::gettid;

/// Threads that are told apart, in the order in which they first allocated; later ones share the last place.
const THREADS: usize = 256;

/// What one thread asked for.
struct Count {
    /// Its id in the kernel, 0 while the place is free.
    thread: AtomicU32,
    allocations: AtomicU64,
}

static COUNTS: [Count; THREADS] =
    [const { Count { thread: AtomicU32::new(0), allocations: AtomicU64::new(0) } }; THREADS];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The place of this thread, `usize::MAX` before its first allocation. Constant and without a destructor, so
    /// that to reach it allocates nothing.
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The system's allocator, counting. Make it the `#[global_allocator]` of a test.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count() {
    // A thread that is ending has no place any more, and nothing to show.
    let _ = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(TAKEN.fetch_add(1, Ordering::Relaxed).min(THREADS - 1));
            COUNTS[place.get()].thread.store(gettid().as_raw().cast_unsigned(), Ordering::Relaxed);
        }
        COUNTS[place.get()].allocations.fetch_add(1, Ordering::Relaxed);
    });
}

/// How often this thread has allocated so far.
pub fn of_this_thread() -> u64 {
    let place = PLACE.with(Cell::get);
    COUNTS.get(place).map_or(0, |count| count.allocations.load(Ordering::Relaxed))
}

/// How often threads of this process have allocated so far whose names start so, each with its name. Threads that
/// have ended, or never allocated, are not among them.
pub fn of_threads(prefix: &str) -> Vec<(String, u64)> {
    let named = COUNTS.iter().filter_map(|count| {
        let thread = count.thread.load(Ordering::Relaxed);
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
        let name = name.trim_end().to_owned();
        name.starts_with(prefix)
            .then(|| (format!("{name} ({thread})"), count.allocations.load(Ordering::Relaxed)))
    });
    named.collect()
}
