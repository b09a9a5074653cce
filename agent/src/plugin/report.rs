//! The objects that the plugin prints: success, version and error, in the version that was asked for.
//!
//! Specification: CNI, section 5. What 1.1.0 added (MTUs) is left out of a 1.0.0 result. Neighbours:
//! `config` says the version.

use serde_json::{Map, Value, json};
use sinew_api::cni::{Added, Attachment};

use super::config::{NEWEST, NetworkConfig, SUPPORTED};
use super::error::PluginError;

/// Place of the pod's interface in the list of interfaces.
const POD_INTERFACE: usize = 1;

/// The result of an ADD.
pub(super) fn added(config: &NetworkConfig, attachment: &Attachment, added: &Added) -> Value {
    let ips = added.addresses.iter().zip(&added.gateways).map(|(address, gateway)| {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        json!({"address": format!("{address}/{prefix}"), "gateway": gateway, "interface": POD_INTERFACE})
    });
    let routes = added.gateways.iter().map(|gateway| {
        let mut route = json!({"dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway});
        if config.version == NEWEST {
            route["mtu"] = added.route_mtu.into();
        }
        route
    });
    let mut host = json!({"name": added.host_ifname, "mac": added.host_mac});
    let mut pod = json!({"name": attachment.ifname, "mac": added.pod_mac, "sandbox": attachment.netns});
    if config.version == NEWEST {
        host["mtu"] = added.device_mtu.into();
        pod["mtu"] = added.device_mtu.into();
    }
    json!({
        "cniVersion": config.version,
        "interfaces": [host, pod],
        "ips": ips.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "dns": config.dns.clone().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

/// The answer to VERSION.
pub(super) fn version(asked: &str) -> Value {
    json!({"cniVersion": asked, "supportedVersions": SUPPORTED})
}

/// The error object.
pub(super) fn error(version: &str, error: &PluginError) -> Value {
    let mut object = json!({"cniVersion": version, "code": error.code().0, "msg": error.to_string()});
    let details = error.details();
    if !details.is_empty() {
        object["details"] = details.into();
    }
    object
}
