//! One execution of the plugin as a value: the environment and the network configuration, checked against each other.
//!
//! Pure, so that it can be fuzzed. Specification: CNI, section 2. The environment is checked before standard input, as
//! libcni's own skeleton does, since without a command nothing else means anything. Neighbours: `config`.

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;
use sinew_api::cni::{Added, Attachment};

use super::config::{NEWEST, NetworkConfig, Strictness};
use super::error::PluginError;

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the specification's own names")]
pub enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// What the runtime asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the specification's")]
pub enum Invocation {
    Add { config: NetworkConfig, attachment: Attachment, skip_netns_test: bool },
    Del { config: NetworkConfig, container_id: String, ifname: String },
    Check { config: NetworkConfig, attachment: Attachment },
    Gc { config: NetworkConfig, valid: Vec<(String, String)> },
    Status { config: NetworkConfig },
    Version { version: String },
}

/// Looks an environment variable up.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The arguments that a kubelet's runtime passes in `CNI_ARGS`.
#[derive(Default)]
struct PodArgs {
    namespace: String,
    name: String,
    uid: String,
}

impl Invocation {
    /// Reads environment and standard input.
    ///
    /// # Errors
    /// Names the variable or the path of the field that is missing, wrong or unsupported.
    pub fn parse(env: Env, input: &[u8]) -> Result<Self, PluginError> {
        match Command::parse(env)? {
            Command::Version => Ok(Self::Version { version: asked_version(input)? }),
            Command::Add => {
                let mut attachment = attachment(env)?;
                let config = NetworkConfig::parse(input, Strictness::Whole)?;
                if config.previous.is_some() {
                    return Err(PluginError::Config {
                        path: "prevResult".to_owned(),
                        reason:
                            "sinew-cni makes the pod's interface and must be the first plugin of the list"
                                .to_owned(),
                    });
                }
                attachment.network.clone_from(&config.name);
                attachment.labels.clone_from(&config.labels);
                Ok(Self::Add { config, attachment, skip_netns_test: override_netns(env) })
            }
            Command::Check => {
                let mut attachment = attachment(env)?;
                let config = NetworkConfig::parse(input, Strictness::Whole)?;
                previous_must_name(&config, &attachment)?;
                attachment.network.clone_from(&config.name);
                attachment.labels.clone_from(&config.labels);
                Ok(Self::Check { config, attachment })
            }
            Command::Del => {
                let (container_id, ifname) = (container_id(env)?, ifname(env)?);
                let config = NetworkConfig::parse(input, Strictness::ForDel)?;
                Ok(Self::Del { config, container_id, ifname })
            }
            Command::Gc => {
                let config = since_1_1("GC", NetworkConfig::parse(input, Strictness::Whole)?)?;
                // Without the list nothing is known to be stale; taking it for empty would remove every pod's interface.
                let valid = config.valid_attachments.clone().ok_or_else(|| PluginError::Config {
                    path: "cni.dev/valid-attachments".to_owned(),
                    reason: "it is missing".to_owned(),
                })?;
                Ok(Self::Gc { config, valid })
            }
            Command::Status => Ok(Self::Status {
                config: since_1_1("STATUS", NetworkConfig::parse(input, Strictness::Whole)?)?,
            }),
        }
    }

    /// The version of the specification that the answer is in.
    #[must_use]
    pub fn version(&self) -> &str {
        match self {
            Self::Add { config, .. }
            | Self::Del { config, .. }
            | Self::Check { config, .. }
            | Self::Gc { config, .. }
            | Self::Status { config } => &config.version,
            Self::Version { version } => version,
        }
    }
}

impl Command {
    fn parse(env: Env) -> Result<Self, PluginError> {
        let name = "CNI_COMMAND";
        match required(env, name)?.as_str() {
            "ADD" => Ok(Self::Add),
            "DEL" => Ok(Self::Del),
            "CHECK" => Ok(Self::Check),
            "GC" => Ok(Self::Gc),
            "STATUS" => Ok(Self::Status),
            "VERSION" => Ok(Self::Version),
            other => {
                Err(variable(name, format!("{other:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION")))
            }
        }
    }
}

/// VERSION echoes the version that it was asked in; what that is does not matter, and nothing at all is fine.
fn asked_version(input: &[u8]) -> Result<String, PluginError> {
    if input.iter().all(u8::is_ascii_whitespace) {
        return Ok(NEWEST.to_owned());
    }
    let value: Value =
        serde_json::from_slice(input).map_err(|error| PluginError::NotJson { reason: error.to_string() })?;
    Ok(value.get("cniVersion").and_then(Value::as_str).unwrap_or(NEWEST).to_owned())
}

fn since_1_1(command: &'static str, config: NetworkConfig) -> Result<NetworkConfig, PluginError> {
    if config.version == NEWEST {
        Ok(config)
    } else {
        Err(PluginError::CommandTooNew { command, version: config.version })
    }
}

fn attachment(env: Env) -> Result<Attachment, PluginError> {
    let (container_id, ifname) = (container_id(env)?, ifname(env)?);
    let netns = required(env, "CNI_NETNS")?;
    let pod = pod_args(env)?;
    Ok(Attachment {
        container_id,
        netns,
        ifname,
        network: String::new(),
        pod_namespace: pod.namespace,
        pod_name: pod.name,
        pod_uid: pod.uid,
        labels: std::collections::BTreeMap::new(),
    })
}

/// The runtime must hand CHECK the result of the ADD (specification, section 2), and it must be of this attachment.
fn previous_must_name(config: &NetworkConfig, attachment: &Attachment) -> Result<(), PluginError> {
    let Some(previous) = &config.previous else {
        return Err(no_result("", format_args!("it is missing: CHECK needs the result of the ADD")));
    };
    own_interface(previous, attachment).map(drop)
}

/// The result must also tell of the interface and the addresses that the pod has: a runtime that kept another one would
/// take CHECK's success for a word on what it kept.
pub(super) fn previous_must_tell(
    config: &NetworkConfig,
    attachment: &Attachment,
    added: &Added,
) -> Result<(), PluginError> {
    let Some(previous) = &config.previous else { return Ok(()) };
    let (index, interface) = own_interface(previous, attachment)?;
    let mac = interface.get("mac").and_then(Value::as_str);
    if let Some(mac) = mac.filter(|mac| !mac.eq_ignore_ascii_case(&added.pod_mac)) {
        let path = format!(".interfaces[{index}].mac");
        return Err(no_result(&path, format_args!("{mac}, but the pod's is {}", added.pod_mac)));
    }
    let mtu = interface.get("mtu").and_then(Value::as_u64);
    if let Some(mtu) = mtu.filter(|mtu| *mtu != u64::from(added.device_mtu)) {
        let path = format!(".interfaces[{index}].mtu");
        return Err(no_result(&path, format_args!("{mtu}, but the pod's is {}", added.device_mtu)));
    }
    let ips = previous.get("ips").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut missing = added.addresses.clone();
    for (number, ip) in ips.iter().enumerate() {
        // A plugin behind may have added interfaces, and addresses on them.
        if ip.get("interface").and_then(Value::as_u64).is_some_and(|of| usize::try_from(of) != Ok(index)) {
            continue;
        }
        let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
        let address = text.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
        let before = missing.len();
        missing.retain(|has| Some(*has) != address);
        if missing.len() == before {
            let path = format!(".ips[{number}].address");
            return Err(no_result(&path, format_args!("{text:?} is no address of the pod")));
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(address) => Err(no_result(".ips", format_args!("the pod's {address} is missing"))),
    }
}

/// The pod's interface in a result, and its place in the list.
fn own_interface<'a>(
    previous: &'a Value,
    attachment: &Attachment,
) -> Result<(usize, &'a Value), PluginError> {
    let interfaces = previous.get("interfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut own = interfaces.iter().enumerate().filter(|(_, interface)| {
        interface.get("name").and_then(Value::as_str) == Some(&attachment.ifname)
            && interface.get("sandbox").and_then(Value::as_str) == Some(&attachment.netns)
    });
    own.next().ok_or_else(|| {
        no_result("", format_args!("it has no interface {} in {}", attachment.ifname, attachment.netns))
    })
}

fn no_result(path: &str, reason: fmt::Arguments) -> PluginError {
    PluginError::Config { path: format!("prevResult{path}"), reason: reason.to_string() }
}

/// `CNI_CONTAINERID`: a letter or digit, then letters, digits, `_`, `.` and `-` (specification, section 2).
fn container_id(env: Env) -> Result<String, PluginError> {
    let name = "CNI_CONTAINERID";
    let id = required(env, name)?;
    let good = id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    // 200 leaves room for the interface's name and an ending in a file name, which the kernel limits to 255 bytes.
    if good && id.len() <= 200 {
        Ok(id)
    } else {
        Err(variable(
            name,
            "1 to 200 letters, digits, '_', '.' and '-' are expected, the first a letter or digit",
        ))
    }
}

/// `CNI_IFNAME`: what the kernel takes as a name (`dev_valid_name`), and no path.
fn ifname(env: Env) -> Result<String, PluginError> {
    let name = "CNI_IFNAME";
    let ifname = required(env, name)?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.contains(bad) {
        return Err(variable(name, "1 to 15 bytes without '/', ':' and spaces are expected"));
    }
    if ifname == "lo" {
        return Err(variable(name, "the loopback interface cannot be the pod's"));
    }
    Ok(ifname)
}

fn pod_args(env: Env) -> Result<PodArgs, PluginError> {
    let name = "CNI_ARGS";
    let mut args = PodArgs::default();
    let text = env(name).unwrap_or_default();
    let mut unknown = None;
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(variable(name, format!("{pair:?} is no KEY=VALUE")));
        };
        match key {
            "K8S_POD_NAMESPACE" => value.clone_into(&mut args.namespace),
            "K8S_POD_NAME" => value.clone_into(&mut args.name),
            "K8S_POD_UID" => value.clone_into(&mut args.uid),
            // The container's id is CNI_CONTAINERID already.
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "true" | "True" | "TRUE"),
            other => unknown = Some(other.to_owned()),
        }
    }
    if let (Some(key), false) = (unknown, ignore_unknown) {
        return Err(variable(name, format!("{key} is not known (IgnoreUnknown=1 lets it pass)")));
    }
    if args.namespace.is_empty() != args.name.is_empty() {
        return Err(variable(name, "K8S_POD_NAMESPACE and K8S_POD_NAME are expected together"));
    }
    Ok(args)
}

/// `CNI_NETNS_OVERRIDE`, as libcni reads it.
fn override_netns(env: Env) -> bool {
    env("CNI_NETNS_OVERRIDE").is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

fn required(env: Env, name: &'static str) -> Result<String, PluginError> {
    env(name).filter(|value| !value.is_empty()).ok_or(PluginError::VariableMissing { name })
}

fn variable(name: &'static str, reason: impl Into<String>) -> PluginError {
    PluginError::VariableInvalid { name, reason: reason.into() }
}
