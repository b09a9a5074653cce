//! Verdicts, rules, places and traffic in the words that every screen uses.

use sinew_api::proto::agent::RuleRef;
use sinew_api::proto::flow::{IpVersion, Verdict};

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

/// How many names of one thing a screen shows; JSON has all of them.
const MOST_NAMES: usize = 8;

/// Names in a row, and how many more there are.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let mut text = names.iter().take(MOST_NAMES).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMES {
        text.push_str(&format!(", and {} more", names.len() - MOST_NAMES));
    }
    text
}

/// `1 document`, `2 documents`, `3 policies`: both words, since not every plural ends in s alone.
pub(crate) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A text that fits into a column.
pub(crate) fn short(text: &str) -> String {
    const MOST: usize = 72;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(MOST - 3).collect::<String>())
}

/// Labels that somebody chose, and the namespace. Every pod has those of its namespace, cluster and service account
/// besides; `sinew identity get` and JSON show them.
pub(crate) fn chosen_labels(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).filter(|label| !label.starts_with("k8s:io.cilium.k8s.")).collect()
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

/// A family, as people write it; nothing for all of them.
pub(crate) fn family(family: IpVersion) -> &'static str {
    match family {
        IpVersion::IpNotUsed => "",
        IpVersion::IPv4 => "IPv4",
        IpVersion::IPv6 => "IPv6",
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
    fn one_of_a_thing_is_no_plural() {
        let told = [0, 1, 2].map(|number| count(number, "policy", "policies"));
        assert_eq!(told, ["0 policies", "1 policy", "2 policies"]);
    }

    #[test]
    fn long_lists_say_how_much_is_left_out() {
        assert_eq!(listed(&["a", "b"]), "a, b");
        let many = (0..1000).map(|number| format!("p{number}")).collect::<Vec<_>>();
        assert_eq!(listed(&many), "p0, p1, p2, p3, p4, p5, p6, p7, and 992 more");
        assert_eq!(short("default deny"), "default deny");
        let cut = short(&"x".repeat(100));
        assert!(cut.ends_with("xxx...") && cut.len() == 72, "{cut}");
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
