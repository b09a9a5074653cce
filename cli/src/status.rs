//! `sinew status`: whether the node works, and if not, what does not and what to do.
//!
//! The first line is the answer; conditions that are not as they should be come next, in the words of the agent.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use clap::Args;
use sinew_api::proto::agent::condition::State;
use sinew_api::proto::agent::{
    Condition, EndpointState, FlowStatus, GetStatusRequest, GetStatusResponse, KernelDrops, PolicyState,
};
use sinew_api::proto::flow::LostEventSource;

use crate::failure::Failure;
use crate::output::Paint;
use crate::output::paint::Tone;
use crate::{AgentArgs, agent, map, when};

/// How often `--wait` asks.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `sinew status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Wait until the agent answers and no part of the node is broken; exits 2 when it does not in time
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "TIME")]
    wait_duration: Duration,
    #[command(flatten)]
    agent: AgentArgs,
}

/// Shows the state; a node that is not ready is a failure.
pub(crate) async fn run(args: &StatusArgs) -> Result<()> {
    let status = if args.wait { wait(args).await? } else { ask(&args.agent).await? };
    let now = SystemTime::now();
    args.agent.screen().show("GetStatusResponse", &status, |paint| text(&status, now, paint))?;
    if status.ready { Ok(()) } else { Err(Failure::failed(not_ready(&status)).into()) }
}

async fn ask(args: &AgentArgs) -> Result<GetStatusResponse, Failure> {
    let answer = args.connect().await?.get_status(args.request(GetStatusRequest {})).await;
    answer.map(tonic::Response::into_inner).map_err(|status| agent::refused(&status))
}

async fn wait(args: &StatusArgs) -> Result<GetStatusResponse, Failure> {
    let end = Instant::now() + args.wait_duration;
    loop {
        let answer = ask(&args.agent).await;
        if let Ok(status) = &answer
            && status.ready
        {
            return answer;
        }
        if Instant::now() + ASK_EVERY > end {
            let why = match answer {
                Ok(status) => not_ready(&status),
                Err(failure) => failure.message,
            };
            let waited = when::brief(args.wait_duration);
            return Err(Failure::timed_out(format!("not ready after {waited}: {why}"))
                .next("give it longer with --wait-duration, or see everything with sinew status"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn not_ready(status: &GetStatusResponse) -> String {
    let broken = status.conditions.iter().filter(|condition| condition.state() == State::Failure);
    let broken = broken.map(|condition| condition.name.as_str()).collect::<Vec<_>>();
    if broken.is_empty() {
        "the node is not ready".into()
    } else {
        format!("not working: {}", broken.join(", "))
    }
}

fn text(status: &GetStatusResponse, now: SystemTime, paint: Paint) -> String {
    let mut text = headline(status, paint);
    let (bad, good): (Vec<_>, Vec<_>) = status.conditions.iter().partition(|c| c.state() != State::Ok);
    for condition in bad.into_iter().chain(good) {
        text.push_str(&condition_line(condition, paint));
    }
    text.push('\n');
    for (name, value) in facts(status, now) {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    text
}

fn headline(status: &GetStatusResponse, paint: Paint) -> String {
    let warned = status.conditions.iter().any(|condition| condition.state() == State::Warning);
    let (tone, word) = match (status.ready, warned) {
        (false, _) => (Tone::Bad, "NOT READY"),
        (true, true) => (Tone::Odd, "READY, with warnings"),
        (true, false) => (Tone::Good, "READY"),
    };
    format!("node {}: {}\n", paint.tone(Tone::Strong, &status.node), paint.tone(tone, word))
}

fn condition_line(condition: &Condition, paint: Paint) -> String {
    let (tone, word) = match condition.state() {
        State::Ok => (Tone::Good, "ok"),
        State::Warning => (Tone::Odd, "warning"),
        State::Failure => (Tone::Bad, "FAILURE"),
        State::Unspecified => (Tone::Odd, "unknown"),
    };
    let word = format!("{}{}", paint.tone(tone, word), " ".repeat(8usize.saturating_sub(word.len())));
    format!("  {word} {:<11} {}\n", condition.name, condition.message).trim_end().to_owned() + "\n"
}

/// Names and values of the block under the conditions.
fn facts(status: &GetStatusResponse, now: SystemTime) -> Vec<(&'static str, String)> {
    let mut facts =
        vec![("cluster", status.cluster.clone()), ("addresses", status.node_addresses.join(", "))];
    if let Some(version) = &status.version {
        let up = when::age(now, status.started.as_ref());
        let up = if up.is_empty() { String::new() } else { format!(", up {up}") };
        facts.push(("agent", format!("{}{up}, kernel {}", version.version, version.kernel)));
    }
    facts.push(("store", status.store.clone()));
    facts.push(("routing", format!("{}, MTU {}", status.routing, status.mtu)));
    facts.push((
        "revision",
        match status.desired_revision {
            desired if desired > status.revision => format!("{} enforced, {desired} wanted", status.revision),
            _ => format!("{} enforced", status.revision),
        },
    ));
    facts.push(("endpoints", counts(status.endpoints.iter().map(|c| (endpoint_state(c.state()), c.count)))));
    facts.push(("policies", counts(status.policies.iter().map(|c| (policy_state(c.state()), c.count)))));
    facts.push(("identities", status.identities.to_string()));
    for pool in &status.pools {
        let resting = if pool.resting == 0 { String::new() } else { format!(", {} resting", pool.resting) };
        // Nobody runs out of a /64, and twenty digits say nothing.
        let of = if pool.capacity > u64::from(u32::MAX) {
            String::new()
        } else {
            format!(" of {}", pool.capacity)
        };
        facts.push(("pool", format!("{}: {}{of} leased{resting}", pool.cidr, pool.leased)));
    }
    for node in &status.nodes {
        let life = match (node.alive, when::age(now, node.last_seen.as_ref())) {
            (true, _) => "alive".to_owned(),
            (false, age) if age.is_empty() => "never heard of".to_owned(),
            (false, age) => format!("SILENT for {age}"),
        };
        facts.push(("other node", format!("{} {life}, {}", node.name, node.addresses.join(", "))));
    }
    if let Some(flows) = &status.flows {
        if flows.off.is_empty() {
            facts.push((
                "flows",
                format!(
                    "{} seen, {:.1}/s, {} of {} kept",
                    flows.seen, flows.rate, flows.held, flows.capacity
                ),
            ));
            facts.push(("lost", losses(flows)));
        } else {
            facts.push(("flows", flows.off.clone()));
        }
    }
    facts.push(("kernel", status.kernel_drops.as_ref().map(kernel_drops).unwrap_or_default()));
    let filling = status.maps.iter().filter(|map| map::tone(map.pressure) != Tone::Plain);
    let filling =
        filling.map(|map| format!("{} {}", map.name, map::percent(map.pressure))).collect::<Vec<_>>();
    if !filling.is_empty() {
        facts.push(("filling up", format!("{} (sinew map list)", filling.join(", "))));
    }
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn counts<'a>(counts: impl Iterator<Item = (&'a str, u32)>) -> String {
    let shown = counts.map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>();
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

/// Nothing where there is nothing to tell.
fn kernel_drops(drops: &KernelDrops) -> String {
    if !drops.off.is_empty() {
        return format!("what it drops after our verdict is not counted: {}", drops.off);
    }
    if drops.reasons.is_empty() {
        return String::new();
    }
    let total: u64 = drops.reasons.iter().map(|drop| drop.packets).sum();
    let mut reasons = drops.reasons.iter().collect::<Vec<_>>();
    reasons.sort_by(|a, b| b.packets.cmp(&a.packets).then_with(|| a.reason.cmp(&b.reason)));
    let reasons = reasons.iter().map(|drop| format!("{} {}", drop.packets, drop.reason)).collect::<Vec<_>>();
    format!("dropped {total} after our verdict: {}", reasons.join(", "))
}

fn losses(flows: &FlowStatus) -> String {
    let shown = flows.losses.iter().filter(|loss| loss.events > 0).map(|loss| {
        let place = match loss.source() {
            LostEventSource::PerfEventRingBuffer if flows.suppressed > 0 => {
                let drops = flows.suppressed;
                return format!(
                    "{} between kernel and agent ({drops} of them drops beyond --monitor-drop-limit)",
                    loss.events
                );
            }
            LostEventSource::PerfEventRingBuffer => "between kernel and agent",
            LostEventSource::ObserverEventsQueue => "inside the agent",
            LostEventSource::HubbleRingBuffer => "to clients that read too slowly",
            LostEventSource::UnknownLostEventSource => "elsewhere",
        };
        format!("{} {place}", loss.events)
    });
    let shown = shown.collect::<Vec<_>>();
    if shown.is_empty() { "none".into() } else { shown.join(", ") }
}

/// The state in words.
pub(crate) fn endpoint_state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Unspecified => "unknown",
        EndpointState::WaitingForLabels => "waiting for labels",
        EndpointState::WaitingForIdentity => "waiting for identity",
        EndpointState::WaitingForTable => "waiting for table",
        EndpointState::Ready => "ready",
        EndpointState::Restored => "restored",
        EndpointState::Terminating => "terminating",
    }
}

/// The state in a word.
pub(crate) fn policy_state(state: PolicyState) -> &'static str {
    match state {
        PolicyState::Unspecified => "unknown",
        PolicyState::Enforced => "enforced",
        PolicyState::Audited => "audited",
        PolicyState::Refused => "refused",
        PolicyState::Pending => "pending",
    }
}

#[cfg(test)]
mod tests;
