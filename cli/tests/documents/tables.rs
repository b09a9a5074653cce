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

const TABLES: [Table; 5] = [
    Table { document: "docs/limits.md", name: "sizes", make: sizes },
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
        Some("COUNTERS") => sinew_bpf::kernel_drop::COUNTERS.to_string(),
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
        ("a TCP connection that was denied (tombstone)", timeout::TCP),
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

/// Sizes, each read from the file where it is enforced; most are private to a package that this one may not import.
fn sizes() -> String {
    const SIZES: [(&str, &str, &str, &str); 33] = [
        ("a file of objects, bytes", "api/src/yaml.rs", "MAX_BYTES", "the file is refused"),
        ("documents in a file", "api/src/yaml.rs", "MAX_DOCUMENTS", "the surplus is refused"),
        ("values of a YAML document", "api/src/yaml.rs", "MAX_NODES", "the document is refused"),
        ("depth of a YAML document", "api/src/yaml.rs", "MAX_DEPTH", "the document is refused"),
        (
            "files of a store",
            "api/src/object/folder.rs",
            "MAX_FILES",
            "those beyond are not read, and `sinew status` warns",
        ),
        (
            "depth of a store's folders",
            "api/src/object/folder.rs",
            "MAX_DEPTH",
            "what is deeper is not read, and `sinew status` warns",
        ),
        ("ports of a `toPorts`", "api/src/policy/ports.rs", "MAX_PORTS", "the policy is refused"),
        (
            "policy tables of a node",
            "agent/src/datapath/tables.rs",
            "MOST_TABLES",
            "endpoints with the same table share one",
        ),
        (
            "entries of a policy table",
            "engine/src/config.rs",
            "TABLE_CAPACITY",
            "the newest policy selecting the pod is refused; its last version that fitted stays",
        ),
        (
            "address classes that the CIDRs of all policies make",
            "engine/src/config.rs",
            "CLASS_CAPACITY",
            "the newest policy with CIDRs is refused; its last version that fitted stays",
        ),
        (
            "rule cookies that are remembered",
            "engine/src/numbers.rs",
            "MOST_COOKIES",
            "the oldest lose their names",
        ),
        (
            "address classes that are remembered",
            "engine/src/numbers.rs",
            "MOST_CLASSES",
            "the oldest are forgotten",
        ),
        ("flows that a node keeps", "observer/src/journal.rs", "DEFAULT_FLOWS", "the oldest go"),
        ("the same in bytes", "observer/src/journal.rs", "DEFAULT_BYTES", "the oldest go"),
        (
            "filters of a request for flows",
            "observer/src/filter.rs",
            "MOST_FILTERS",
            "the request is refused",
        ),
        ("values in a filter", "observer/src/filter.rs", "MOST_VALUES", "the request is refused"),
        ("bytes of a text in a filter", "observer/src/filter.rs", "LONGEST_TEXT", "the request is refused"),
        (
            "bytes of a CEL expression",
            "observer/src/filter/expression.rs",
            "LONGEST",
            "the request is refused",
        ),
        (
            "bytes of a request for flows",
            "observer/src/server.rs",
            "LARGEST_REQUEST",
            "the request is refused",
        ),
        (
            "time series of a metric that counts flows",
            "observer/src/metrics/hubble/series.rs",
            "MOST",
            "what is beyond is left out, and counted",
        ),
        (
            "connections to the port of flows",
            "observer/src/listen.rs",
            "CONNECTIONS",
            "the connection is closed",
        ),
        (
            "of these from one address (one /64 of IPv6)",
            "observer/src/listen.rs",
            "CONNECTIONS_EACH",
            "the connection is closed",
        ),
        (
            "requests at a time on one of these",
            "observer/src/listen.rs",
            "REQUESTS_EACH",
            "the client is told to wait",
        ),
        (
            "streams of flows and events of a node",
            "observer/src/source.rs",
            "STREAMS",
            "`RESOURCE_EXHAUSTED`",
        ),
        ("of these to one address", "observer/src/source.rs", "STREAMS_EACH", "`RESOURCE_EXHAUSTED`"),
        ("streams of a relay", "observer/src/relay.rs", "STREAMS", "`RESOURCE_EXHAUSTED`"),
        ("of these to one address", "observer/src/relay.rs", "STREAMS_EACH", "`RESOURCE_EXHAUSTED`"),
        (
            "connections to the metrics port",
            "observer/src/metrics/http.rs",
            "CONNECTIONS",
            "the connection is closed",
        ),
        (
            "of these from one address",
            "observer/src/metrics/http.rs",
            "CONNECTIONS_EACH",
            "the connection is closed",
        ),
        ("seconds of one of these", "observer/src/metrics/http.rs", "PATIENCE", "the connection is closed"),
        ("CNI commands at a time", "agent/src/cni/server.rs", "CONNECTIONS", "the others wait"),
        ("bytes of a CNI request", "agent/src/cni/server.rs", "MAX_REQUEST_BYTES", "the request is refused"),
        (
            "bytes on the plugin's standard input",
            "agent/src/plugin.rs",
            "MAX_STDIN_BYTES",
            "the command fails",
        ),
    ];
    let mut table = "| what | at most | beyond |\n| --- | ---: | --- |\n".to_owned();
    for (what, path, name, beyond) in SIZES {
        // Writing to a String can't fail.
        let _ = writeln!(table, "| {what} | {} | {beyond} |", constant(path, name));
    }
    table
}

/// The value of a constant as its file has it: a number, one shifted, or a time in seconds.
fn constant(path: &str, name: &str) -> u64 {
    let source = fs::read_to_string(file(path)).unwrap();
    let declared = source.split(&format!("const {name}: ")).nth(1);
    let declared = declared.unwrap_or_else(|| panic!("{path} has no {name}"));
    let value = declared.split(';').next().unwrap().split(" = ").nth(1).unwrap();
    let value = value.trim_start_matches("Duration::from_secs(").trim_end_matches(')').replace('_', "");
    let number =
        |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{path}: {name} = {value}"));
    match value.split_once("<<") {
        Some((number_of, bits)) => number(number_of) << number(bits),
        None => number(&value),
    }
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
