//! The micro-benchmarks against the clock: `cargo bench -p bench`. `scale` counts their instructions.

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for case in bench::cases::ALL {
        match (case.make)() {
            Ok(mut work) => {
                criterion.bench_function(case.name, |bencher| bencher.iter(&mut work));
            }
            Err(error) => panic!("{}: {error:#}", case.name),
        }
    }
    criterion.final_summary();
}
