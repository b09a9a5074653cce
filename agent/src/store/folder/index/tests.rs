//! What is in force, told by namespaces and policies of a few lines.

use sinew_api::object::decode_text;

use super::*;

fn namespace(name: &str, team: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    team: {team}\n---\n")
}

/// `+name` for what was set, `-name` for what was removed.
fn settle(index: &mut Index) -> Vec<String> {
    let settled = index.settle();
    assert_eq!(settled.again.len(), 0);
    let mut lines: Vec<String> = settled
        .changes
        .into_iter()
        .map(|change| match change {
            StoreChange::Set(object) => {
                let Object::Namespace(namespace) = *object else { panic!("{object:?}") };
                format!("+{}={}", namespace.name, namespace.labels.get("team").map_or("", String::as_str))
            }
            StoreChange::Removed(name) => format!("-{}", name.name),
        })
        .collect();
    lines.sort();
    lines
}

fn write(index: &mut Index, path: &str, text: &str) -> Vec<String> {
    index.set_file(path, Some(decode_text(path, text)));
    settle(index)
}

fn remove(index: &mut Index, path: &str) -> Vec<String> {
    index.set_file(path, None);
    settle(index)
}

#[test]
fn files_come_change_and_go() {
    let mut index = Index::default();
    let both = namespace("a", "red") + &namespace("b", "red");
    assert_eq!(write(&mut index, "x.yaml", &both), ["+a=red", "+b=red"]);
    assert_eq!(write(&mut index, "x.yaml", &both), [] as [&str; 0], "the same text again changes nothing");
    assert_eq!(write(&mut index, "x.yaml", &namespace("a", "blue")), ["+a=blue", "-b"]);
    assert_eq!(remove(&mut index, "x.yaml"), ["-a"]);
}

#[test]
fn the_first_path_in_byte_order_wins_and_both_are_named() {
    let mut index = Index::default();
    assert_eq!(write(&mut index, "b.yaml", &namespace("a", "late")), ["+a=late"]);
    assert_eq!(write(&mut index, "Z.yaml", &namespace("a", "early")), ["+a=early"], "capitals come first");
    let refusals = index.take_refusals().unwrap();
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].origin.file, "b.yaml");
    let message = &refusals[0].problems[0].message;
    assert!(message.contains("Z.yaml:1") && message.contains("b.yaml:1"), "{message}");

    index.set_file("Z.yaml", None);
    let settled = index.settle();
    assert!(settled.changes.is_empty());
    assert_eq!(
        settled.again.iter().map(|path| &**path).collect::<Vec<_>>(),
        ["b.yaml"],
        "the other one steps in when it is read"
    );
    assert_eq!(write(&mut index, "b.yaml", &namespace("a", "late")), ["+a=late"]);
    assert_eq!(index.take_refusals().unwrap(), []);
}

#[test]
fn a_broken_document_keeps_its_last_good_version() {
    let mut index = Index::default();
    let both = namespace("a", "red") + &namespace("b", "red");
    write(&mut index, "x.yaml", &both);
    // The name can be read, the labels can't: `a` stays, `b` is gone since nothing hides it.
    let broken = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: [1]\n";
    assert_eq!(write(&mut index, "x.yaml", broken), ["-b"]);
    assert_eq!(index.take_refusals().unwrap().len(), 1);
    assert_eq!(write(&mut index, "x.yaml", &namespace("a", "blue")), ["+a=blue"]);
}

#[test]
fn an_unreadable_document_keeps_all_that_its_file_held() {
    let mut index = Index::default();
    let both = namespace("a", "red") + &namespace("b", "red");
    write(&mut index, "x.yaml", &both);
    write(&mut index, "y.yaml", &namespace("c", "red"));
    let half = namespace("a", "blue") + "kind: [";
    assert_eq!(
        write(&mut index, "x.yaml", &half),
        ["+a=blue"],
        "its neighbour is read, b may be the broken one"
    );
    assert_eq!(write(&mut index, "x.yaml", &namespace("a", "blue")), ["-b"], "nothing hides b any more");
    assert_eq!(remove(&mut index, "y.yaml"), ["-c"]);
}

#[test]
fn an_object_that_was_never_good_stays_out() {
    let mut index = Index::default();
    let broken = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: [1]\n";
    assert_eq!(write(&mut index, "x.yaml", broken), [] as [&str; 0]);
    assert_eq!(write(&mut index, "x.yaml", &namespace("a", "red")), ["+a=red"]);
}

#[test]
fn what_an_earlier_run_kept_comes_back_only_behind_an_unreadable_file() {
    let kept = |path: &str, name: &str| decode_text(path, &namespace(name, "kept")).remove(0).unwrap();
    let mut index = Index::restored(vec![kept("x.yaml", "a"), kept("y.yaml", "b"), kept("z.yaml", "c")]);
    index.set_file("x.yaml", Some(decode_text("x.yaml", "kind: [")));
    index.set_file("y.yaml", Some(decode_text("y.yaml", &namespace("b", "new"))));
    assert_eq!(settle(&mut index), ["+a=kept", "+b=new"], "c was never told of, so nothing is taken back");
}

/// Of a Deployment beside a policy.
const FOREIGN: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n---\n";

#[test]
fn a_document_of_a_foreign_kind_hides_nothing() {
    let mut index = Index::default();
    let both = namespace("a", "red") + &namespace("b", "red") + FOREIGN;
    assert_eq!(write(&mut index, "x.yaml", &both), ["+a=red", "+b=red"]);
    assert_eq!(write(&mut index, "x.yaml", &(namespace("a", "red") + FOREIGN)), ["-b"]);
    let told = index.take_refusals().unwrap();
    assert!(
        told.iter().all(|document| document.foreign) && told.len() == 1,
        "it is told of, as foreign: {told:?}"
    );
    // Half of a document may be anything.
    assert_eq!(write(&mut index, "x.yaml", "apiVersion: apps/v1\n"), [] as [&str; 0]);
    assert_eq!(write(&mut index, "x.yaml", FOREIGN), ["-a"]);
}

/// The file of a group with these CIDRs.
fn group(cidrs: &str) -> Documents {
    let text = format!(
        "apiVersion: sinew.io/v1\nkind: SinewCIDRGroup\nmetadata: {{name: bad}}\nspec: {{externalCIDRs: [{cidrs}]}}\n"
    );
    decode_text("g.yaml", &text)
}

/// How many prefixes the group has that was set, and whether that is all of it.
fn settle_group(index: &mut Index) -> Option<(usize, bool)> {
    match index.settle().changes.as_slice() {
        [] => None,
        [StoreChange::Set(object)] => {
            let Object::CidrGroup(group) = &**object else { panic!("{object:?}") };
            Some((group.prefixes.len(), group.whole))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_remains_of_a_group_holds_until_it_is_good() {
    let mut index = Index::default();
    index.set_file("g.yaml", Some(group("10.1.0.0/16, 10.0.0.0/33")));
    assert_eq!(settle_group(&mut index), Some((1, false)));
    index.set_file("g.yaml", Some(group("10.1.0.0/16, 10.2.0.0/16, 10.0.0.0/33")));
    assert_eq!(settle_group(&mut index), Some((2, false)), "the rest of a later text takes its place");
    index.set_file("g.yaml", Some(decode_text("g.yaml", "kind: [")));
    assert_eq!(settle_group(&mut index), None, "it stays behind an unreadable text");
    index.set_file("g.yaml", Some(group("10.1.0.0/16")));
    assert_eq!(settle_group(&mut index), Some((1, true)));
    index.set_file("g.yaml", Some(group("10.1.0.0/16, 10.2.0.0/16, 10.0.0.0/33")));
    assert_eq!(settle_group(&mut index), None, "the last good version stands, as a whole");
    index.set_file("g.yaml", None);
    assert!(matches!(index.settle().changes.as_slice(), [StoreChange::Removed(_)]));
}

#[test]
fn a_group_that_an_earlier_run_kept_stands_behind_a_refused_one() {
    let kept = group("10.1.0.0/16, 10.2.0.0/16").remove(0).unwrap();
    let mut index = Index::restored(vec![kept]);
    index.set_file("g.yaml", Some(group("10.1.0.0/33")));
    assert_eq!(settle_group(&mut index), Some((2, true)));
}
