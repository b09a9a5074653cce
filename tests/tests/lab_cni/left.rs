//! What a node holds on behalf of pods: counted before and after, so that a leak shows whatever it is of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::Node;
use sinew_tests::lab::cni::host_interfaces;

/// Everything on a node that an attachment may leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    interfaces: Vec<String>,
    files: BTreeSet<String>,
    pins: BTreeSet<String>,
    routes: BTreeSet<String>,
    entries: Vec<(String, u64)>,
    endpoints: usize,
    store: BTreeSet<String>,
}

/// Tables whose entries belong to an endpoint or its address. Connections and counters outlive pods on purpose.
const TABLES: [&str; 3] = ["ENDPOINTS", "INTERFACES", "IPCACHE"];

impl Left {
    pub(crate) fn on(node: &Node) -> Result<Self> {
        let directories = node.directories();
        let routes = ["-4", "-6"].map(|family| node.netns().ip_output(&[family, "route", "show"]));
        let mut lines = BTreeSet::new();
        for routes in routes {
            lines.extend(routes?.lines().map(str::to_owned).filter(|route| route.contains("snw")));
        }
        let mut store = BTreeSet::new();
        collect(&node.store().folder().join(".endpoints"), &mut store);
        let mut files = BTreeSet::new();
        collect(&directories.state, &mut files);
        // What is not of an attachment: the rest of leases, numbers that must not be used again.
        files.retain(|file| file.contains("cni") || file.contains("attachment"));
        let mut pins = BTreeSet::new();
        collect(&directories.bpf_root, &mut pins);
        // One for each load of the programs, whatever is attached.
        pins.retain(|pin| !pin.contains("/NEXT-"));
        Ok(Self {
            interfaces: host_interfaces(node.netns())?,
            files,
            pins,
            routes: lines,
            entries: entries(node)?,
            endpoints: endpoints(node)?,
            store,
        })
    }
}

fn entries(node: &Node) -> Result<Vec<(String, u64)>> {
    let maps = answer(node, &["map", "list", "-o", "json"])?;
    let maps = maps["maps"].as_array().cloned().unwrap_or_default();
    TABLES.iter().map(|name| fill(&maps, name)).collect()
}

/// Entries of a table. One that is not listed is no empty one: nothing would be counted, and no leak of it seen.
fn fill(maps: &[Value], name: &str) -> Result<(String, u64)> {
    let map = maps.iter().find(|map| map["name"] == name);
    let map = map.with_context(|| format!("sinew map list names no table {name}"))?;
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    // A zero that can not be absent is left out.
    Ok((name.to_owned(), number(&map["entries"]).unwrap_or(0)))
}

#[test]
fn a_table_that_is_not_listed_is_no_empty_one() {
    let maps =
        [serde_json::json!({"name": "IPCACHE", "entries": "3"}), serde_json::json!({"name": "ENDPOINTS"})];
    assert_eq!(fill(&maps, "IPCACHE").ok(), Some(("IPCACHE".to_owned(), 3)));
    assert_eq!(fill(&maps, "ENDPOINTS").ok(), Some(("ENDPOINTS".to_owned(), 0)));
    assert!(fill(&maps, "LOCAL").is_err());
}

fn endpoints(node: &Node) -> Result<usize> {
    let list = answer(node, &["endpoint", "list", "-o", "json"])?;
    Ok(list["endpoints"].as_array().map_or(0, Vec::len))
}

fn answer(node: &Node, words: &[&str]) -> Result<Value> {
    let output = node.sinew(words)?;
    ensure!(output.status.success(), "sinew {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Paths of all files below a folder; none if there is no such folder.
fn collect(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else {
            into.insert(path.display().to_string());
        }
    }
}
