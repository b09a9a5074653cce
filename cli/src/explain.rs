//! `sinew policy explain FROM TO [PORT/PROTO]`: what would happen to a new connection, and why.
//!
//! The answer is one message, `ExplainResponse`, whether a running agent gives it or a folder of objects is read
//! without one. Both run the verdict code that the kernel runs. Neighbours: `party.rs` reads the question,
//! `text.rs` writes the answer.

pub(crate) mod party;
pub(crate) mod text;
pub(crate) mod words;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use sinew_api::object::Object;
use sinew_api::proto::agent::party::By;
use sinew_api::proto::agent::{
    DirectionExplanation, ExplainRequest, ExplainResponse, FamilyVerdict, PortVerdict,
};
use sinew_api::proto::flow::{IpVersion, Verdict};

use crate::failure::Failure;
use crate::folder::Folder;
use crate::offline::Offline;
use crate::output::{self, Format};
use crate::unread::Unread;
use crate::{AgentArgs, agent};

/// Arguments of `sinew policy explain`.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Who opens the connection: an address, an identity's number, an entity such as world, labels such as
    /// app=web,tier=front, or a pod as NAME, NS/NAME or a unique prefix; read in this order
    from: String,
    /// Whom it goes to, in the same forms
    to: String,
    /// Port and protocol: 8080/TCP, 8080 (TCP), UDP, 8/ICMP (echo request), any
    #[arg(value_name = "PORT/PROTO", default_value = "any")]
    traffic: String,
    /// Namespace of bare pod names, and of labels that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Ask this folder of objects instead of an agent
    #[arg(long, value_name = "DIR")]
    pub(crate) from_folder: Option<PathBuf>,
    /// Only over this family; without it over both, where both ends have both
    #[arg(long, value_enum)]
    family: Option<Family>,
    /// Exit 1 when the verdict is another one, of a family or a port too, or when a document of the folder does not
    /// count; for checks in CI
    #[arg(long, value_enum)]
    expect: Option<Expected>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// IPv4.
    #[value(name = "ipv4")]
    V4,
    /// IPv6.
    #[value(name = "ipv6")]
    V6,
}

/// A verdict that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expected {
    /// It passes; audit counts as passing.
    Allowed,
    /// It is refused.
    Denied,
}

/// Asks the agent.
pub(crate) async fn run(args: &ExplainArgs) -> Result<()> {
    let request = question(args)?;
    let answer = args.agent.connect().await?.explain(args.agent.request(request)).await;
    let answer = answer.map_err(|status| agent::refused(&status))?.into_inner();
    show(args, &answer)
}

/// Asks a folder.
pub(crate) fn run_offline(args: &ExplainArgs) -> Result<()> {
    let folder = args.from_folder.as_deref().unwrap_or(Path::new("."));
    let request = question(args)?;
    let folder = Folder::read(folder)?;
    let unread = Unread::of(&folder);
    unread.tell();
    let answer = Offline::new(&folder)?.explain(&request)?;
    if let Some(doubt) = doubt(&folder, &request, &answer) {
        output::tell(doubt);
    }
    let screen = args.agent.screen();
    match screen.format {
        Format::Table => output::write(&text::explanation(&answer, screen.paint))?,
        Format::Json | Format::Yaml => {
            let mut value = output::to_value("ExplainResponse", &answer)?;
            value["unread"] = unread.value();
            screen.show_value(&value)?;
        }
    }
    if args.expect.is_some() {
        unread.refuse_check()?;
    }
    compare(args, &answer)
}

/// What an address is where no node is known: the folder can't tell a node, or an address of the cluster that nobody has,
/// from the world, and the kernel does.
fn doubt(folder: &Folder, request: &ExplainRequest, answer: &ExplainResponse) -> Option<String> {
    if folder.objects.iter().any(|object| matches!(object, Object::Node(_))) {
        return None;
    }
    // Of what no pod may send anywhere nothing was guessed.
    let is_dropped = |one: &DirectionExplanation| one.verdict() == Verdict::Dropped && one.sinew_reason != 0;
    if answer.directions.iter().any(is_dropped) {
        return None;
    }
    let is_of_world = |label: &String| label.starts_with("reserved:world");
    let guessed = [(&request.from, &answer.from), (&request.to, &answer.to)].into_iter().filter_map(
        |(asked, found)| {
            let Some(By::Address(address)) = &asked.as_ref()?.by else { return None };
            found.as_ref()?.labels.iter().any(is_of_world).then_some(address.as_str())
        },
    );
    let guessed = guessed.collect::<Vec<_>>();
    (!guessed.is_empty()).then(|| {
        format!(
            "no node is known, so {} is judged as an address of the world, which a node or a free address of the cluster \
             would not be; the folder needs the cluster's SinewNode objects",
            guessed.join(" and ")
        )
    })
}

/// The question in the agent's form.
fn question(args: &ExplainArgs) -> Result<ExplainRequest, Failure> {
    let namespace = args.namespace.as_deref();
    let traffic = party::traffic(&args.traffic)?;
    Ok(ExplainRequest {
        from: Some(party::party(&args.from, namespace)?),
        to: Some(party::party(&args.to, namespace)?),
        port: traffic.port,
        protocol: traffic.protocol,
        family: match args.family {
            None => IpVersion::IpNotUsed,
            Some(Family::V4) => IpVersion::IPv4,
            Some(Family::V6) => IpVersion::IPv6,
        }
        .into(),
    })
}

/// Shows the answer, and compares it with what was expected.
fn show(args: &ExplainArgs, answer: &ExplainResponse) -> Result<()> {
    args.agent.screen().show("ExplainResponse", answer, |paint| text::explanation(answer, paint))?;
    compare(args, answer)
}

fn compare(args: &ExplainArgs, answer: &ExplainResponse) -> Result<()> {
    let Some(expected) = args.expect else { return Ok(()) };
    let all = every_verdict(answer).map(passes).collect::<Vec<_>>();
    let wanted = expected == Expected::Allowed;
    if all.iter().all(|passes| *passes == wanted) {
        return Ok(());
    }
    let found = text::verdict(answer).to_lowercase();
    Err(Failure::failed(format!("expected {}, found {found}", format!("{expected:?}").to_lowercase())).into())
}

/// The verdict of the answer, of each family, and of ports that have another one.
fn every_verdict(answer: &ExplainResponse) -> impl Iterator<Item = Verdict> {
    // Where families differ, the answer's own is that of the one that is denied.
    let of_all = answer.families.is_empty().then(|| answer.verdict());
    let families = answer.families.iter().map(FamilyVerdict::verdict);
    of_all.into_iter().chain(families).chain(answer.exceptions.iter().map(PortVerdict::verdict))
}

/// Passing with an audit policy against it is passing.
fn passes(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forwarded | Verdict::Audit | Verdict::Redirected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_is_of_every_family_and_port() {
        let mut answer = ExplainResponse { verdict: Verdict::Forwarded.into(), ..Default::default() };
        let all = |answer: &ExplainResponse| every_verdict(answer).map(passes).collect::<Vec<_>>();
        assert_eq!(all(&answer), [true]);
        let over = |verdict: Verdict| FamilyVerdict { verdict: verdict.into(), ..Default::default() };
        answer.families = vec![over(Verdict::Audit), over(Verdict::Dropped)];
        assert_eq!(all(&answer), [true, false]);
        answer.families.pop();
        answer.exceptions = vec![PortVerdict { verdict: Verdict::Dropped.into(), ..Default::default() }];
        assert_eq!(all(&answer), [true, false]);
    }
}
