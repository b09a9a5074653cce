//! Calling the CNI plugin the way a container runtime does: a command in the environment, a configuration on standard
//! input, run in the node's network namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::binaries;
use super::netns::Netns;
use super::node::Directories;
use super::process::{self, Running, output_with};

/// One call of the plugin.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// `CNI_COMMAND`.
    pub command: &'a str,
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_NETNS`, or empty.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// `CNI_ARGS`, or empty.
    pub arguments: String,
    /// Keys that go over those of the lab's configuration; null removes one.
    pub config: BTreeMap<String, Value>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether the plugin exited with 0.
    pub success: bool,
    /// The result or the error object; null if the command has none.
    pub object: Value,
}

impl Answer {
    /// The CNI error code, if it is an error.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        if self.success { None } else { self.object["code"].as_u64() }
    }

    /// What it says in words.
    #[must_use]
    pub fn message(&self) -> String {
        let words = ["msg", "details"].map(|field| self.object[field].as_str().unwrap_or_default());
        let words = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>();
        if words.is_empty() { "nothing".to_owned() } else { words.join(": ") }
    }

    /// Addresses that an ADD gave.
    ///
    /// # Errors
    /// It is no result of an ADD.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let ips = self.object["ips"].as_array().with_context(|| format!("no ips in {}", self.object))?;
        ips.iter()
            .map(|ip| {
                let address = ip["address"].as_str().and_then(|cidr| cidr.split('/').next());
                address
                    .and_then(|address| address.parse().ok())
                    .with_context(|| format!("no address in {ip}"))
            })
            .collect()
    }

    /// The object, or the error as this program's own.
    ///
    /// # Errors
    /// The plugin failed.
    pub fn into_result(self) -> Result<Value> {
        if self.success {
            return Ok(self.object);
        }
        bail!("sinew-cni: {}", self.object)
    }
}

impl Call<'_> {
    /// A call with the lab's configuration for this node.
    #[must_use]
    pub fn new<'a>(command: &'a str, container_id: &'a str, netns: &Netns) -> Call<'a> {
        Call {
            command,
            container_id,
            netns: netns.path().display().to_string(),
            ifname: "eth0",
            arguments: String::new(),
            config: BTreeMap::new(),
        }
    }

    /// Makes the call on a node.
    ///
    /// # Errors
    /// The plugin cannot be started or says no JSON.
    pub fn make(&self, node: &Netns, directories: &Directories) -> Result<Answer> {
        let mut command = node.command(binaries::find("sinew-cni")?);
        self.environment(&mut command);
        let output = output_with(&mut command, self.stdin(directories).as_bytes())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let object = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("sinew-cni said {text:?}"))?
        };
        Ok(Answer { success: output.status.success(), object })
    }

    /// Starts the call with a plugin that is stopped before its first instruction, to be traced from there on; its
    /// tracer, or SIGCONT, lets it go.
    ///
    /// # Errors
    /// The plugin cannot be started.
    pub fn start_held(&self, node: &Netns, directories: &Directories) -> Result<Running> {
        let input = directories.state.join(format!("{}.stdin", self.container_id));
        std::fs::write(&input, self.stdin(directories)).context("writing the plugin's input")?;
        let mut command = node.command("sh");
        let script = "kill -STOP $$; exec \"$0\" < \"$1\"";
        command.args(["-c", script]).arg(binaries::find("sinew-cni")?).arg(&input);
        self.environment(&mut command);
        let plugin = Running::talk(&mut command)?;
        process::wait_stopped(plugin.pid())?;
        Ok(plugin)
    }

    fn environment(&self, command: &mut Command) {
        command
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_ARGS", &self.arguments)
            .env("CNI_PATH", "/usr/lib/cni");
    }

    fn stdin(&self, directories: &Directories) -> String {
        let mut config = configuration(directories);
        let map = config.as_object_mut().expect("a configuration is an object");
        for (key, value) in &self.config {
            map.remove(key);
            if !value.is_null() {
                map.insert(key.clone(), value.clone());
            }
        }
        config.to_string()
    }
}

/// The configuration of the plugin on a node with these directories.
#[must_use]
pub fn configuration(directories: &Directories) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "sinew",
        "type": "sinew-cni",
        "capabilities": {"bandwidth": true},
        "runDir": directories.run,
        "stateDir": directories.state,
    })
}

/// Names of the host sides of pods' interfaces on a node.
///
/// # Errors
/// `ip` failed.
pub fn host_interfaces(node: &Netns) -> Result<Vec<String>> {
    let links = node.ip_output(&["-o", "link", "show", "type", "veth"])?;
    let names =
        links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(|name| name.trim().to_owned());
    Ok(names.filter(|name| name.starts_with("snw")).collect())
}

/// Runs `cnitool` on a node against a folder of configuration lists.
///
/// # Errors
/// It cannot be started.
pub fn cnitool(
    node: &Netns,
    config_folder: &Path,
    words: &[&str],
    environment: &[(&str, &str)],
) -> Result<Output> {
    let mut command = node.command(cnitool_path()?);
    let plugins = binaries::find("sinew-cni")?;
    let plugins = plugins.parent().context("the plugin lies in a folder")?.display().to_string();
    command.args(words).env("NETCONFPATH", config_folder).env("CNI_PATH", format!("{plugins}:/usr/lib/cni"));
    command.envs(environment.iter().copied());
    output_with(&mut command, b"")
}

/// Where `cargo xtask setup` puts `cnitool`.
fn cnitool_path() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let program = cache.join("sinew/tools/cnitool-1.3.1/cnitool");
    ensure!(program.is_file(), "{} is not there: `cargo xtask setup` builds it", program.display());
    Ok(program)
}
