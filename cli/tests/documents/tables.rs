//! Tables of the documents that repeat code. Each stands between `<!-- generated: NAME -->` and `<!-- end -->`.

use std::fmt::Write as _;
use std::fs;

use sinew_api::proto::flow;
use sinew_bpf::conntrack::timeout;
use sinew_bpf::drop::DropReason;

use super::{file, writing};

/// A table of a document.
struct Table {
    document: &'static str,
    name: &'static str,
    make: fn() -> String,
}

const TABLES: [Table; 4] = [
    Table { document: "docs/testing.md", name: "lanes", make: lanes },
    Table { document: "docs/datapath.md", name: "drop reasons", make: drop_reasons },
    Table { document: "docs/datapath.md", name: "maps", make: maps },
    Table { document: "docs/datapath.md", name: "time-outs", make: time_outs },
];

/// Compares every table, or writes it.
pub(crate) fn check() {
    for Table { document, name, make } in TABLES {
        let path = file(document);
        let text = fs::read_to_string(&path).unwrap();
        let begin = format!("<!-- generated: {name} -->\n");
        let start = text.find(&begin).unwrap_or_else(|| panic!("{document} has no {begin}")) + begin.len();
        let end = start
            + text[start..].find("<!-- end -->").unwrap_or_else(|| panic!("{document}: {name} has no end"));
        let made = make();
        if writing() {
            fs::write(&path, format!("{}{made}{}", &text[..start], &text[end..])).unwrap();
        } else {
            assert_eq!(
                &text[start..end],
                made,
                "{document}: {name} is stale; SINEW_WRITE_DOCUMENTS=1 writes it"
            );
        }
    }
}

/// Every reason with its number, the name that a stock client shows, and our words.
fn drop_reasons() -> String {
    let mut table = "| number | Hubble shows | means |\n| --- | --- | --- |\n".to_owned();
    for reason in DropReason::ALL {
        let hubble = i32::from(reason.hubble());
        let name = flow::DropReason::try_from(hubble).unwrap().as_str_name();
        // Writing to a String can't fail.
        let _ = writeln!(table, "| {} | {hubble} `{name}` | {} |", *reason as u16, reason.words());
    }
    table
}

/// The maps, as `bpf/src/programs/maps.rs` declares them: that file is for the kernel only, so its text is read.
fn maps() -> String {
    let source = fs::read_to_string(file("bpf/src/programs/maps.rs")).unwrap();
    let mut table =
        "| map | kind | key | value | capacity | holds |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
    let lines = source.lines().collect::<Vec<_>>();
    for (at, line) in lines.iter().enumerate() {
        if *line != "#[btf_map]" {
            continue;
        }
        let words = lines[at - 1].strip_prefix("/// ").expect("a map has a comment of one line");
        let (name, kind) = lines[at + 1].strip_prefix("static ").unwrap().split_once(": ").unwrap();
        let (kind, arguments) = kind.split_once('<').unwrap();
        let arguments = arguments.rsplit_once("> = ").unwrap().0;
        let (key, value, capacity) = columns(kind, arguments);
        // Writing to a String can't fail.
        let _ = writeln!(
            table,
            "| `{name}` | {kind} | {key} | {value} | {capacity} | {} |",
            words.trim_end_matches('.')
        );
    }
    table
}

/// Key, value and capacity out of a map's type arguments; arrays have an index for a key.
fn columns(kind: &str, arguments: &str) -> (String, String, String) {
    let parts = arguments.split(", ").collect::<Vec<_>>();
    let code = |text: &str| format!("`{text}`");
    let plain = |text: &str| match text.trim_matches(['{', '}', ' ']).split(" as ").next() {
        Some("DROP_COUNTERS") => sinew_bpf::maps::DROP_COUNTERS.to_string(),
        Some(number) => number.replace('_', " "),
        None => String::new(),
    };
    match kind {
        "ArrayOfMaps" => {
            let (inner, capacity) = arguments.rsplit_once(", ").unwrap();
            ("index".into(), code(inner), plain(capacity))
        }
        "ProgramArray" => ("index".into(), "a program".into(), plain(parts[0])),
        "Array" | "PerCpuArray" => ("index".into(), code(parts[0]), plain(parts[1])),
        _ => (code(parts[0]), code(parts[1]), plain(parts[2])),
    }
}

/// Idle times after which a connection is absent.
fn time_outs() -> String {
    let rows = [
        ("a TCP connection that is open", timeout::TCP),
        ("a TCP connection that opens", timeout::TCP_OPENING),
        ("a TCP connection that both ends have closed, or one has reset", timeout::TCP_CLOSING),
        ("a TCP connection that was denied (tombstone)", timeout::TOMBSTONE),
        ("UDP and SCTP", timeout::ANY),
        ("ICMP", timeout::ICMP),
    ];
    let mut table = "| connection | idle |\n| --- | --- |\n".to_owned();
    for (what, nanoseconds) in rows {
        // Writing to a String can't fail.
        let _ = writeln!(table, "| {what} | {} s |", nanoseconds / 1_000_000_000);
    }
    table
}

/// The lanes, as `xtask/src/test/lanes.rs` declares them: `xtask` is a binary, so its text is read.
fn lanes() -> String {
    let source = fs::read_to_string(file("xtask/src/test/lanes.rs")).unwrap();
    let declared = source.split("pub(super) const LANES").nth(1).unwrap().split("\n];").next().unwrap();
    let mut table = "| lane | proves | needs |\n| --- | --- | --- |\n".to_owned();
    for lane in declared.split("Lane {").skip(1) {
        let text = |field: &str| {
            lane.split(&format!("{field}: \"")).nth(1).unwrap_or_else(|| {
                let on_the_next_line = lane.split(&format!("{field}:")).nth(1).unwrap();
                on_the_next_line.split('"').nth(1).unwrap()
            })
        };
        let needs = if lane.contains("Needs::Node") { "root, tools, binaries" } else { "this workspace" };
        let (name, about) =
            (text("name").split('"').next().unwrap(), text("about").split('"').next().unwrap());
        // Writing to a String can't fail.
        let _ = writeln!(table, "| `{name}` | {about} | {needs} |");
    }
    table
}
