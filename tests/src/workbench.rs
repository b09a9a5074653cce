//! The interactive lab: `up` makes it, `pod add`, `pod remove` and `exec` use it, `down` removes it. It stays until then,
//! whatever happens to the terminal.
//!
//! Pods resolve each other by name: a command runs with a hosts file of the lab, in a mount namespace of its own.
//! Neighbours: `lab` makes everything; `src/bin/sinew-lab.rs` is the command line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sinew_api::names;

use crate::lab::pod::PodRecord;
use crate::lab::store::PodObject;
use crate::lab::{Family, Lab, Place, Routing, Topology, binaries, folder_of, sweep};

/// The lab that is meant where none is named.
pub const USUAL: &str = "up";

/// How long each agent may take. A person can wait longer than a test, and sees what is awaited.
const PATIENCE: Duration = Duration::from_secs(90);

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
    /// Its namespace. Outside of `default` the lab calls the pod NAME.NAMESPACE.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// A port with a name, as name=8080/TCP; TCP if no protocol is given. Repeatable.
    #[arg(long = "port", value_name = "NAME=PORT[/PROTO]", value_parser = named_port)]
    ports: Vec<(String, u16, String)>,
    /// What runs in it; without it a server that answers TCP 80 and UDP 53.
    #[arg(last = true)]
    command: Vec<String>,
}

/// What `namespace` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct NamespaceArguments {
    /// The namespace's name.
    name: String,
    /// Its labels, as key=value,key=value; those that it had go.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
}

/// Makes a lab and prints how to use it.
///
/// # Errors
/// There is one, or it cannot be made.
pub fn up(id: &str, arguments: &UpArguments) -> Result<()> {
    let lab_command = lab_command(id);
    ensure!(!folder_of(id).exists(), "lab {id} is up already: `{lab_command} down` removes it");
    let topology =
        if arguments.routed { Topology::Routed(arguments.nodes) } else { Topology::Wire(arguments.nodes) };
    let mut builder = Lab::build(topology).id(id).routing(arguments.routing);
    for argument in &arguments.agent_argument {
        builder = builder.agent_argument(argument);
    }
    let lab = builder.tell(tell).patience(PATIENCE).start()?;
    sweep::disown(id)?;
    lab.keep();
    lab.nodes().for_each(|node| node.release_agent());
    let mut out = io::stdout().lock();
    writeln!(out, "The lab is up. It stays until `{lab_command} down`. Lines to paste:\n")?;
    let programs = binaries::find("sinew")?;
    let programs = programs.parent().context("binaries lie in a folder")?.display();
    writeln!(out, "  export PATH={programs}:$PATH")?;
    for node in lab.nodes() {
        let socket = node.directories().run.join("agent.sock");
        writeln!(out, "  alias sinew-{}='SINEW_AGENT_SOCKET={} sinew'", node.name(), socket.display())?;
    }
    let last = lab.nodes().last().context("a lab has a node")?.name();
    writeln!(out, "  {lab_command} pod add server --node {last} --labels app=server")?;
    writeln!(out, "  {lab_command} pod add client --node a --labels app=client -- sleep infinity")?;
    writeln!(out, "  {lab_command} exec client -- curl -s http://server/")?;
    writeln!(out, "  sinew-{last} observe --follow")?;
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

/// How a lab is called on the command line.
fn lab_command(id: &str) -> String {
    if id == USUAL { "cargo xtask lab".to_owned() } else { format!("cargo xtask lab --lab {id}") }
}

/// What is being waited for, beside what the command prints at its end.
fn tell(line: &str) {
    // Whoever has closed it does not want to know.
    writeln!(io::stderr(), "{line}").ok();
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
    let pods = lab.pods();
    let machines = lab.nodes().map(|node| node.name()).chain([lab.outside().name()]);
    refuse(arguments, pods.iter().map(|pod| pod.record()), machines)?;
    let pod = node.pod_of(&PodObject {
        namespace: arguments.namespace.clone(),
        name: arguments.name.clone(),
        uid: fresh_uid()?,
        labels: labels(&arguments.labels)?,
        node: node.name().to_owned(),
        ports: arguments.ports.clone(),
    })?;
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

/// Takes a pod from its node, with what runs in it.
///
/// # Errors
/// There is no such pod, or DEL failed.
pub fn remove_pod(id: &str, name: &str) -> Result<()> {
    let lab = Lab::attach(id)?;
    let pods = lab.pods();
    let pod = pods.iter().find(|pod| pod.name() == name).with_context(|| {
        let names: Vec<_> = pods.iter().map(|pod| pod.name()).collect();
        format!("there is no pod {name}; there are: {}", names.join(", "))
    })?;
    let node = lab.node(&pod.record().node);
    sweep::end_processes([pod.netns().path()])?;
    node.remove_pod(name)?;
    write_hosts(&lab)?;
    writeln!(io::stdout(), "pod {name} is gone from node {}", node.name())?;
    Ok(())
}

/// A pod that is made anew under its name is another one, as in Kubernetes.
fn fresh_uid() -> Result<String> {
    let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("asking the kernel for a UUID")?;
    Ok(uid.trim().to_owned())
}

/// Refuses what Kubernetes would refuse, and names that another pod or a machine has.
fn refuse<'a>(
    arguments: &PodArguments,
    pods: impl IntoIterator<Item = &'a PodRecord>,
    machines: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let PodArguments { name, namespace, .. } = arguments;
    // Kubernetes lets pods have dots in their names; the lab's own names end at the first one.
    for (what, text) in [("pod name", name), ("namespace", namespace)] {
        names::dns_label(text).map_err(|wrong| anyhow::anyhow!("{what}: {wrong}"))?;
    }
    let mut pods = pods.into_iter();
    if let Some(pod) = pods.find(|pod| pod.namespace == *namespace && pod.pod_name == *name) {
        bail!("there is a pod {namespace}/{name} already, on node {}", pod.node);
    }
    if let Some(machine) = machines.into_iter().find(|machine| namespace == "default" && machine == name) {
        bail!("{machine} is the name of a machine of the lab, which `exec` would not find any more");
    }
    Ok(())
}

/// Writes a namespace with its labels.
///
/// # Errors
/// There is no such lab, or the object can't be written.
pub fn label_namespace(id: &str, arguments: &NamespaceArguments) -> Result<()> {
    let lab = Lab::attach(id)?;
    let object = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": arguments.name, "labels": labels(&arguments.labels)?},
    });
    // JSON is YAML.
    lab.store().write(&format!("namespaces/{}", arguments.name), &object.to_string())?;
    writeln!(io::stdout(), "{}", lab.store().file(&format!("namespaces/{}", arguments.name)).display())?;
    Ok(())
}

/// `key=value` each.
fn labels(written: &[String]) -> Result<BTreeMap<String, String>> {
    let label = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("label {text:?} is no key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    written.iter().map(label).collect()
}

/// `http=8080/TCP`.
fn named_port(text: &str) -> Result<(String, u16, String), String> {
    let wrong = || format!("{text:?} is no NAME=PORT[/PROTO]");
    let (name, rest) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let (port, protocol) = rest.split_once('/').unwrap_or((rest, "TCP"));
    names::port_name(name).map_err(|wrong| format!("port name: {wrong}"))?;
    let number: u64 = port.parse().map_err(|_| wrong())?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{number} is no port: ports go from 1 to 65535"))?;
    let protocol = ["TCP", "UDP", "SCTP"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol));
    Ok((name.to_owned(), port, protocol.ok_or_else(wrong)?.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_with_names() {
        let port = |name: &str, port, protocol: &str| Ok((name.to_owned(), port, protocol.to_owned()));
        assert_eq!(named_port("http=8080/TCP"), port("http", 8080, "TCP"));
        assert_eq!(named_port("dns=53/udp"), port("dns", 53, "UDP"));
        assert_eq!(named_port("http=80"), port("http", 80, "TCP"));
        for wrong in ["8080", "=80", "http=0", "http=70000", "http=80/ICMP", "http="] {
            assert!(named_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_out_of_range_is_told_as_that() {
        for text in ["http=70000", "http=0/UDP"] {
            let error = named_port(text).unwrap_err();
            assert!(error.ends_with("is no port: ports go from 1 to 65535"), "{error}");
        }
        assert!(named_port("ht_tp=80").unwrap_err().starts_with("port name: "));
    }

    #[test]
    fn a_lab_of_another_name_is_called_by_it() {
        assert_eq!(lab_command(USUAL), "cargo xtask lab");
        assert_eq!(lab_command("two"), "cargo xtask lab --lab two");
    }

    #[test]
    fn names_that_are_taken_or_that_kubernetes_refuses() {
        let there = PodRecord {
            name: "web".into(),
            namespace: "default".into(),
            pod_name: "web".into(),
            uid: "uid-of-web".into(),
            labels: BTreeMap::new(),
            node: "b".into(),
            container_id: String::new(),
            v4: None,
            v6: None,
        };
        let refused = |namespace: &str, name: &str| {
            let arguments = PodArguments {
                name: name.into(),
                node: "a".into(),
                labels: Vec::new(),
                namespace: namespace.into(),
                ports: Vec::new(),
                command: Vec::new(),
            };
            refuse(&arguments, [&there], ["a", "outside"]).err().map(|error| error.to_string())
        };
        assert_eq!(
            refused("default", "web").as_deref(),
            Some("there is a pod default/web already, on node b")
        );
        for (namespace, name) in [("shop", "web"), ("default", "web-2"), ("shop", "outside")] {
            assert_eq!(refused(namespace, name), None);
        }
        for (namespace, name) in
            [("default", "Web"), ("default", "we_b"), ("default", "../x"), ("default", ""), ("Shop", "web")]
        {
            assert!(refused(namespace, name).is_some(), "{namespace}/{name}");
        }
        assert!(refused("default", "outside").unwrap().starts_with("outside is the name of a machine"));
    }
}
