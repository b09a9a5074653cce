//! `sinew-agent cleanup`: takes everything of a node away and says what it was. Pods lose their interfaces, so the node
//! is drained before.
//!
//! Order: interfaces first, so that nothing passes without a policy; then what is pinned; then files. Each step goes on
//! after a failure of another, and the command can be given again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::claim;
use crate::cni::{ledger, server as cni_server};
use crate::config::{Place, StoreArgument};
use crate::control::{NUMBERS, OBJECTS, POLICIES};
use crate::datapath::folder_of_node;
use crate::netlink::Netlink;
use crate::netlink::node::OVERLAY_LINK;
use crate::netlink::route::RouteFilter;
use crate::netlink::unreachable::sync_unreachable;
use crate::plugin::queue;
use crate::run::SOCKET;
use crate::socket;
use crate::store::folder;

/// Takes everything away. Returns a line for each thing that was there.
///
/// # Errors
/// The agent runs, the store's folder isn't there (then nothing is removed), or something could not be removed; what could
/// be is gone, and the error lists the rest.
pub fn cleanup(place: &Place) -> anyhow::Result<Vec<String>> {
    place.check()?;
    let pins = folder_of_node(&place.bpf_root, &place.node_name);
    refuse(place, &claim::places(&pins))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
    let mut swept = Swept::default();
    runtime.block_on(remove_links(&mut swept));
    swept.folder("programs and maps", &pins);
    for name in [ledger::FOLDER, queue::FOLDER, POLICIES, OBJECTS] {
        swept.folder("state", &place.state_dir.join(name));
    }
    for name in [ledger::RESTING, NUMBERS] {
        swept.file("state", &place.state_dir.join(name));
    }
    for name in [SOCKET, cni_server::SOCKET] {
        swept.file("socket", &place.run_dir.join(name));
    }
    if let Some(StoreArgument::Folder(path)) = &place.store {
        let what = format!("node {} in the store {}", place.node_name, path.display());
        match folder::forget_node(path, &place.node_name) {
            Ok(true) => swept.lines.push(what),
            Ok(false) => {}
            Err(error) => swept.failures.push(format!("{what}: {error}")),
        }
    }
    if swept.failures.is_empty() {
        Ok(swept.lines)
    } else {
        bail!("removed:\n  {}\nnot removed:\n  {}", swept.lines.join("\n  "), swept.failures.join("\n  "))
    }
}

/// Nothing is taken from under an agent that runs, whichever `--run-dir` it has, and nothing is begun that would leave the
/// node's objects behind in silence.
fn refuse(place: &Place, claims: &[PathBuf]) -> anyhow::Result<()> {
    let path = place.run_dir.join(SOCKET);
    if socket::is_served(&path) {
        bail!("the agent still serves {}: stop it first", path.display());
    }
    if let Some(claimed) = claim::claimed(claims) {
        bail!("an agent runs here and holds {}, with another --run-dir: stop it first", claimed.display());
    }
    if let Some(StoreArgument::Folder(path)) = &place.store
        && !path.is_dir()
    {
        bail!(
            "--store folder:{}: there is no such folder; leave --store out if it is gone for good",
            path.display()
        );
    }
    Ok(())
}

/// What was removed, and what could not be.
#[derive(Default)]
struct Swept {
    lines: Vec<String>,
    failures: Vec<String>,
}

impl Swept {
    fn note(&mut self, what: String, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.lines.push(what),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.failures.push(format!("{what}: {error}")),
        }
    }

    fn folder(&mut self, what: &str, path: &Path) {
        self.note(format!("{what} {}", path.display()), fs::remove_dir_all(path));
    }

    fn file(&mut self, what: &str, path: &Path) {
        self.note(format!("{what} {}", path.display()), fs::remove_file(path));
    }
}

async fn remove_links(swept: &mut Swept) {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(error) => {
            swept.failures.push(error.to_string());
            return;
        }
    };
    let names = match netlink.pod_links().await {
        Ok(links) => links.into_iter().map(|link| link.name).chain([OVERLAY_LINK.to_owned()]).collect(),
        Err(error) => {
            swept.failures.push(error.to_string());
            Vec::new()
        }
    };
    for name in names {
        match netlink.delete_link(&name).await {
            Ok(true) => swept.lines.push(format!("interface {name}")),
            Ok(false) => {}
            Err(error) => swept.failures.push(error.to_string()),
        }
    }
    match netlink.routes(RouteFilter::Ours).await {
        Ok(routes) => {
            for route in routes {
                match netlink.delete_route(&route).await {
                    Ok(()) => swept.lines.push(format!("route to {}", route.destination)),
                    Err(error) => swept.failures.push(error.to_string()),
                }
            }
        }
        Err(error) => swept.failures.push(error.to_string()),
    }
    match sync_unreachable(&netlink, &[]).await {
        Ok(changes) => {
            swept.lines.extend(changes.removed.iter().map(|range| format!("unreachable route for {range}")));
            swept.failures.extend(changes.refused.into_iter().map(|(_, reason)| reason));
        }
        Err(error) => swept.failures.push(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::claim::Claim;

    #[test]
    fn nothing_is_taken_from_under_an_agent_or_out_of_a_folder_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let place = |store: &str| Place {
            node_name: "a".into(),
            store: Some(StoreArgument::Folder(folder.path().join(store))),
            state_dir: folder.path().join("state"),
            run_dir: folder.path().join("another"),
            bpf_root: folder.path().join("bpf"),
        };
        let pins = folder_of_node(&place("").bpf_root, "a");
        // Not the network namespace: an agent may run in that of the test.
        let claims = [pins.clone()];
        let claim = Claim::take(&pins, Duration::ZERO);
        let error = refuse(&place(""), &claims).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("an agent runs here and holds {}, with another --run-dir: stop it first", pins.display())
        );
        drop(claim);
        refuse(&place(""), &claims).unwrap();
        let error = refuse(&place("nope"), &claims).unwrap_err().to_string();
        assert!(error.contains("nope: there is no such folder"), "{error}");
    }
}
