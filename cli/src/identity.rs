//! `sinew identity list|get`: numbers for label sets. `--by-key` shows which label keys multiply identities.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use sinew_api::identity::Identity as Number;
use sinew_api::proto::agent::{GetIdentityRequest, Identity, ListIdentitiesRequest, ListIdentitiesResponse};

use crate::explain::words;
use crate::failure::Failure;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, Paint};
use crate::{AgentArgs, agent};

/// `sinew identity …`.
#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// Every identity that the node knows
    List(ListArgs),
    /// One identity with its labels and endpoints
    Get(GetArgs),
}

/// Arguments of `sinew identity list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Count identities and values by label key: a key with many values multiplies identities
    #[arg(long)]
    by_key: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Arguments of `sinew identity get`.
#[derive(Args)]
pub(crate) struct GetArgs {
    /// Number, or the name of a reserved identity such as world
    identity: String,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Runs it.
pub(crate) async fn run(command: &IdentityCommand) -> Result<()> {
    match command {
        IdentityCommand::List(args) => list(args).await,
        IdentityCommand::Get(args) => get(args).await,
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let answer =
        args.agent.connect().await?.list_identities(args.agent.request(ListIdentitiesRequest {})).await;
    let answer: ListIdentitiesResponse = answer.map_err(|status| agent::refused(&status))?.into_inner();
    let screen = args.agent.screen();
    if !args.by_key {
        return screen.show("ListIdentitiesResponse", &answer, |paint| text(&answer.identities, paint));
    }
    let keys = by_key(&answer.identities);
    if screen.format == Format::Table {
        return output::write(&keys_text(&keys, screen.paint));
    }
    let keys =
        keys.iter().map(|key| json!({ "key": key.key, "values": key.values, "identities": key.identities }));
    screen.show_value(&json!({ "keys": keys.collect::<Vec<_>>() }))
}

async fn get(args: &GetArgs) -> Result<()> {
    let id = number(&args.identity)?;
    let answer =
        args.agent.connect().await?.get_identity(args.agent.request(GetIdentityRequest { id })).await;
    let answer =
        answer.map_err(|status| agent::refused(&status).next("list all: sinew identity list"))?.into_inner();
    args.agent.screen().show("GetIdentityResponse", &answer, |_| {
        answer.identity.as_ref().map_or_else(|| "The agent sent no identity.\n".into(), one)
    })
}

/// A number, or the name of a reserved one.
pub(crate) fn number(text: &str) -> Result<u32, Failure> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let wanted = text.strip_prefix("reserved:").unwrap_or(text);
    let found = Number::RESERVED.iter().find(|(_, name)| *name == wanted).map(|(number, _)| number.0);
    found.ok_or_else(|| {
        let names = Number::RESERVED.map(|(_, name)| name).join(", ");
        Failure::unknown_name(format!("\"{text}\" is no identity: give its number, or one of {names}"))
    })
}

fn text(identities: &[Identity], paint: Paint) -> String {
    let mut table = Table::new(&["ID", "SCOPE", "ENDPOINTS HERE", "ADDRESSES", "JUDGED", "LABELS"]);
    let labels = labels_that_tell(identities);
    for (identity, labels) in identities.iter().zip(labels) {
        let known = if identity.known { Cell::from("yes") } else { Cell::toned(Tone::Odd, "no") };
        table.row([
            identity.id.into(),
            (&identity.scope).into(),
            identity.endpoints.len().into(),
            identity.addresses.into(),
            known,
            labels.join(",").into(),
        ]);
    }
    table.render(paint, "No identities.")
}

/// The chosen labels of each; where several have the same, those besides in which they differ: pods with two service
/// accounts, or of a namespace whose labels changed, are two identities.
fn labels_that_tell(identities: &[Identity]) -> Vec<Vec<&str>> {
    // By chosen labels: how many have them, and how many of those each label of theirs.
    let mut alike: BTreeMap<Vec<&str>, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for identity in identities {
        let (all, with) = alike.entry(words::chosen_labels(&identity.labels)).or_default();
        *all += 1;
        identity.labels.iter().for_each(|label| *with.entry(label).or_default() += 1);
    }
    let mut told = Vec::new();
    for Identity { labels, .. } in identities {
        let chosen = words::chosen_labels(labels);
        let (all, with) = &alike[&chosen];
        let tells = |label: &&str| chosen.contains(label) || with[label] < *all;
        told.push(labels.iter().map(String::as_str).filter(tells).collect());
    }
    told
}

fn one(identity: &Identity) -> String {
    let judged =
        if identity.known { "judged by the kernel" } else { "not judged yet: its packets drop by name" };
    let endpoints = if identity.endpoints.is_empty() {
        "none on this node".into()
    } else {
        words::listed(&identity.endpoints)
    };
    format!(
        "identity {}  ({}, {judged})\n  labels     {}\n  endpoints  {endpoints}\n  addresses  {} in the cluster\n",
        identity.id,
        identity.scope,
        identity.labels.join("\n             "),
        identity.addresses
    )
}

/// What one label key contributes.
#[derive(Debug, PartialEq, Eq)]
struct KeyCount {
    key: String,
    values: usize,
    identities: usize,
}

/// Keys of allocated identities, those with most values first: such a key is what multiplies identities.
fn by_key(identities: &[Identity]) -> Vec<KeyCount> {
    let mut seen: BTreeMap<&str, (BTreeSet<&str>, usize)> = BTreeMap::new();
    for identity in identities.iter().filter(|identity| identity.scope == "global") {
        for label in &identity.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            let (values, count) = seen.entry(key).or_default();
            values.insert(value);
            *count += 1;
        }
    }
    let counts = seen.into_iter().map(|(key, (values, identities))| KeyCount {
        key: key.to_owned(),
        values: values.len(),
        identities,
    });
    let mut counts = counts.collect::<Vec<_>>();
    counts.sort_by(|a, b| b.values.cmp(&a.values).then_with(|| a.key.cmp(&b.key)));
    counts
}

fn keys_text(keys: &[KeyCount], paint: Paint) -> String {
    let mut table = Table::new(&["KEY", "VALUES", "IDENTITIES"]);
    for key in keys {
        table.row([(&key.key).into(), key.values.into(), key.identities.into()]);
    }
    table.render(paint, "No allocated identities.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u32, scope: &str, labels: &[&str], endpoints: &[&str]) -> Identity {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Identity {
            id,
            scope: scope.into(),
            labels: own(labels),
            endpoints: own(endpoints),
            addresses: 2,
            known: true,
        }
    }

    fn node() -> [Identity; 4] {
        [
            identity(2, "reserved", &["reserved:world"], &[]),
            identity(256, "global", &["k8s:app=web", "k8s:run=1"], &["default/web"]),
            identity(257, "global", &["k8s:app=web", "k8s:run=2"], &[]),
            identity(258, "global", &["k8s:app=db", "k8s:run=3"], &[]),
        ]
    }

    #[test]
    fn the_key_that_multiplies_comes_first() {
        let expected = "\
KEY      VALUES  IDENTITIES
k8s:run  3       3
k8s:app  2       3
";
        assert_eq!(keys_text(&by_key(&node()), Paint::Plain), expected);
    }

    #[test]
    fn a_line_each() {
        let expected = "\
ID   SCOPE     ENDPOINTS HERE  ADDRESSES  JUDGED  LABELS
2    reserved  0               2          yes     reserved:world
256  global    1               2          yes     k8s:app=web,k8s:run=1
";
        assert_eq!(text(&node()[..2], Paint::Plain), expected);
    }

    #[test]
    fn two_numbers_never_look_alike() {
        let account = |name: &str| format!("k8s:io.cilium.k8s.policy.serviceaccount={name}");
        let cluster = "k8s:io.cilium.k8s.policy.cluster=default";
        let (writer, reader) = (account("writer"), account("reader"));
        let all = [
            identity(256, "global", &["k8s:app=web", cluster, &writer], &[]),
            identity(257, "global", &["k8s:app=web", cluster, &reader], &[]),
            identity(258, "global", &["k8s:app=db", cluster, &reader], &[]),
        ];
        // What they have in common tells nothing.
        let expected: [&[&str]; 3] = [&["k8s:app=web", &writer], &["k8s:app=web", &reader], &["k8s:app=db"]];
        assert_eq!(labels_that_tell(&all), expected);
    }

    #[test]
    fn reserved_names_are_numbers_too() {
        assert_eq!(number("257").unwrap(), 257);
        assert_eq!(number("world").unwrap(), 2);
        assert_eq!(number("reserved:remote-node").unwrap(), 6);
        assert!(
            number("web").unwrap_err().message.contains("give its number, or one of unknown, host, world")
        );
    }
}
