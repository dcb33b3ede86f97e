//! The demo needs nothing that is installed, and leaves nothing.

use std::path::Path;

use netns_tests::{Result, Stopwatch, Tool, Topology, ensure, meshnet_binary, pause, secs, wait_for};

/// The demo, told to keep its files in `directory`, by which its processes can be told from all others too.
fn demo(directory: &Path) -> Result<Tool> {
    let tool = Tool::new(meshnet_binary()?.to_string_lossy()).args(["demo"]).limit(secs(90));
    Ok(tool.env("PATH", "/nonexistent").env("TMPDIR", directory.to_string_lossy()))
}

/// Processes and files of a demo in `directory`. Its namespaces have no names: they go with the processes.
fn traces(directory: &Path) -> Vec<String> {
    let entries =
        |path: &str| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mark = format!("TMPDIR={}", directory.display());
    let is_ours = |process: &std::path::PathBuf| {
        let environment = std::fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let processes = entries("/proc").filter(is_ours);
    processes.chain(entries(&directory.to_string_lossy())).map(|path| path.display().to_string()).collect()
}

#[test]
fn it_prints_its_table_and_leaves_nothing() -> Result<()> {
    let net = Topology::new("the demo")?;
    let clock = Stopwatch::start();
    let table = demo(net.directory())?.run()?;
    ensure!(clock.elapsed() < secs(60), "it took {:?}", clock.elapsed());
    ensure!(table.to_lowercase().contains("gbit/s"), "no table: {table}");
    ensure!(traces(net.directory()).is_empty(), "left behind: {:?}", traces(net.directory()));
    Ok(())
}

#[test]
fn ctrl_c_cleans_up() -> Result<()> {
    let net = Topology::new("the demo is interrupted")?;
    for moment in [0.2, 2.0, 5.0] {
        let running = demo(net.directory())?.start()?;
        pause(secs(moment));
        ensure!(!traces(net.directory()).is_empty(), "nothing runs");
        let outcome = running.interrupt()?;
        ensure!(outcome.code != Some(0), "an interrupted demo is no success");
        wait_for("everything is gone", secs(5), || traces(net.directory()).is_empty())?;
    }
    Ok(())
}

#[test]
fn it_runs_beside_a_daemon() -> Result<()> {
    let net = Topology::new("the demo where a daemon runs")?.hosts(2)?;
    net.host(0).launch(&[])?;
    let (web, db) = (net.host(0).attach("web")?, net.host(0).attach("db")?);
    let directory = net.directory().join("demo");
    std::fs::create_dir(&directory)?;
    demo(&directory)?.inside(net.host(0).namespace()).run()?;
    web.ping(&db)
}
