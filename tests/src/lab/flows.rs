//! Flows as a test reads them: what `sinew observe -o json` printed, with the questions that tests ask of a flow.
//!
//! Read through the command line and not through gRPC, so that a test sees what a person sees.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::pause;
use super::{Lab, Node};

/// Events travel in batches; a flow that is not there after this does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow(Value);

impl Flow {
    /// `FORWARDED`, `DROPPED`, `AUDIT`, …
    #[must_use]
    pub fn verdict(&self) -> &str {
        self.text("/verdict")
    }

    /// Whether it is IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.text("/IP/ipVersion") == "IPv6"
    }

    /// Hubble's name of the drop reason; empty unless dropped.
    #[must_use]
    pub fn drop_reason(&self) -> &str {
        self.text("/drop_reason_desc")
    }

    /// Our own, finer drop reason in words; empty where Hubble's says all.
    #[must_use]
    pub fn own_reason(&self) -> &str {
        self.text("/extensions/value/reason_text")
    }

    /// The sending pod's name, or empty.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text("/source/pod_name")
    }

    /// The receiving pod's name, or empty.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.text("/destination/pod_name")
    }

    /// The sender's identity.
    #[must_use]
    pub fn source_identity(&self) -> u64 {
        self.0.pointer("/source/identity").and_then(Value::as_u64).unwrap_or(0)
    }

    /// `INGRESS` or `EGRESS`.
    #[must_use]
    pub fn direction(&self) -> &str {
        self.text("/traffic_direction")
    }

    /// The destination's port; `None` without ports.
    #[must_use]
    pub fn port(&self) -> Option<u64> {
        let l4 = self.0.get("l4")?.as_object()?;
        l4.values().find_map(|protocol| protocol.get("destination_port")).and_then(Value::as_u64)
    }

    /// `TCP`, `UDP`, `ICMPv4`, `ICMPv6`, or empty.
    #[must_use]
    pub fn protocol(&self) -> &str {
        let l4 = self.0.get("l4").and_then(Value::as_object);
        l4.and_then(|l4| l4.keys().next()).map_or("", String::as_str)
    }

    /// Names of the policies that denied it, either direction.
    #[must_use]
    pub fn denied_by(&self) -> Vec<String> {
        self.policies(&["egress_denied_by", "ingress_denied_by"])
    }

    /// Names of the policies that allowed it, either direction.
    #[must_use]
    pub fn allowed_by(&self) -> Vec<String> {
        self.policies(&["egress_allowed_by", "ingress_allowed_by"])
    }

    /// Whether no rule denied it but a default deny.
    #[must_use]
    pub fn by_default(&self) -> bool {
        self.0.pointer("/extensions/value/default_deny").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The flow as the command printed it.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }

    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or("")
    }

    fn policies(&self, lists: &[&str]) -> Vec<String> {
        let lists = lists.iter().filter_map(|list| self.0.get(list)?.as_array());
        let names = lists.flatten().filter_map(|policy| policy.get("name")?.as_str());
        names.map(str::to_owned).collect()
    }
}

impl Node {
    /// Every flow that the node's agent still holds, or those since a moment.
    ///
    /// # Errors
    /// `sinew observe` failed or printed something else.
    pub fn flows(&self, since: Option<SystemTime>) -> Result<Vec<Flow>> {
        let mut words = vec!["observe".to_owned(), "-o".to_owned(), "json".to_owned()];
        match since {
            None => words.push("--all".to_owned()),
            Some(since) => words.extend(["--since".to_owned(), moment(since)?]),
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.sinew(&words)?;
        ensure!(output.status.success(), "sinew observe: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("flows are UTF-8")?;
        let mut flows = Vec::new();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            if let Some(flow) = value.get("flow") {
                flows.push(Flow(flow.clone()));
            }
        }
        Ok(flows)
    }

    /// The first flow since a moment that fits; waits for it.
    ///
    /// # Errors
    /// It does not come; the error lists what came instead.
    pub fn flow(&self, since: SystemTime, what: &str, fits: impl Fn(&Flow) -> bool) -> Result<Flow> {
        let end = SystemTime::now() + PATIENCE;
        loop {
            let flows = self.flows(Some(since))?;
            if let Some(flow) = flows.iter().find(|flow| fits(flow)) {
                return Ok(flow.clone());
            }
            if SystemTime::now() > end {
                let came: Vec<String> = flows.iter().map(|flow| flow.0.to_string()).collect();
                anyhow::bail!("node {}: no flow {what}; there are:\n{}", self.name(), came.join("\n"));
            }
            pause(Duration::from_millis(50))?;
        }
    }
}

/// A point in time for `--since`.
///
/// # Errors
/// The clock is out of all bounds.
pub fn moment(time: SystemTime) -> Result<String> {
    Ok(jiff::Timestamp::try_from(time).context("a time that no calendar has")?.to_string())
}

impl Lab {
    /// A drop of a packet between two pods on any node; waits for it.
    ///
    /// # Errors
    /// No node reports one.
    pub fn dropped(&self, since: SystemTime, from: &str, to: &str, protocol: &str) -> Result<Flow> {
        let fits = |flow: &Flow| {
            flow.verdict() == "DROPPED"
                && flow.source() == from
                && flow.destination() == to
                && flow.protocol() == protocol
                && !flow.drop_reason().is_empty()
        };
        self.flow_of_any(since, &format!("of a drop {from} → {to} {protocol}"), fits)
    }

    /// The first flow of any node since a moment that fits; waits for it.
    ///
    /// # Errors
    /// It does not come.
    pub fn flow_of_any(&self, since: SystemTime, what: &str, fits: impl Fn(&Flow) -> bool) -> Result<Flow> {
        let end = SystemTime::now() + PATIENCE;
        loop {
            for node in self.nodes() {
                if let Some(flow) = node.flows(Some(since))?.into_iter().find(&fits) {
                    return Ok(flow);
                }
            }
            ensure!(SystemTime::now() < end, "no node reports a flow {what}");
            pause(Duration::from_millis(50))?;
        }
    }
}
