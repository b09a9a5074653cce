//! A node: its place, its agent's process and directories, and its pods.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use super::cni::{Answer, Call};
use super::netns::Netns;
use super::pod::{Pod, PodRecord};
use super::process::{self, Running, output_with, wait_until};
use super::store::{PodObject, Store};
use super::topology::{CLUSTER_CIDRS, Topology, UNDERLAY};
use super::{Family, Place, Plan, Routing, binaries, pins_of};

/// Time between two words on an agent that is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Where a node's agent keeps things.
#[derive(Clone, Debug)]
pub struct Directories {
    /// `--run-dir`.
    pub run: PathBuf,
    /// `--state-dir`.
    pub state: PathBuf,
    /// `--bpf-root`.
    pub bpf_root: PathBuf,
    /// Logs, and what the lab itself notes of the node.
    pub notes: PathBuf,
}

/// A node of the lab.
#[derive(Debug)]
pub struct Node {
    place: Place,
    number: u8,
    lab: String,
    plan: Plan,
    store: Store,
    directories: Directories,
    agent: Mutex<Option<Running>>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
}

impl Node {
    pub(super) fn new(lab: &str, number: u8, plan: &Plan, folder: &Path, store: Store) -> Self {
        let name = char::from(b'a' + number).to_string();
        let addresses = plan.topology.node(number);
        let own = folder.join(&name);
        let directories = Directories {
            run: own.join("run"),
            state: own.join("state"),
            bpf_root: pins_of(lab),
            notes: own.join("notes"),
        };
        Self {
            place: Place::new(&name, Netns::named(lab, &name), plan.v4(addresses), plan.v6(addresses)),
            number,
            lab: lab.to_owned(),
            plan: plan.clone(),
            store,
            directories,
            agent: Mutex::new(None),
            pods: Mutex::new(BTreeMap::new()),
        }
    }

    /// 0 for node `a`, 1 for `b`, …
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its agent's directories.
    #[must_use]
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// Starts its agent and does not wait for it.
    ///
    /// # Errors
    /// It runs already, or cannot be started.
    pub fn start_agent(&self) -> Result<()> {
        self.start_agent_from(&binaries::find("sinew-agent")?)
    }

    /// Starts another build of the agent.
    ///
    /// # Errors
    /// As [`Node::start_agent`].
    pub fn start_agent_from(&self, program: &Path) -> Result<()> {
        let mut agent = self.lock_agent();
        ensure!(agent.is_none(), "the agent of node {} runs already", self.name());
        for folder in [&self.directories.run, &self.directories.state, &self.directories.notes] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let running = Running::start(&mut self.agent_command(program), &self.agent_log())?;
        fs::write(self.directories.notes.join("agent.pid"), running.pid().to_string())
            .context("noting the agent's process id")?;
        *agent = Some(running);
        Ok(())
    }

    /// Starts a build of the agent that is stopped before its first instruction, to be traced from there on; its
    /// tracer, or SIGCONT, lets it go.
    ///
    /// # Errors
    /// As [`Node::start_agent`].
    pub fn start_agent_held(&self, program: &Path) -> Result<()> {
        let script = self.directories.notes.join("held-agent");
        let text = format!("#!/bin/sh\nkill -STOP $$\nexec '{}' \"$@\"\n", program.display());
        fs::write(&script, text).context("writing the script that holds the agent")?;
        fs::set_permissions(&script, Permissions::from_mode(0o755)).context("making the script a program")?;
        self.start_agent_from(&script)?;
        process::wait_stopped(self.agent_pid().context("an agent that was just started")?)
    }

    /// The agent's command line.
    #[must_use]
    pub fn agent_command(&self, program: &Path) -> Command {
        let mut command = self.place.netns().command(program);
        command.args(["--node-name", self.name(), "--cluster-name", "lab"]);
        command.arg("--store").arg(format!("folder:{}", self.store.folder().display()));
        command.arg("--state-dir").arg(&self.directories.state);
        command.arg("--run-dir").arg(&self.directories.run);
        command.arg("--bpf-root").arg(&self.directories.bpf_root);
        for (family, cluster) in Family::BOTH.into_iter().zip(CLUSTER_CIDRS) {
            if self.plan.families.contains(&family) {
                let mut pool = Topology::pool(self.number, family);
                if self.plan.small_pools && family == Family::V4 {
                    pool = pool.replace("/24", "/29");
                }
                command.args(["--pod-cidr", &pool, "--cluster-cidr", cluster]);
                command.args(["--node-ip", &self.address(family).to_string()]);
            }
        }
        let routing = match self.plan.routing {
            Routing::Native => "native",
            Routing::Vxlan => "vxlan",
        };
        command.args(["--underlay", UNDERLAY, "--routing", routing]).args(&self.plan.agent_arguments);
        command
    }

    /// Waits until the agent says that it can serve an ADD.
    ///
    /// # Errors
    /// It died, or the time is over; the error ends with its log.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.wait_ready_telling(limit, |_| ())
    }

    /// The same, reporting every few seconds what the agent answers instead.
    ///
    /// # Errors
    /// As [`Node::wait_ready`].
    pub fn wait_ready_telling(&self, limit: Duration, tell: fn(&str)) -> Result<()> {
        let start = Instant::now();
        let mut told = Duration::ZERO;
        let mut answer = "it was not asked".to_owned();
        let ready = wait_until(&format!("the agent of node {}", self.name()), limit, || {
            let mut agent = self.lock_agent();
            ensure!(
                agent.as_mut().is_none_or(|agent| agent.is_running().unwrap_or(false)),
                "the agent of node {} ended by itself",
                self.name()
            );
            drop(agent);
            let status = self.cni(&Call::new("STATUS", "", self.place.netns()))?;
            answer = status.message();
            if !status.success && start.elapsed() - told >= TELL_EVERY {
                told = start.elapsed();
                tell(&format!("node {} is not ready after {} s: {answer}", self.name(), told.as_secs()));
            }
            Ok(status.success)
        });
        ready.map_err(|error| {
            let log = process::tail(&self.agent_log(), 30);
            let log = if log.is_empty() { "is empty".to_owned() } else { format!("ends with:\n{log}") };
            anyhow!("{error:#}; CNI STATUS last said: {answer}\nits log {log}")
        })
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_agent(&self) -> Result<()> {
        let mut agent = self.lock_agent();
        agent.as_mut().with_context(|| format!("no agent runs on node {}", self.name()))?.kill()?;
        *agent = None;
        Ok(())
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not run, or not end.
    pub fn stop_agent(&self) -> Result<()> {
        let mut agent = self.lock_agent();
        let running = agent.as_mut().with_context(|| format!("no agent runs on node {}", self.name()))?;
        running.signal(Signal::SIGTERM)?;
        running.wait(Duration::from_secs(10))?;
        *agent = None;
        Ok(())
    }

    /// Sends the agent a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_agent(&self, signal: Signal) -> Result<()> {
        self.lock_agent()
            .as_ref()
            .with_context(|| format!("no agent runs on node {}", self.name()))?
            .signal(signal)
    }

    /// The agent's process id, if it runs.
    #[must_use]
    pub fn agent_pid(&self) -> Option<u32> {
        self.lock_agent().as_ref().map(Running::pid)
    }

    /// Kills the agent, starts it again and waits until it serves.
    ///
    /// # Errors
    /// It does not come back.
    pub fn restart_agent(&self) -> Result<()> {
        self.kill_agent()?;
        self.start_agent()?;
        self.wait_ready(Duration::from_secs(30))
    }

    /// The agent's log.
    #[must_use]
    pub fn agent_log(&self) -> PathBuf {
        self.directories.notes.join("agent.log")
    }

    /// Calls the CNI plugin on this node.
    ///
    /// # Errors
    /// The plugin cannot be started or says no JSON.
    pub fn cni(&self, call: &Call) -> Result<Answer> {
        call.make(self.place.netns(), &self.directories)
    }

    /// Runs `sinew` against this node's agent.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn sinew(&self, words: &[&str]) -> Result<Output> {
        output_with(&mut self.sinew_command(words)?, b"")
    }

    /// `sinew` against this node's agent, to be started.
    ///
    /// # Errors
    /// It was not built.
    pub fn sinew_command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binaries::find("sinew")?);
        command.args(words).env("SINEW_AGENT_SOCKET", self.directories.run.join("agent.sock"));
        Ok(command)
    }

    /// Waits until this node, and every other living node, enforces what the store holds.
    ///
    /// # Errors
    /// Something was refused, or the time is over.
    pub fn wait_enforced(&self, limit: Duration) -> Result<()> {
        let limit = format!("{}ms", limit.as_millis());
        process::run(&mut self.sinew_command(&["policy", "wait", "--ignore-silent", "--timeout", &limit])?)
            .map(drop)
    }

    /// Makes a pod of namespace `default` and waits until it is connected.
    ///
    /// # Errors
    /// The store or the CNI plugin refused it.
    pub fn pod(&self, name: &str, labels: &[(&str, &str)]) -> Result<Arc<Pod>> {
        self.pod_with_ports(name, labels, &[])
    }

    /// Makes a pod whose container names ports: name, number, protocol.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_with_ports(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        ports: &[(&str, u16, &str)],
    ) -> Result<Arc<Pod>> {
        let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.pod_of(&PodObject {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: format!("{}-{}", self.lab, name),
            labels,
            node: self.name().to_owned(),
            ports: ports.iter().map(|&(name, port, kind)| (name.to_owned(), port, kind.to_owned())).collect(),
        })
    }

    /// Makes the pod of an object.
    ///
    /// # Errors
    /// As [`Node::pod`].
    pub fn pod_of(&self, object: &PodObject) -> Result<Arc<Pod>> {
        self.store.write_pod(object)?;
        let pod = Arc::new(Pod::add(&self.lab, self, object)?);
        fs::write(self.pod_note(pod.name()), serde_json::to_string(pod.record()).context("a pod as JSON")?)
            .context("noting the pod")?;
        self.lock_pods().insert(pod.name().to_owned(), Arc::clone(&pod));
        Ok(pod)
    }

    /// Gives a pod other labels; does not wait for anything.
    ///
    /// # Errors
    /// The pod's object cannot be written.
    pub fn relabel(&self, pod: &Pod, labels: &[(&str, &str)]) -> Result<()> {
        let record = pod.record();
        self.store.write_pod(&PodObject {
            namespace: record.namespace.clone(),
            name: record.pod_name.clone(),
            uid: record.uid.clone(),
            labels: labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
            node: record.node.clone(),
            ports: Vec::new(),
        })
    }

    /// Removes a pod: DEL, then its namespace and its object.
    ///
    /// # Errors
    /// DEL failed.
    pub fn remove_pod(&self, name: &str) -> Result<()> {
        let pod = self
            .lock_pods()
            .remove(name)
            .with_context(|| format!("node {} has no pod {name}", self.name()))?;
        pod.delete(self)?;
        fs::remove_file(self.pod_note(name)).context("forgetting the pod")?;
        self.store.remove_pod(&pod.record().namespace, &pod.record().pod_name)
    }

    /// Its pods, by name.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.lock_pods().values().cloned().collect()
    }

    /// The folder of objects.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Finds the agent and the pods that another process has made.
    pub(super) fn attach(&self) -> Result<()> {
        for entry in fs::read_dir(&self.directories.notes).context("reading the node's notes")?.flatten() {
            if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_prefix("pod-")) {
                let record: PodRecord =
                    serde_json::from_slice(&fs::read(entry.path())?).context("a pod's note")?;
                let pod = Pod::of_record(&self.lab, record);
                self.lock_pods().insert(name.trim_end_matches(".json").to_owned(), Arc::new(pod));
            }
        }
        Ok(())
    }

    /// Ends what runs on behalf of this process; the sweep ends the rest.
    pub(super) fn forget_processes(&self) {
        drop(self.lock_agent().take());
        self.place.end_servers();
        for pod in self.pods() {
            pod.end_servers();
        }
    }

    /// Leaves the agent running when this value is dropped.
    pub fn release_agent(&self) {
        if let Some(agent) = self.lock_agent().take() {
            agent.release();
        }
    }

    fn pod_note(&self, name: &str) -> PathBuf {
        self.directories.notes.join(format!("pod-{name}.json"))
    }

    fn lock_agent(&self) -> MutexGuard<'_, Option<Running>> {
        self.agent.lock().expect("nothing panics while it holds this lock")
    }

    fn lock_pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.pods.lock().expect("nothing panics while it holds this lock")
    }
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
