//! A lab for a person: `up` makes it, `pod add` and `exec` use it, `down` removes it. It stands until then, whatever
//! happens to the terminal.
//!
//! Pods know each other by name: a command runs with a hosts file of the lab, in a mount namespace of its own.
//! Neighbours: `lab` makes everything; `src/bin/sinew-lab.rs` is the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::lab::{Family, Lab, Place, Routing, Topology, binaries, folder_of, sweep};

/// What `up` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArguments {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=26))]
    nodes: u8,
    /// A router between the nodes, instead of one wire.
    #[arg(long)]
    routed: bool,
    /// How packets get from node to node.
    #[arg(long, value_enum, default_value = "native")]
    routing: Routing,
    /// One more word for every agent.
    #[arg(long, allow_hyphen_values = true)]
    agent_argument: Vec<String>,
}

/// What `pod add` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct PodArguments {
    /// The pod's name.
    name: String,
    /// Its node: `a`, `b`, …
    #[arg(long)]
    node: String,
    /// Its labels, as key=value,key=value.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// What runs in it; without it a server that answers TCP 80 and UDP 53.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Makes a lab and prints how to use it.
///
/// # Errors
/// There is one, or it cannot be made.
pub fn up(id: &str, arguments: &UpArguments) -> Result<()> {
    ensure!(!folder_of(id).exists(), "lab {id} is up already: `cargo xtask lab down` removes it");
    let topology =
        if arguments.routed { Topology::Routed(arguments.nodes) } else { Topology::Wire(arguments.nodes) };
    let mut builder = Lab::build(topology).id(id).routing(arguments.routing);
    for argument in &arguments.agent_argument {
        builder = builder.agent_argument(argument);
    }
    let lab = builder.start()?;
    sweep::disown(id)?;
    lab.keep();
    lab.nodes().for_each(|node| node.release_agent());
    let mut out = io::stdout().lock();
    writeln!(out, "The lab is up. It stays until `cargo xtask lab down`. Lines to paste:\n")?;
    let programs = binaries::find("sinew")?;
    let programs = programs.parent().context("binaries lie in a folder")?.display();
    writeln!(out, "  export PATH={programs}:$PATH")?;
    for node in lab.nodes() {
        let socket = node.directories().run.join("agent.sock");
        writeln!(out, "  alias sinew-{}='SINEW_AGENT_SOCKET={} sinew'", node.name(), socket.display())?;
    }
    writeln!(out, "  cargo xtask lab pod add server --node b --labels app=server")?;
    writeln!(out, "  cargo xtask lab pod add client --node a --labels app=client -- sleep infinity")?;
    writeln!(out, "  cargo xtask lab exec client -- curl -s http://server/")?;
    writeln!(out, "  sinew-b observe --follow")?;
    writeln!(out, "\nObjects (policies, namespaces): {}", lab.store().folder().display())?;
    for node in lab.nodes() {
        writeln!(
            out,
            "Node {}: {}   log: {}",
            node.name(),
            node.netns().enter_line(),
            node.agent_log().display()
        )?;
    }
    writeln!(out, "Outside host: {}", lab.outside().netns().enter_line())?;
    Ok(())
}

/// Puts a pod on a node and starts what runs in it.
///
/// # Errors
/// The pod was refused, or its command cannot be started.
pub fn add_pod(id: &str, arguments: &PodArguments) -> Result<()> {
    let lab = Lab::attach(id)?;
    let node = lab.nodes().find(|node| node.name() == arguments.node);
    let names = || lab.nodes().map(|node| node.name().to_owned()).collect::<Vec<_>>().join(", ");
    let node =
        node.with_context(|| format!("there is no node {}; there are: {}", arguments.node, names()))?;
    let labels: BTreeMap<&str, &str> = arguments
        .labels
        .iter()
        .map(|label| label.split_once('=').with_context(|| format!("label {label:?} is no key=value")))
        .collect::<Result<_>>()?;
    let labels: Vec<(&str, &str)> = labels.into_iter().collect();
    let pod = node.pod(&arguments.name, &labels)?;
    write_hosts(&lab)?;
    let command = if arguments.command.is_empty() {
        let probe = binaries::find("sinew-probe")?.display().to_string();
        let words = ["serve", "--name", &arguments.name, "--tcp", "80", "--udp", "53"];
        std::iter::once(probe.as_str()).chain(words).map(str::to_owned).collect()
    } else {
        arguments.command.clone()
    };
    let log = node.directories().notes.join(format!("{}.log", pod.name()));
    let file = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
    let errors = file.try_clone().context("a second handle of the log")?;
    let mut process = inside(&lab, &pod, &command);
    process.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
    process.spawn().with_context(|| format!("starting {}", command.join(" ")))?;
    let addresses = Family::BOTH.into_iter().filter_map(|family| pod.find_address(family));
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    writeln!(
        io::stdout(),
        "{} on node {}: {}   log: {}",
        pod.name(),
        node.name(),
        addresses.join(" "),
        log.display()
    )?;
    Ok(())
}

/// Replaces this process by a command in a pod, on a node or on the outside host.
///
/// # Errors
/// There is no such place, or the command cannot be started.
pub fn exec(id: &str, place: &str, command: &[String]) -> Result<()> {
    let lab = Lab::attach(id)?;
    write_hosts(&lab)?;
    let pods = lab.pods();
    let nodes: Vec<_> = lab.nodes().collect();
    let places = pods.iter().map(|pod| &***pod).chain(nodes.iter().map(|node| &****node));
    let mut places: Vec<&Place> = places.collect();
    places.push(lab.outside());
    let Some(found) = places.iter().find(|candidate| candidate.name() == place) else {
        let names: Vec<&str> = places.iter().map(|place| place.name()).collect();
        bail!("there is no {place}; there are: {}", names.join(", "));
    };
    let shell = ["bash".to_owned()];
    let command = if command.is_empty() { &shell[..] } else { command };
    Err(inside(&lab, found, command).exec()).with_context(|| format!("starting {}", command.join(" ")))
}

/// Removes a lab.
///
/// # Errors
/// There is none, or something of it resists.
pub fn down(id: &str) -> Result<()> {
    ensure!(folder_of(id).exists(), "there is no lab {id}");
    sweep::remove(id)?;
    writeln!(io::stdout(), "lab {id} is gone")?;
    Ok(())
}

/// A command in a place, with the lab's hosts file over the machine's.
fn inside(lab: &Lab, place: &Place, words: &[String]) -> Command {
    let mut command = place.command("unshare");
    command.args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(hosts_file(lab.id())).args(words);
    command
}

fn write_hosts(lab: &Lab) -> Result<()> {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
    let mut add = |place: &Place| -> Result<()> {
        for address in Family::BOTH.into_iter().filter_map(|family| place.find_address(family)) {
            writeln!(text, "{address} {}", place.name())?;
        }
        Ok(())
    };
    lab.pods().iter().try_for_each(|pod| add(pod))?;
    lab.nodes().try_for_each(|node| add(node))?;
    add(lab.outside())?;
    // In place, not renamed: what runs in pods has this file mounted and sees new names.
    fs::write(hosts_file(lab.id()), text).context("writing the lab's hosts file")
}

fn hosts_file(id: &str) -> std::path::PathBuf {
    Path::new(&folder_of(id)).join("hosts")
}
