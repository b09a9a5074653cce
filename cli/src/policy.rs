//! `sinew policy …`: what is in force, what a change would do, why a packet was refused.
//!
//! `list`, `get` and `wait` ask the agent; `validate` and `simulate` need none; `explain` (`crate::explain`) does either.
//! Neighbours: `policy/text.rs` writes policies for people.

mod simulate;
mod text;
mod validate;
mod wait;

use std::time::SystemTime;

use anyhow::Result;
use clap::{Args, Subcommand};
use sinew_api::proto::agent::{GetPolicyRequest, ListPoliciesRequest, ListPoliciesResponse};

use crate::explain::{self, ExplainArgs};
use crate::{AgentArgs, agent, endpoint, names};

/// `sinew policy …`.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Every policy object, the refused ones too
    List(ListArgs),
    /// One policy: what it selects, its rules with hits, where it is enforced
    Get(GetArgs),
    /// Check objects before they are applied: what would be refused, and what is a foot-gun
    Validate(validate::ValidateArgs),
    /// Replay recorded flows against changed policies and list the verdicts that would change
    Simulate(simulate::SimulateArgs),
    /// What would happen to a connection, by which rule, and what would change it
    Explain(ExplainArgs),
    /// Wait until every node enforces what the store holds, silent ones too
    Wait(wait::WaitArgs),
}

/// Arguments of `sinew policy list`.
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only policies that select this pod
    #[arg(long, value_name = "POD")]
    endpoint: Option<String>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Arguments of `sinew policy get`.
#[derive(Args)]
pub(crate) struct GetArgs {
    /// KIND/NS/NAME (snp, cnp, netpol) or KIND/NAME (sccnp, ccnp); NS/NAME, NAME or a prefix where that is unique
    policy: String,
    #[command(flatten)]
    agent: AgentArgs,
}

impl PolicyCommand {
    /// Whether it needs no agent.
    pub(crate) fn is_offline(&self) -> bool {
        match self {
            Self::Validate(_) | Self::Simulate(_) => true,
            Self::Explain(args) => args.from_folder.is_some(),
            Self::List(_) | Self::Get(_) | Self::Wait(_) => false,
        }
    }
}

/// Runs a command that needs no agent.
pub(crate) fn run_offline(command: &PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Validate(args) => validate::run(args),
        PolicyCommand::Simulate(args) => simulate::run(args),
        PolicyCommand::Explain(args) => explain::run_offline(args),
        PolicyCommand::List(_) | PolicyCommand::Get(_) | PolicyCommand::Wait(_) => {
            unreachable!("these ask the agent")
        }
    }
}

/// Runs a command that asks the agent.
pub(crate) async fn run(command: &PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::List(args) => list(args).await,
        PolicyCommand::Get(args) => get(args).await,
        PolicyCommand::Explain(args) => explain::run(args).await,
        PolicyCommand::Wait(args) => wait::run(args).await,
        PolicyCommand::Validate(_) | PolicyCommand::Simulate(_) => unreachable!("these ask no agent"),
    }
}

async fn list(args: &ListArgs) -> Result<()> {
    let endpoint = match &args.endpoint {
        Some(wanted) => endpoint::name(endpoint::find(wanted, &endpoint::all(&args.agent).await?)?),
        None => String::new(),
    };
    let request = ListPoliciesRequest { namespace: args.namespace.clone().unwrap_or_default(), endpoint };
    let answer = ask(&args.agent, request.clone()).await?;
    args.agent.screen().show("ListPoliciesResponse", &answer, |paint| text::list(&request, &answer, paint))
}

async fn get(args: &GetArgs) -> Result<()> {
    let known = ask(&args.agent, ListPoliciesRequest::default()).await?.policies;
    let known = known.into_iter().map(|policy| policy.name).collect::<Vec<_>>();
    let name = known[names::find(names::POLICY, &args.policy, &known)?].clone();
    let answer = args.agent.connect().await?.get_policy(args.agent.request(GetPolicyRequest { name })).await;
    let answer = answer.map_err(|status| agent::refused(&status))?.into_inner();
    let now = SystemTime::now();
    args.agent.screen().show("GetPolicyResponse", &answer, |paint| text::one(&answer, now, paint))
}

async fn ask(args: &AgentArgs, request: ListPoliciesRequest) -> Result<ListPoliciesResponse> {
    let answer = args.connect().await?.list_policies(args.request(request)).await;
    Ok(answer.map_err(|status| agent::refused(&status))?.into_inner())
}
