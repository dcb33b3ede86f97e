//! The demo needs nothing that is installed, and leaves nothing.

use std::collections::BTreeSet;

use netns_tests::{Result, Stopwatch, Tool, Topology, ensure, meshnet_binary, pause, secs, wait_for};

fn demo(args: &str) -> Result<Tool> {
    let tool = Tool::new(meshnet_binary()?.to_string_lossy()).words("demo").words(args);
    Ok(tool.env("PATH", "/nonexistent").limit(secs(90)))
}

/// Everything with a name that a demo might leave on the machine.
fn traces() -> BTreeSet<String> {
    let list = |directory: &str| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let namespaces = list("/run/netns").map(|entry| entry.path());
    let temporary = list("/tmp").map(|entry| entry.path());
    let all = namespaces.chain(temporary).map(|path| path.display().to_string());
    // Other tests come and go meanwhile.
    all.filter(|path| path.contains("meshnet") || path.contains("demo")).collect()
}

#[test]
fn it_prints_its_table_and_leaves_nothing() -> Result<()> {
    let _root = Topology::new("the demo")?;
    let before = traces();
    let clock = Stopwatch::start();
    let table = demo("")?.run()?;
    ensure!(clock.elapsed() < secs(60), "it took {:?}", clock.elapsed());
    ensure!(table.to_lowercase().contains("gbit/s"), "no table: {table}");
    ensure!(traces() == before, "left behind: {:?}", traces().difference(&before).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn ctrl_c_cleans_up() -> Result<()> {
    let _root = Topology::new("the demo is interrupted")?;
    let before = traces();
    let running = demo("")?.start()?;
    pause(secs(2));
    let outcome = running.interrupt()?;
    ensure!(outcome.code != Some(0), "an interrupted demo is no success");
    wait_for("everything is gone", secs(5), || traces() == before).map(drop)
}
