//! An explanation for the person who was woken by it.
//!
//! In the order in which questions come: does it pass; where does it fail; who says so, in which file; what is nearly
//! right; what would make it pass. Every answer is complete in itself, and nothing has to be looked up elsewhere.
//!
//! Neighbours: the live command, the offline one and `observe --explain` all render this one message.

use sinew_api::proto::agent::{DirectionExplanation, ExplainResponse, NearMiss, ResolvedParty, RuleRef};
use sinew_api::proto::flow::{DropReason, TrafficDirection, Verdict};

use super::words;
use crate::output::Paint;
use crate::output::paint::Tone;

/// How many near misses are shown. More would hide the nearest.
const NEAR: usize = 3;

/// How many ports with a verdict of their own are shown.
const MOST_PORTS: usize = 16;

/// How many of the policies that switched default deny on are shown; one is enough to find the place.
const MOST_POLICIES: usize = 8;

/// The whole explanation.
pub(crate) fn explanation(answer: &ExplainResponse, paint: Paint) -> String {
    let mut text = headline(answer, paint);
    text.push('\n');
    text.push_str(&party("from", answer.from.as_ref(), paint));
    text.push_str(&party("to", answer.to.as_ref(), paint));
    text.push_str(&over(answer));
    if !answer.exceptions.is_empty() {
        text.push('\n');
        text.push_str(&exceptions(answer, paint));
    }
    for note in &answer.notes {
        text.push_str(&format!("\n{}.\n", capitalised(note)));
    }
    if answer.directions.is_empty() && answer.notes.is_empty() {
        text.push_str("\nNeither end is a pod that policy selects, so no policy is asked.\n");
    }
    for direction in &answer.directions {
        text.push('\n');
        text.push_str(&one_direction(direction, paint));
    }
    if !answer.suggestion.is_empty()
        && answer.directions.iter().all(|direction| direction.suggestion.is_empty())
    {
        text.push('\n');
        text.push_str(&suggestion(&answer.suggestion, paint));
    }
    text
}

fn headline(answer: &ExplainResponse, paint: Paint) -> String {
    let name = |party: Option<&ResolvedParty>| party.map_or("?", |party| party.name.as_str()).to_owned();
    let (from, to) = (name(answer.from.as_ref()), name(answer.to.as_ref()));
    let revision =
        if answer.revision == 0 { String::new() } else { format!("  (revision {})", answer.revision) };
    let asked = words::asked(&answer.protocol, answer.port);
    let tone = match is_mixed(answer) {
        true => Tone::Odd,
        false => words::headline(answer.verdict()).0,
    };
    format!("{}  {from} -> {to}  {asked}{revision}\n", paint.tone(tone, &verdict(answer)))
}

/// The verdict in a few words, as far as one word would not be true: of families and of ports that differ.
pub(crate) fn verdict(answer: &ExplainResponse) -> String {
    let word = |verdict| words::headline(verdict).1;
    let differ = answer.families.iter().any(|one| one.verdict() != answer.families[0].verdict());
    let mut text = if differ {
        let each = answer.families.iter();
        let each = each.map(|one| format!("{} over {}", word(one.verdict()), words::family(one.family())));
        each.collect::<Vec<_>>().join(", ")
    } else {
        word(answer.verdict()).to_owned()
    };
    if !answer.exceptions.is_empty() {
        text.push_str(" BUT FOR SOME PORTS");
    }
    text
}

fn is_mixed(answer: &ExplainResponse) -> bool {
    !answer.exceptions.is_empty()
        || answer.families.iter().any(|one| one.verdict() != answer.families[0].verdict())
}

/// The families that were judged; nothing where there was no other.
fn over(answer: &ExplainResponse) -> String {
    let families = answer.families.iter().map(|one| words::family(one.family())).collect::<Vec<_>>();
    let has_both = |party: &Option<ResolvedParty>| {
        let addresses = party.iter().flat_map(|party| &party.addresses);
        let v6 = addresses.map(|address| address.contains(':')).collect::<Vec<_>>();
        v6.contains(&true) && v6.contains(&false)
    };
    match families.as_slice() {
        [_, _, ..] if is_mixed(answer) => String::new(),
        [_, _, ..] => format!("  over  {}, with one verdict\n", families.join(" and ")),
        [only] if has_both(&answer.from) || has_both(&answer.to) => format!("  over  {only}\n"),
        _ => String::new(),
    }
}

/// Ports whose verdict is another than that of the rest.
fn exceptions(answer: &ExplainResponse, paint: Paint) -> String {
    let mut text = String::new();
    for one in answer.exceptions.iter().take(MOST_PORTS) {
        let (tone, word) = words::headline(one.verdict());
        let ports = words::traffic(&one.protocol, one.first, one.last);
        let family = words::family(one.family());
        let over = if family.is_empty() { String::new() } else { format!(" over {family}") };
        text.push_str(&format!("{}: {ports}{over}\n", paint.tone(tone, word)));
    }
    if answer.exceptions.len() > MOST_PORTS {
        text.push_str(&format!("and {} more; -o json has all\n", answer.exceptions.len() - MOST_PORTS));
    }
    text.push_str("Everything else, which no rule names by port:\n");
    text
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str()
}

fn party(title: &str, party: Option<&ResolvedParty>, paint: Paint) -> String {
    let Some(party) = party else { return String::new() };
    let mut facts = vec![party.name.clone(), format!("identity {}", party.identity)];
    if !party.node.is_empty() {
        facts.push(format!("node {}", party.node));
    }
    facts.extend(party.addresses.iter().filter(|address| **address != party.name).cloned());
    let mut text = format!("  {title:<5} {}\n", facts.join("  "));
    let labels = words::chosen_labels(&party.labels);
    if !labels.is_empty() {
        text.push_str(&format!("        {}\n", paint.tone(Tone::Faint, &labels.join(" "))));
    }
    let assumed = assumed(party);
    if !assumed.is_empty() {
        text.push_str(&format!(
            "        assumed, since none was given: {}\n",
            paint.tone(Tone::Faint, &assumed.join(" "))
        ));
    }
    text
}

/// Labels of an end that whoever named it by labels did not write. Such an end has what was written as its name.
fn assumed(party: &ResolvedParty) -> Vec<&str> {
    let written: Vec<&str> = party.name.split(',').collect();
    if !written.iter().any(|label| party.labels.iter().any(|known| known == label)) {
        return Vec::new();
    }
    let labels = party.labels.iter().map(String::as_str);
    labels.filter(|label| !written.contains(label)).collect()
}

fn one_direction(direction: &DirectionExplanation, paint: Paint) -> String {
    let shadow_differs =
        direction.shadow_verdict() != Verdict::Unknown && direction.shadow_verdict() != direction.verdict();
    let family = words::family(direction.family());
    let over = if family.is_empty() { String::new() } else { format!(" over {family}") };
    let mut text = format!("{} of {}{over}: ", side(direction), direction.endpoint);
    let (tone, word) = words::headline(direction.verdict());
    text.push_str(&paint.tone(tone, word));
    text.push_str(&because(direction));
    text.push('\n');
    if let Some(rule) = direction.rule.as_ref().filter(|rule| rule.built_in.is_empty()) {
        text.push_str(&rule_line(rule, paint));
    }
    // Where a rule or policies decided, the lines around say the same.
    if direction.rule.is_none() && direction.denied_by.is_empty() && direction.verdict() == Verdict::Dropped {
        text.push_str(&format!("  {}\n", direction.summary));
    }
    if direction.verdict() == Verdict::Dropped {
        text.push_str(&default_deny(direction, paint));
    }
    if shadow_differs {
        text.push_str(&shadow(direction, paint));
    }
    if !direction.near_misses.is_empty() {
        text.push_str(&near_misses(&direction.near_misses, paint));
    }
    if !direction.suggestion.is_empty() {
        text.push_str(&suggestion(&direction.suggestion, paint));
    }
    text
}

fn side(direction: &DirectionExplanation) -> &'static str {
    match direction.direction() {
        TrafficDirection::Egress => "egress",
        TrafficDirection::Ingress => "ingress",
        TrafficDirection::Unknown => "traffic",
    }
}

/// What follows the verdict on its line.
fn because(direction: &DirectionExplanation) -> String {
    let reason = match direction.drop_reason() {
        DropReason::Unknown => String::new(),
        reason => format!(" ({})", reason.as_str_name()),
    };
    match (&direction.rule, direction.verdict()) {
        (Some(rule), _) if !rule.built_in.is_empty() => format!(", {}{reason}", rule.built_in),
        (Some(_), Verdict::Dropped) => format!(" by a deny rule{reason}"),
        (Some(_), _) => " by a rule".into(),
        (None, Verdict::Dropped) if !direction.denied_by.is_empty() => format!(" by default{reason}"),
        (None, Verdict::Forwarded) => {
            format!(", no policy switches default deny on for its {}", side(direction))
        }
        (None, _) => reason,
    }
}

fn default_deny(direction: &DirectionExplanation, paint: Paint) -> String {
    if direction.denied_by.is_empty() {
        return String::new();
    }
    let mut text = "  no rule allows it, and default deny is switched on by\n".to_owned();
    for (index, policy) in direction.denied_by.iter().enumerate().take(MOST_POLICIES) {
        match direction.switched_on.get(index) {
            Some(rule) => text.push_str(&format!("  {}", rule_line(rule, paint))),
            None => text.push_str(&format!("    {policy}\n")),
        }
    }
    if direction.denied_by.len() > MOST_POLICIES {
        text.push_str(&format!("    and {} more\n", direction.denied_by.len() - MOST_POLICIES));
    }
    text
}

fn shadow(direction: &DirectionExplanation, paint: Paint) -> String {
    let word = if direction.shadow_verdict() == Verdict::Dropped { "deny" } else { "allow" };
    let mut text = format!(
        "  {}: with the audit policies in force it would {word} this",
        paint.tone(Tone::Odd, "AUDIT")
    );
    let audited = direction
        .enforcement
        .as_ref()
        .map(|enforcement| words::listed(&enforcement.audited_by))
        .unwrap_or_default();
    match &direction.shadow_rule {
        Some(rule) if rule.built_in.is_empty() => {
            text.push_str(&format!(", by\n  {}", rule_line(rule, paint)))
        }
        _ if !audited.is_empty() => text.push_str(&format!(" by default, switched on by {audited}\n")),
        _ => text.push('\n'),
    }
    text
}

fn near_misses(misses: &[NearMiss], paint: Paint) -> String {
    let mut text = "  nearest rules that do not match\n".to_owned();
    let rules = by_rule(misses).collect::<Vec<_>>();
    for fields in rules.iter().take(NEAR) {
        let Some(rule) = &fields[0].rule else { continue };
        text.push_str(&format!("  {}", rule_line(rule, paint)));
        for (number, miss) in fields.iter().enumerate() {
            // The rule's own path stands on the line above.
            let field = miss.field.strip_prefix(&rule.path).unwrap_or(&miss.field).trim_start_matches('.');
            let field = if field.is_empty() { String::new() } else { format!("{field} ") };
            let and = if number == 0 { "" } else { "and " };
            text.push_str(&format!("      {and}{field}wants {}, but it is {}\n", miss.wanted, miss.found));
        }
    }
    if rules.len() > NEAR {
        text.push_str(&format!("    and {} more that are farther off\n", rules.len() - NEAR));
    }
    text
}

/// The fields that failed, rule by rule.
pub(crate) fn by_rule(misses: &[NearMiss]) -> impl Iterator<Item = &[NearMiss]> {
    misses.chunk_by(|one, other| one.rule == other.rule)
}

fn rule_line(rule: &RuleRef, paint: Paint) -> String {
    let place = words::place(rule);
    let place =
        if place.is_empty() { String::new() } else { format!("  {}", paint.tone(Tone::Faint, &place)) };
    format!("  {}{place}\n", paint.tone(Tone::Strong, &words::rule(rule)))
}

fn suggestion(yaml: &str, paint: Paint) -> String {
    let mut text = "  the smallest addition that allows it\n".to_owned();
    for line in yaml.lines() {
        let shown =
            if line.trim_start().starts_with('#') { paint.tone(Tone::Faint, line) } else { line.to_owned() };
        text.push_str(&format!("    {shown}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
