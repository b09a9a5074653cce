//! Names as people type them: `name`, `ns/name` or a unique prefix of either; a miss lists the nearest names.
//!
//! Nothing is guessed: several candidates are an error that lists them (exit 3). Neighbours: every command that takes a
//! pod, a policy or an identity; `failure.rs` carries the miss.

use crate::failure::Failure;

/// How many names a miss lists.
const NEAREST: usize = 5;

/// What is looked for, in the words of messages and with the command that lists all of it.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// `pod`, `policy`.
    pub(crate) word: &'static str,
    /// `list them: sinew endpoint list`.
    pub(crate) list: &'static str,
}

/// Pods.
pub(crate) const POD: Kind = Kind { word: "pod", list: "sinew endpoint list" };

/// Policies.
pub(crate) const POLICY: Kind = Kind { word: "policy", list: "sinew policy list" };

/// The index of the one name that `wanted` means.
///
/// In this order: the whole name; its last parts (`web` for `default/web`, `ns/web` for `snp/ns/web`); a prefix of the
/// whole name or of such a part. The first of these that fits exactly one name decides; one that fits several is
/// an error.
pub(crate) fn find<S: AsRef<str>>(kind: Kind, wanted: &str, names: &[S]) -> Result<usize, Failure> {
    if wanted.is_empty() {
        return Err(Failure::usage(format!("the name of the {} is empty", kind.word)));
    }
    let fits: [fn(&str, &str) -> bool; 3] = [
        |name, wanted| name == wanted,
        |name, wanted| tails(name).any(|tail| tail == wanted),
        |name, wanted| tails(name).any(|tail| tail.starts_with(wanted)),
    ];
    for fit in fits {
        let found = (0..names.len()).filter(|index| fit(names[*index].as_ref(), wanted)).collect::<Vec<_>>();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(*one),
            several => {
                let listed = several.iter().map(|index| names[*index].as_ref()).collect::<Vec<_>>();
                return Err(ambiguous(kind, wanted, &listed));
            }
        }
    }
    Err(missing(kind, wanted, names))
}

/// The names nearest to `wanted`, nearest first; only those that a typing error explains.
pub(crate) fn nearest<'a, S: AsRef<str>>(wanted: &str, names: &'a [S]) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut ranked = names
        .iter()
        .map(AsRef::as_ref)
        .filter_map(|name| {
            let score = tails(name).map(|tail| likeness(&wanted, tail)).fold(0.0, f64::max);
            (score >= 0.75).then_some((score, name))
        })
        .collect::<Vec<_>>();
    ranked.sort_by(|(a, left), (b, right)| b.total_cmp(a).then_with(|| left.cmp(right)));
    ranked.truncate(NEAREST);
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// 0 to 1. A name that holds the wanted one is near however long it is, and so is one that a few slips of the fingers
/// make of it; else Jaro-Winkler, which favours a common beginning, as pods of one deployment have it.
fn likeness(wanted: &str, name: &str) -> f64 {
    let name = name.to_lowercase();
    let length = wanted.chars().count();
    if length >= 3 && name.contains(wanted) {
        return 0.9;
    }
    let slips = strsim::osa_distance(wanted, &name);
    if length >= 3 && slips <= (length / 4).max(1) { 0.85 } else { strsim::jaro_winkler(wanted, &name) }
}

/// `a/b/c`, `b/c`, `c`.
fn tails(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('/').map(|(slash, _)| &name[slash + 1..]))
}

fn ambiguous(kind: Kind, wanted: &str, found: &[&str]) -> Failure {
    let mut shown = found.iter().take(NEAREST).copied().collect::<Vec<_>>().join(", ");
    if found.len() > NEAREST {
        shown.push_str(&format!(", and {} more", found.len() - NEAREST));
    }
    Failure::unknown_name(format!("\"{wanted}\" fits {} names of a {}: {shown}", found.len(), kind.word))
        .next("name it in full")
}

fn missing<S: AsRef<str>>(kind: Kind, wanted: &str, names: &[S]) -> Failure {
    let failure = Failure::unknown_name(format!("no {} is called \"{wanted}\"", kind.word));
    let failure = match nearest(wanted, names).as_slice() {
        [] => failure,
        near => failure.next(format!("nearest: {}", near.join(", "))),
    };
    failure.next(format!("list all: {}", kind.list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    const PODS: [&str; 6] =
        ["default/client", "default/web-1", "default/web-10", "shop/cart", "shop/client", "kube-system/dns"];

    fn found(wanted: &str) -> Result<&'static str, String> {
        find(POD, wanted, &PODS).map(|index| PODS[index]).map_err(|failure| {
            assert_eq!(failure.code, Code::UnknownName);
            failure.to_string()
        })
    }

    #[test]
    fn by_full_name_by_name_and_by_prefix() {
        assert_eq!(found("shop/client"), Ok("shop/client"));
        assert_eq!(found("cart"), Ok("shop/cart"));
        assert_eq!(found("ca"), Ok("shop/cart"));
        assert_eq!(found("kube-system/d"), Ok("kube-system/dns"));
        // An exact name wins over a longer one that begins with it.
        assert_eq!(found("web-1"), Ok("default/web-1"));
    }

    #[test]
    fn several_candidates_are_listed() {
        let expected = "\"client\" fits 2 names of a pod: default/client, shop/client\n  name it in full";
        assert_eq!(found("client"), Err(expected.into()));
        let expected = "\"web\" fits 2 names of a pod: default/web-1, default/web-10\n  name it in full";
        assert_eq!(found("web"), Err(expected.into()));
    }

    #[test]
    fn a_miss_lists_the_nearest() {
        let expected = "no pod is called \"cleint\"\n  nearest: default/client, shop/client\n  \
                        list all: sinew endpoint list";
        assert_eq!(found("cleint"), Err(expected.into()));
        // Two letters swapped, in a name too short for a common beginning.
        assert_eq!(nearest("dsn", &PODS), ["kube-system/dns"]);
        let expected = "no pod is called \"zzz\"\n  list all: sinew endpoint list";
        assert_eq!(found("zzz"), Err(expected.into()));
    }

    #[test]
    fn a_policy_is_found_without_its_kind() {
        let policies = ["snp/default/web", "netpol/default/web", "ccnp/base"];
        assert_eq!(find(POLICY, "base", &policies).ok(), Some(2));
        assert_eq!(find(POLICY, "netpol/default/web", &policies).ok(), Some(1));
        assert_eq!(find(POLICY, "default/web", &policies).map_err(|f| f.code), Err(Code::UnknownName));
    }

    #[test]
    fn an_empty_name_is_a_usage_error() {
        assert_eq!(find(POD, "", &PODS).map_err(|failure| failure.code), Err(Code::TimedOut));
    }
}
