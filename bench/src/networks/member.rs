//! A host with endpoints and without containers: the control plane as a library, in a namespace of its own.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use engine::types::{MacAddr, PortId};
use peering::io::{Peering, PeeringConfig};
use peering::mesh::{AllocRequest, DEFAULT_DATA_PORT, DEFAULT_PORT, Endpoint, NetworkView, Target};
use peering::records::Encryption;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Networks that are filled at once.
const AT_ONCE: usize = 8;
/// How long it may take to hear of all networks, or to get one address.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether all networks are known.
const LOOK: Duration = Duration::from_millis(50);

/// What a member is to have.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name for people.
    pub nickname: String,
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// Its address.
    pub address: IpAddr,
    /// The host that it is told of.
    pub target: IpAddr,
    /// The names of its networks, each with the names of its endpoints there.
    pub endpoints: Vec<(String, Vec<String>)>,
}

/// What became of it.
pub type Filled = Result<Duration>;

/// Joins, makes all endpoints, tells how long that took, and stays until the other end of `leave` is dropped. To be called inside the
/// namespace.
pub fn run(plan: Plan, told: &Sender<Filled>, leave: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let filled = match runtime {
        Ok(runtime) => return runtime.block_on(stay(plan, told, leave)),
        Err(error) => Err(error.into()),
    };
    let _nobody_waits = told.send(filled);
}

async fn stay(plan: Plan, told: &Sender<Filled>, leave: oneshot::Receiver<()>) {
    let (peering, mut events) = match Peering::start(config(&plan)).await {
        Ok(started) => started,
        Err(error) => return drop(told.send(Err(error.into()))),
    };
    // What a data plane would do with them is nothing here.
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let _nobody_waits = told.send(fill(&peering, plan).await);
    let _dropped = leave.await;
    peering.stop().await;
}

/// Every endpoint gets its address as an attached one does, and is then told to all.
async fn fill(peering: &Peering, plan: Plan) -> Filled {
    let networks = known(peering, &plan).await?;
    let start = Instant::now();
    let mut work = networks.into_iter().zip(plan.endpoints.into_iter().map(|(_, names)| names));
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((network, names)) = work.next()
        {
            running.spawn(fill_network(peering.clone(), Arc::new(network), names));
        }
        match running.join_next().await {
            Some(result) => result??,
            None => return Ok(start.elapsed()),
        }
    }
}

/// The networks of the plan, as soon as all are known.
async fn known(peering: &Peering, plan: &Plan) -> Result<Vec<NetworkView>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = peering.networks().await;
        let find = |name: &String| all.iter().find(|view| view.name == *name && view.founded).cloned();
        let found: Option<Vec<NetworkView>> = plan.endpoints.iter().map(|(name, _)| find(name)).collect();
        match found {
            Some(found) => return Ok(found),
            None => ensure!(Instant::now() < deadline, "{} does not hear of all networks", plan.nickname),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn fill_network(peering: Peering, network: Arc<NetworkView>, names: Vec<String>) -> Result<()> {
    peering.use_network(network.id, true).await?;
    for name in names {
        let port = PortId(rand::random());
        let ask = AllocRequest {
            port,
            network: network.id,
            holder: name.clone(),
            wanted: Vec::new(),
            without_ipv6: false,
        };
        let addresses = tokio::time::timeout(PATIENCE, peering.allocate(ask)).await;
        let addresses = addresses.map_err(|_| anyhow!("no address for {name} on {}", network.name))?;
        let addresses = addresses.with_context(|| format!("{name} on {}", network.name))?;
        let [a, b, c, d, e, f, ..] = port.0;
        let endpoint = Endpoint {
            port,
            network: network.id,
            container: format!("netns:{name}"),
            name,
            aliases: Vec::new(),
            mac: MacAddr::local([a, b, c, d, e, f]),
            addresses,
            ifname: "mesh0".to_owned(),
            running: true,
            docker_id: None,
            explicit: false,
        };
        peering.put_endpoint(endpoint).await;
    }
    Ok(())
}

fn config(plan: &Plan) -> PeeringConfig {
    PeeringConfig {
        state_dir: plan.state_dir.clone(),
        nickname: plan.nickname.clone(),
        listen: Some(plan.address),
        port: DEFAULT_PORT,
        data_port: DEFAULT_DATA_PORT,
        advertise_addr: None,
        data_addr: None,
        targets: vec![Target { host: plan.target.to_string(), port: DEFAULT_PORT }],
        range: None,
        reclaim_after: None,
        discovery: true,
        found: false,
        mtu: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        secret: None,
        allowed: None,
        encryption: Encryption::Auto,
        suites: Vec::new(),
        trusted: Vec::new(),
    }
}
