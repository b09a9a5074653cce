//! `sinew policy wait`: returns when every node enforces what the store holds (policy.md 16). A silent
//! node counts too, since its pods go on with the policies that it had, unless whoever waits says otherwise.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use sinew_api::proto::agent::{
    ListPoliciesRequest, NodeProgress, Policy, WaitPolicyRequest, WaitPolicyResponse,
};
use tonic::{Code, Status};

use crate::explain::words;
use crate::failure::Failure;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::output::table::{Cell, Table};
use crate::{AgentArgs, agent, names, output, when};

/// Arguments of `sinew policy wait`.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Only this policy, as KIND/NS/NAME, NS/NAME, NAME or a prefix where that is unique; without it everything in the store
    policy: Option<String>,
    /// This generation of it, as `sinew policy get` shows it
    #[arg(long, requires = "policy")]
    generation: Option<u64>,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// List nodes that are silent, and don't wait for them: their pods go on with the policies that they had
    #[arg(long)]
    ignore_silent: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Waits. Exit 1: it is refused and will never be enforced; exit 2: not in time.
pub(crate) async fn run(args: &WaitArgs) -> Result<()> {
    let mut request = WaitPolicyRequest {
        name: args.policy.clone().unwrap_or_default(),
        generation: args.generation.unwrap_or_default(),
        ignore_silent: args.ignore_silent,
    };
    let mut client = args.agent.connect().await?;
    let mut last = WaitPolicyResponse::default();
    let outcome = tokio::time::timeout(args.timeout, async {
        // Asked first, since the agent then looks at what stands in the store now.
        let answer = match client.wait_policy(request.clone()).await {
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
                request.name = full_name(args, &status).await?;
                client.wait_policy(request).await
            }
            answer => answer,
        };
        let mut stream = answer.map_err(Ended::Status)?.into_inner();
        while let Some(progress) = stream.message().await.map_err(Ended::Status)? {
            last = progress;
            // Of what is refused the agent ends the stream itself, once every node has looked at it.
            if last.enforced {
                break;
            }
        }
        Ok::<(), Ended>(())
    })
    .await;
    let in_time = match outcome {
        Ok(Ok(())) => true,
        Ok(Err(Ended::Status(status))) if status.code() == Code::DeadlineExceeded => false,
        Ok(Err(Ended::Status(status))) => return Err(agent::refused(&status).into()),
        Ok(Err(Ended::Name(failure))) => return Err(failure.into()),
        Err(_elapsed) => false,
    };
    let now = SystemTime::now();
    args.agent.screen().show("WaitPolicyResponse", &last, |paint| text(&last, now, paint))?;
    silent(&last).iter().for_each(output::tell);
    let other = if in_time { None } else { other_generation(args).await };
    judge(&last, in_time, args.timeout, other).map_err(Into::into)
}

/// What the store and the node have, where another generation than theirs is waited for. A generation is a hash of the
/// content: none is older or newer.
async fn other_generation(args: &WaitArgs) -> Option<String> {
    let wanted = args.generation?;
    let known = super::ask(&args.agent, ListPoliciesRequest::default()).await.ok()?.policies;
    let names = known.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>();
    let found = names::find(names::POLICY, args.policy.as_deref()?, &names).ok()?;
    generations(wanted, &known[found])
}

fn generations(wanted: u64, policy: &Policy) -> Option<String> {
    let running = match policy.running_generation {
        0 => "none is in force".to_owned(),
        running if running == policy.generation => "that one is in force".to_owned(),
        running => format!("{running} is in force"),
    };
    (policy.generation != wanted).then(|| {
        format!("generation {wanted} is asked for, the store has {}, and {running}", policy.generation)
    })
}

/// One sentence for each node that is silent and has other policies than the store, as far as anybody knows.
fn silent(progress: &WaitPolicyResponse) -> Vec<String> {
    let silent = progress.nodes.iter().filter(|node| !node.alive && !node.enforced);
    let since = |node: &NodeProgress| {
        let heard = node.last_seen.filter(|heard| heard.seconds > 0);
        heard.map(|heard| format!(" since {}", when::timestamp(Some(&heard)))).unwrap_or_default()
    };
    silent
        .map(|node| {
            let since = since(node);
            format!("node {} is silent{since}: its pods go on with the policies that it had", node.node)
        })
        .collect()
}

/// Why there is no progress.
enum Ended {
    Status(Status),
    /// The name is nobody's, or more than one's.
    Name(Failure),
}

/// The full name of the policy whose name the agent did not take as it is: as in `policy get` a beginning is enough, and
/// a miss is answered with the names that there are.
async fn full_name(args: &WaitArgs, status: &Status) -> Result<String, Ended> {
    let wanted = args.policy.as_deref().unwrap_or_default();
    let Ok(known) = super::ask(&args.agent, ListPoliciesRequest::default()).await else {
        return Err(Ended::Status(status.clone()));
    };
    let known = known.policies.into_iter().map(|policy| policy.name).collect::<Vec<_>>();
    let found = names::find(names::POLICY, wanted, &known).map_err(Ended::Name)?;
    Ok(known[found].clone())
}

/// What the last progress means.
fn judge(
    last: &WaitPolicyResponse,
    in_time: bool,
    timeout: Duration,
    other_generation: Option<String>,
) -> Result<(), Failure> {
    if last.enforced && last.refused.is_empty() {
        return Ok(());
    }
    if !last.refused.is_empty() && (last.enforced || in_time) {
        return Err(Failure::failed(format!("refused, so never enforced: {}", words::listed(&last.refused)))
            .next("see why: sinew policy list"));
    }
    if in_time {
        return Err(Failure::unreachable("the agent ended the answer before every node had followed")
            .next("see whether it still runs: sinew status"));
    }
    let behind = match (lagging(last, true).as_str(), lagging(last, false).as_str()) {
        ("", "") => "no node has answered".to_owned(),
        (behind, "") => format!("behind: {behind}"),
        ("", silent) => format!("silent: {silent}"),
        (behind, silent) => format!("behind: {behind}; silent: {silent}"),
    };
    let behind = other_generation.unwrap_or(behind);
    let refused = match last.refused.as_slice() {
        [] => String::new(),
        refused => format!("; refused: {}", words::listed(refused)),
    };
    let failure = Failure::timed_out(format!(
        "not enforced everywhere after {}; {behind}{refused}",
        when::brief(timeout)
    ))
    .next("see what holds it up there: sinew status");
    Err(if lagging(last, false).is_empty() {
        failure
    } else {
        failure.next("of a silent node: start its agent, or wait for the others only: --ignore-silent")
    })
}

/// The nodes of either sort that don't enforce what is waited for.
fn lagging(progress: &WaitPolicyResponse, alive: bool) -> String {
    let nodes = progress.nodes.iter().filter(|node| node.alive == alive && !node.enforced);
    nodes.map(|node| node.node.as_str()).collect::<Vec<_>>().join(", ")
}

fn text(progress: &WaitPolicyResponse, now: SystemTime, paint: Paint) -> String {
    let mut table = Table::new(&["NODE", "STATE", "REVISION", "LAST HEARD OF", "BEHIND IN"]);
    for node in &progress.nodes {
        let state = match (node.alive, node.enforced) {
            (false, true) => Cell::toned(Tone::Odd, "enforced, silent"),
            (false, false) => Cell::toned(Tone::Odd, "silent"),
            (true, true) => Cell::toned(Tone::Good, "enforced"),
            (true, false) if !progress.refused.is_empty() => Cell::toned(Tone::Bad, "refused"),
            (true, false) => Cell::toned(Tone::Bad, "behind"),
        };
        let heard = when::age(now, node.last_seen.as_ref());
        let heard = if heard.is_empty() { heard } else { format!("{heard} ago") };
        table.row([
            (&node.node).into(),
            state,
            node.revision.into(),
            heard.into(),
            words::listed(&node.behind).into(),
        ]);
    }
    table.render(paint, "No node has answered.")
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::failure::Code;

    fn node(node: &str, alive: bool, enforced: bool) -> NodeProgress {
        NodeProgress {
            node: node.into(),
            alive,
            enforced,
            revision: 12,
            last_seen: Some(Timestamp { seconds: 100, nanos: 0 }),
            behind: if enforced { vec![] } else { vec!["snp/default/web".into()] },
        }
    }

    fn progress(enforced: bool, refused: &[&str]) -> WaitPolicyResponse {
        WaitPolicyResponse {
            enforced,
            nodes: vec![node("a", true, true), node("b", true, enforced), node("d", false, true)],
            revision: 12,
            refused: refused.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    const HALF_A_MINUTE: Duration = Duration::from_secs(30);

    #[test]
    fn the_exit_code_tells_late_from_never() {
        assert!(judge(&progress(true, &[]), true, HALF_A_MINUTE, None).is_ok());
        let late = judge(&progress(false, &[]), false, HALF_A_MINUTE, None).unwrap_err();
        assert_eq!(
            (late.code, late.message.as_str()),
            (Code::TimedOut, "not enforced everywhere after 30s; behind: b")
        );
        let never = judge(&progress(true, &["cnp/default/x"]), true, HALF_A_MINUTE, None).unwrap_err();
        assert_eq!(
            (never.code, never.message.as_str()),
            (Code::Failed, "refused, so never enforced: cnp/default/x")
        );
        let silent = judge(&WaitPolicyResponse::default(), false, HALF_A_MINUTE, None).unwrap_err();
        assert_eq!(silent.message, "not enforced everywhere after 30s; no node has answered");
    }

    #[test]
    fn a_generation_that_is_not_there_is_told_with_those_that_are() {
        let policy =
            |generation, running_generation| Policy { generation, running_generation, ..Policy::default() };
        assert_eq!(generations(7, &policy(7, 7)), None, "then the nodes are behind");
        let told = "generation 5 is asked for, the store has 7, and ";
        for (running, end) in [(7, "that one is in force"), (6, "6 is in force"), (0, "none is in force")] {
            assert_eq!(generations(5, &policy(7, running)), Some(format!("{told}{end}")));
        }
        let late = judge(&progress(false, &[]), false, HALF_A_MINUTE, generations(5, &policy(7, 7)));
        let message = late.unwrap_err().message;
        assert_eq!(message, format!("not enforced everywhere after 30s; {told}that one is in force"));
    }

    #[test]
    fn a_silent_node_is_listed_and_told_of() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(101);
        let mut progress = progress(false, &[]);
        progress.nodes.insert(2, node("c", false, false));
        let expected = "\
NODE  STATE             REVISION  LAST HEARD OF  BEHIND IN
a     enforced          12        1s ago         -
b     behind            12        1s ago         snp/default/web
c     silent            12        1s ago         snp/default/web
d     enforced, silent  12        1s ago         -
";
        assert_eq!(text(&progress, now, Paint::Plain), expected);
        let told = "node c is silent since 1970-01-01T00:01:40.000000Z: its pods go on with the policies that it had";
        assert_eq!(silent(&progress), [told]);
        let late = judge(&progress, false, HALF_A_MINUTE, None).unwrap_err();
        assert_eq!(late.message, "not enforced everywhere after 30s; behind: b; silent: c");
        assert!(late.next.iter().any(|step| step.ends_with("--ignore-silent")), "{:?}", late.next);
        progress.nodes[1].enforced = true;
        let late = judge(&progress, false, HALF_A_MINUTE, None).unwrap_err();
        assert_eq!(
            (late.code, late.message.as_str()),
            (Code::TimedOut, "not enforced everywhere after 30s; silent: c")
        );
    }
}
