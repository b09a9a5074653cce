//! Lines of single flows. What all forms look like is compared with Hubble's own client in `tests/tests/hubble.rs`.

use sinew_api::proto::flow::{CiliumEventType, Endpoint, Ip, Layer4, Tcp, layer4};

use super::line::Style;
use super::*;

const PLAIN: Style = Style { colours: false, names: true, policies: false };

fn flow(pod: &str, address: &str) -> Flow {
    let tcp = Tcp { source_port: 0, destination_port: 443, flags: None };
    Flow {
        source: Some(Endpoint { pod_name: pod.into(), namespace: "shop".into(), ..Endpoint::default() }),
        ip: Some(Ip { source: address.into(), destination: "fd00::2".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
        ..Flow::default()
    }
}

#[test]
fn an_address_of_version_6_has_brackets_only_with_a_port() {
    assert_eq!(PLAIN.hosts(&flow("", "fd00::1")), ("fd00::1".to_owned(), "[fd00::2]:443".to_owned()));
    assert_eq!(PLAIN.hosts(&flow("web", "fd00::1")).0, "shop/web");
}

#[test]
fn a_name_can_not_drive_the_terminal() {
    let (source, _) = PLAIN.hosts(&flow("web\u{1b}[2J\r", "10.0.0.1"));
    assert_eq!(PLAIN.visible(&source), "shop/web^[[2J\\r");
    let colours = Style { colours: true, ..PLAIN };
    let (source, destination) = colours.hosts(&flow("web\u{1b}[2J", "10.0.0.1"));
    assert_eq!(colours.visible(&source), "\u{1b}[36mshop/web^[[2J\u{1b}[0m");
    assert_eq!(colours.visible(&destination), "\u{1b}[36m[fd00::2]:\u{1b}[33m443\u{1b}[0m\u{1b}[0m");
}

#[test]
fn a_record_that_nobody_knows_is_unknown() {
    let flow = Flow { event_type: Some(CiliumEventType { r#type: 77, sub_type: 1 }), ..Flow::default() };
    assert_eq!(words::flow_type(&flow), "UNKNOWN");
    let drop = Flow { event_type: Some(CiliumEventType { r#type: 1, sub_type: 250 }), ..Flow::default() };
    assert_eq!(words::flow_type(&drop), "250, 0");
}

#[test]
fn long_lists_of_nodes_are_cut() {
    let names: Vec<String> = (0..20).map(|number| format!("default/node-{number}")).collect();
    assert_eq!(joined(&names), "default/node-0, default/node-1, default/node-2 (and 17 more)");
    assert_eq!(joined(&["x".repeat(80)]), "x".repeat(80));
}

#[test]
fn a_nodes_state_is_a_block_among_blocks() {
    let status = NodeStatusEvent {
        state_change: NodeState::NodeUnavailable.into(),
        node_names: vec!["default/a".into(), "default/b".into()],
        message: "no answer in 3 s".into(),
    };
    let expected = "  TIMESTAMP: now
      STATE: NODE_UNAVAILABLE
      NODES: default/a, default/b
    MESSAGE: \"no answer in 3 s\"
";
    let mut printer = Printer::for_events(&FormatArgs::default()).expect("a printer");
    assert_eq!(printer.status_block("now", &status), expected);
    let silent = NodeStatusEvent { message: String::new(), ..status };
    let second = printer.status_block("now", &silent);
    assert!(second.starts_with("------------\n") && second.ends_with("MESSAGE: N/A\n"), "{second}");
}

#[test]
fn colours_go_where_a_terminal_takes_them() {
    let with = |variables: &[(&str, &str)]| {
        takes_colours(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    };
    assert!(with(&[("TERM", "xterm-256color")]));
    assert!(!with(&[("TERM", "dumb")]) && !with(&[]));
    assert!(!with(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
}
