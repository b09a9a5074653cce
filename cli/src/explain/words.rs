//! Verdicts, rules, places and traffic in the words that every screen uses.

use sinew_api::proto::agent::RuleRef;
use sinew_api::proto::flow::Verdict;

use crate::output::paint::Tone;

/// What becomes of a packet, in a word of a table.
pub(crate) fn verdict(verdict: Verdict) -> (Tone, &'static str) {
    match verdict {
        Verdict::Forwarded => (Tone::Good, "allow"),
        Verdict::Dropped => (Tone::Bad, "deny"),
        Verdict::Audit => (Tone::Odd, "audit"),
        Verdict::Redirected => (Tone::Good, "proxy"),
        Verdict::Error => (Tone::Bad, "error"),
        Verdict::Unknown | Verdict::Traced | Verdict::Translated => (Tone::Plain, "unknown"),
    }
}

/// The same for a headline.
pub(crate) fn headline(verdict: Verdict) -> (Tone, &'static str) {
    match verdict {
        Verdict::Forwarded => (Tone::Good, "ALLOWED"),
        Verdict::Dropped => (Tone::Bad, "DENIED"),
        Verdict::Audit => (Tone::Odd, "AUDIT"),
        Verdict::Redirected => (Tone::Good, "SENT TO THE PROXY"),
        Verdict::Error => (Tone::Bad, "ERROR"),
        Verdict::Unknown | Verdict::Traced | Verdict::Translated => (Tone::Odd, "NOT JUDGED"),
    }
}

/// `snp/default/web spec.ingress[0]`, or what stands in no file.
pub(crate) fn rule(rule: &RuleRef) -> String {
    match (rule.built_in.as_str(), rule.path.as_str()) {
        ("", "") => rule.policy.clone(),
        ("", path) => format!("{} {path}", rule.policy),
        (built_in, _) => built_in.to_owned(),
    }
}

/// `policies/web.yaml:9`; empty where it stands in no file.
pub(crate) fn place(rule: &RuleRef) -> String {
    match (rule.file.as_str(), rule.line) {
        ("", _) => String::new(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}"),
    }
}

/// `8080/TCP`, `8080-8090/UDP`, `TCP`, `type 8/ICMP`, `any`.
pub(crate) fn traffic(protocol: &str, first: u32, last: u32) -> String {
    let icmp = protocol.starts_with("ICMP");
    match (protocol, first, last) {
        ("" | "ANY", 0, 65_535) => "any".into(),
        (protocol, 0, 65_535) => protocol.to_owned(),
        (protocol, first, last) if first == last && icmp => format!("type {first}/{protocol}"),
        (protocol, first, last) if icmp => format!("types {first}-{last}/{protocol}"),
        (protocol, first, last) if first == last => format!("{first}/{protocol}"),
        (protocol, first, last) => format!("{first}-{last}/{protocol}"),
    }
}

/// The traffic that was asked about.
pub(crate) fn asked(protocol: &str, port: Option<u32>) -> String {
    port.map_or_else(|| traffic(protocol, 0, 65_535), |port| traffic(protocol, port, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_reads_as_it_is_typed() {
        for (protocol, first, last, text) in [
            ("TCP", 8080, 8080, "8080/TCP"),
            ("UDP", 8080, 8090, "8080-8090/UDP"),
            ("SCTP", 0, 65_535, "SCTP"),
            ("ANY", 0, 65_535, "any"),
            ("ICMP", 8, 8, "type 8/ICMP"),
            ("ICMPv6", 0, 65_535, "ICMPv6"),
        ] {
            assert_eq!(traffic(protocol, first, last), text);
        }
        assert_eq!(asked("TCP", Some(80)), "80/TCP");
        assert_eq!(asked("", None), "any");
    }

    #[test]
    fn a_rule_without_a_file_is_named_by_what_it_is() {
        let built_in = RuleRef { built_in: "the local host is always allowed".into(), ..RuleRef::default() };
        assert_eq!(rule(&built_in), "the local host is always allowed");
        assert_eq!(place(&built_in), "");
        let kubernetes = RuleRef { file: "<kubernetes>".into(), ..RuleRef::default() };
        assert_eq!(place(&kubernetes), "<kubernetes>");
    }
}
