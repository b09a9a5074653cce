//! What an agent does at start with what an earlier one left: a plan, computed from the files, the interfaces and the
//! maps, and carried out by `crate::control`.
//!
//! An attachment is kept if its file says that it stands and its interface is there: its programs run, and traffic does
//! not notice (ARCHITECTURE.md, promise 3). Everything else is undone: ADDs that nobody was told of, DELs that were not
//! finished, pods whose namespace is gone with its interface, interfaces and map entries that no file claims.

use std::collections::{BTreeMap, BTreeSet};

use sinew_engine::EndpointId;

use super::AttachmentKey;
use super::ledger::{Entry, Phase};
use crate::netlink::Link;

/// What to keep and what to undo.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Attachments that stand, with their interfaces.
    pub keep: Vec<(Entry, Link)>,
    /// Attachments to undo.
    pub undo: Vec<AttachmentKey>,
    /// Interfaces of nobody.
    pub links: Vec<String>,
    /// Endpoints in the maps of nobody.
    pub endpoints: Vec<EndpointId>,
}

/// Makes the plan.
#[must_use]
pub fn plan<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    links: &[Link],
    pinned: impl IntoIterator<Item = EndpointId>,
) -> Plan {
    let by_name: BTreeMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
    let mut plan = Plan::default();
    let mut claimed = BTreeSet::new();
    let mut kept = BTreeSet::new();
    for entry in entries {
        claimed.insert(entry.host_link.as_str());
        match by_name.get(entry.host_link.as_str()) {
            Some(link) if entry.phase == Phase::Standing => {
                kept.insert(entry.id);
                plan.keep.push((entry.clone(), (*link).clone()));
            }
            _ => plan.undo.push(entry.key()),
        }
    }
    plan.links =
        by_name.keys().filter(|name| !claimed.contains(*name)).map(|name| (*name).to_owned()).collect();
    plan.endpoints = pinned.into_iter().filter(|id| !kept.contains(id)).collect();
    plan
}

#[cfg(test)]
mod tests {
    use sinew_api::cni::Attachment;

    use super::*;
    use crate::netlink::veth;

    fn entry(id: u16, container_id: &str, phase: Phase) -> Entry {
        Entry {
            id: EndpointId(id),
            phase,
            attachment: Attachment {
                container_id: container_id.into(),
                netns: "/run/netns/x".into(),
                ifname: "eth0".into(),
                network: String::new(),
                pod_namespace: String::new(),
                pod_name: String::new(),
                pod_uid: String::new(),
                labels: BTreeMap::new(),
            },
            addresses: Vec::new(),
            host_link: veth::host_link_name(container_id, "eth0"),
            created_ms: 0,
        }
    }

    fn link(container_id: &str) -> Link {
        Link {
            index: 7,
            name: veth::host_link_name(container_id, "eth0"),
            mac: Vec::new(),
            mtu: 1500,
            up: true,
            kind: Default::default(),
        }
    }

    #[test]
    fn what_stands_is_kept_and_everything_else_is_undone() {
        let entries = [
            entry(1, "stands", Phase::Standing),
            entry(2, "was being added", Phase::Adding),
            entry(3, "was being removed", Phase::Removing),
            entry(4, "its namespace is gone", Phase::Standing),
        ];
        let links = [link("stands"), link("was being added"), link("nobody's")];
        let plan = plan(&entries, &links, [EndpointId(1), EndpointId(2), EndpointId(9)]);
        assert_eq!(plan.keep, [(entries[0].clone(), links[0].clone())]);
        assert_eq!(plan.undo, [entries[1].key(), entries[2].key(), entries[3].key()]);
        assert_eq!(plan.links, [links[2].name.clone()]);
        assert_eq!(plan.endpoints, [EndpointId(2), EndpointId(9)]);
    }
}
