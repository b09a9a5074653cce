//! What files of the store look like, good and bad.

use super::{Document, MAX_DEPTH, MAX_DOCUMENTS, SyntaxError, Value, documents, write};

fn all(text: &str) -> Vec<Document> {
    documents(text).into_iter().map(|document| document.unwrap()).collect()
}

fn error(text: &str) -> SyntaxError {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "one document in {text:?}: {documents:?}");
    documents.remove(0).unwrap_err()
}

#[test]
fn lines_are_those_of_the_file() {
    let text = "# a comment\n---\na: 1\nb:\n  - x\n  - y: {z: 2}\n---\n\nc: 3\n";
    let documents = all(text);
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0].line, 3);
    let list = documents[0].root.get("b").unwrap();
    let Value::Sequence(items) = &list.value else { panic!("{list:?}") };
    assert_eq!((items[0].line, items[1].line), (5, 6));
    assert_eq!(items[1].get("y").unwrap().get("z").unwrap().value, Value::Integer(2));
    assert_eq!(documents[1].line, 9);
}

#[test]
fn an_empty_document_is_none_whatever_is_beside_its_marker() {
    for nothing in [
        "--- # the end\n",
        "--- # one\n# two\n\n",
        "---\nnull\n",
        "--- ~\n",
        "--- !!null\n",
        "%YAML 1.2\n--- # x\n",
    ] {
        let documents = all(&format!("a: 1\n...\n{nothing}---\nb: 2\n"));
        let roots: Vec<bool> = documents.iter().map(|one| one.root.get("a").is_some()).collect();
        assert_eq!(roots, [true, false], "{nothing:?}");
        assert_eq!(all(nothing), [], "{nothing:?}");
    }
    assert_eq!(all("--- ''\n").len(), 1, "an empty text is something, and no object");
}

#[test]
fn a_broken_document_leaves_its_neighbours_whole() {
    let documents = documents("a: 1\n---\nb: [1, 2\n---\nc: 3\n...\n# the end\n");
    assert_eq!(documents.len(), 3);
    assert!(documents[0].is_ok() && documents[2].is_ok());
    let wrong = documents[1].as_ref().unwrap_err();
    assert!((3..=4).contains(&wrong.line), "{wrong}");
}

#[test]
fn a_tab_as_indentation_is_named_with_line_and_column() {
    let wrong = error("a: 1\nb:\n\tc: 2\n");
    assert_eq!((wrong.line, wrong.column), (3, 2), "the parser stands behind the tab: {wrong}");
}

#[test]
fn keys_may_not_stand_twice() {
    let wrong = error("spec:\n  a: 1\n  b: 2\n  a: 3\n");
    assert_eq!(wrong.to_string(), "line 4, column 3: key \"a\" stands twice in one mapping");
}

#[test]
fn scalars_have_the_types_that_kubectl_gives_them() {
    let cases = [
        ("80", Value::Integer(80)),
        ("-1", Value::Integer(-1)),
        ("0x10", Value::Integer(16)),
        ("\"80\"", Value::Text("80".into())),
        ("!!str 80", Value::Text("80".into())),
        ("yes", Value::Bool(true)),
        ("off", Value::Bool(false)),
        ("'off'", Value::Text("off".into())),
        ("~", Value::Null),
        ("0755", Value::Number("0755".into())),
        ("1.5", Value::Number("1.5".into())),
        ("1e3", Value::Number("1e3".into())),
        ("99999999999999999999", Value::Number("99999999999999999999".into())),
        ("10.0.0.1", Value::Text("10.0.0.1".into())),
        ("fd00::1", Value::Text("fd00::1".into())),
        ("e5", Value::Text("e5".into())),
        ("1.2.3", Value::Text("1.2.3".into())),
    ];
    for (text, value) in cases {
        assert_eq!(all(&format!("a: {text}\n"))[0].root.get("a").unwrap().value, value, "{text}");
    }
}

#[test]
fn anchors_aliases_and_merge_keys_are_read() {
    let document = &all("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nagain: *b\n")[0];
    let other = document.root.get("other").unwrap();
    assert_eq!(other.get("x").unwrap().value, Value::Integer(1));
    assert_eq!(other.get("y").unwrap().value, Value::Integer(3));
    assert_eq!(document.root.get("again").unwrap().get("y").unwrap().value, Value::Integer(2));
}

#[test]
fn aliases_cannot_multiply_without_bound() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let before = level - 1;
        let ten = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
    }
    assert!(error(&text).message.contains("aliases counted in full"));
}

#[test]
fn aliases_cannot_nest_without_bound() {
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..=MAX_DEPTH {
        text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(error(&text).message.contains("levels deep"));
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(50_000)] {
        assert!(documents(&text)[0].is_err());
    }
}

#[test]
fn json_is_read_too() {
    let document = &all("{\n  \"a\": [1, true, null, \"x\"],\n  \"b\": {\"c\": \"0\"}\n}\n")[0];
    assert_eq!(document.root.get("b").unwrap().get("c").unwrap().value, Value::Text("0".into()));
    assert_eq!(document.root.get("b").unwrap().line, 3);
}

#[test]
fn json_may_be_indented_with_tabs_and_escape_what_it_likes() {
    let document = &all("{\n\t\"a\": \"x\\/y\",\n\t\"b\": \"\\ud83d\\ude00 \\u00e9 \\\\ud83d\"\n}\n")[0];
    assert_eq!(document.root.get("a").unwrap().as_text(), Some("x/y"));
    assert_eq!(document.root.get("b").unwrap().as_text(), Some("\u{1f600} \u{e9} \\ud83d"));
    assert!(error("{\"a\": \"\\ud83d\"}").message.contains("Unicode"), "half a pair is no character");
}

#[test]
fn a_file_cannot_hold_documents_without_bound() {
    let documents = documents(&"---\na\n".repeat(MAX_DOCUMENTS + 5));
    assert_eq!(documents.len(), MAX_DOCUMENTS + 1);
    let wrong = documents[MAX_DOCUMENTS].as_ref().unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "line 20001, column 1: the file has 10005 documents; at most 10000 are read"
    );
}

#[test]
fn empty_documents_are_none() {
    for text in ["", "\n\n", "---\n---\n", "# only a comment\n", "\u{feff}---\n", "%YAML 1.2\n---\n"] {
        assert!(documents(text).is_empty(), "{text:?}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let value = serde_json::json!({
        "plain": "web-1", "address": "fd00::1", "number": "80", "yes": "yes", "empty": "", "list": [], "none": null,
        "date": "2026-01-02", "time": "10:30", "hash": "a # b", "colon": "a: b", "lines": "a\nb", "quote": "it's \"x\"",
        "nested": {"list": [{"a": 1, "b": ["x", ["y"]]}, "z"], "map": {}},
        "labels": ["k8s:app=web", "reserved:world"], "glob": "*x", "anchor": "&x", "tilde": "~",
    });
    let text = write(&value);
    let document = &all(&text)[0];
    assert_eq!(to_json(&document.root), value, "{text}");
}

fn to_json(node: &super::Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Number(text) => panic!("{text} was not written"),
        Value::Text(text) => text.clone().into(),
        Value::Sequence(items) => items.iter().map(to_json).collect(),
        Value::Mapping(entries) => {
            serde_json::Value::Object(entries.iter().map(|e| (e.key.clone(), to_json(&e.value))).collect())
        }
    }
}
