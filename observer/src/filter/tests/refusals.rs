//! Values that have no meaning, each with the sentence that refuses it.

use super::*;

/// Bytes of a label's value.
const LONGEST: usize = 63;

/// The field, its filter, and a part of the sentence.
#[test]
fn values_without_a_meaning_are_named_with_their_place() {
    fn filter(change: impl FnOnce(&mut FlowFilter)) -> FlowFilter {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        filter
    }
    let text = |text: &str| vec!["10.0.0.1".to_owned(), text.to_owned()];
    let one = |text: &str| vec![text.to_owned()];
    let cases: Vec<(&str, FlowFilter)> = vec![
        ("source_ip[1]: \"10.0.0\"", filter(|f| f.source_ip = text("10.0.0"))),
        ("destination_ip[1]: \"10.0.0.0/33\"", filter(|f| f.destination_ip = text("10.0.0.0/33"))),
        ("source_ip_xlated[1]: \"\"", filter(|f| f.source_ip_xlated = text(""))),
        ("source_pod[0]: must not be empty", filter(|f| f.source_pod = one(""))),
        (
            "destination_pod[0]: \"a/b/c\" has more than one slash",
            filter(|f| f.destination_pod = one("a/b/c")),
        ),
        ("source_service[0]: must not be empty", filter(|f| f.source_service = one(""))),
        ("destination_service[0]: \"a/b/c\"", filter(|f| f.destination_service = one("a/b/c"))),
        ("source_fqdn[0]: must not be empty", filter(|f| f.source_fqdn = one("."))),
        (
            "destination_fqdn[0]: \"a..\" ends with more than one dot",
            filter(|f| f.destination_fqdn = one("a..")),
        ),
        ("destination_fqdn[0]: \"a b\": ' ' is in no name", filter(|f| f.destination_fqdn = one("a b"))),
        (
            "source_label[0]: \"a in b\": an opening bracket is missing",
            filter(|f| f.source_label = one("a in b")),
        ),
        (
            "destination_label[0]: \"a=b c\": a comma is missing",
            filter(|f| f.destination_label = one("a=b c")),
        ),
        ("node_labels[0]: \"a,\": a label after the comma", filter(|f| f.node_labels = one("a,"))),
        ("source_label[0]: \"k8s:\": \"k8s:\" has no key", filter(|f| f.source_label = one("k8s:"))),
        ("source_label[0]: \"a ~ b\": \"~\" is no operator", filter(|f| f.source_label = one("a ~ b"))),
        ("source_label[0]: \"a>b\": < and > take a whole number", filter(|f| f.source_label = one("a>b"))),
        ("source_label[0]: \"a<\": < and > take a whole number", filter(|f| f.source_label = one("a<"))),
        ("source_label[0]: \"a > -1\": \"-1\" is no value", filter(|f| f.source_label = one("a > -1"))),
        ("source_label[0]: \"a>=1\": < and > take", filter(|f| f.source_label = one("a>=1"))),
        (
            "source_label[0]: \"a>9223372036854775808\": < and > take",
            filter(|f| f.source_label = one("a>9223372036854775808")),
        ),
        (
            "destination_label[0]: \"a=%%%\": \"%%%\" is no value of a label",
            filter(|f| f.destination_label = one("a=%%%")),
        ),
        ("node_labels[0]: \"a=cl*\": \"cl*\" is no value", filter(|f| f.node_labels = one("a=cl*"))),
        ("source_label[0]: \"a in (b,c!)\":", filter(|f| f.source_label = one("a in (b,c!)"))),
        ("source_label[0]: \"a=b=c\": a comma is missing", filter(|f| f.source_label = one("a=b=c"))),
        ("source_label[0]: \"a=.b\": \".b\" is no value", filter(|f| f.source_label = one("a=.b"))),
        ("source_label[0]: \"a!\": an operator", filter(|f| f.source_label = one("a!"))),
        ("source_label[0]: \"!a=b\": a comma is missing", filter(|f| f.source_label = one("!a=b"))),
        ("source_label[0]: \"!!a\": a label is missing", filter(|f| f.source_label = one("!!a"))),
        ("source_label[0]: \"a*\": \"a*\" is no key", filter(|f| f.source_label = one("a*"))),
        ("source_label[0]: \"k8s:a:b\": \"k8s:a:b\" is no key", filter(|f| f.source_label = one("k8s:a:b"))),
        ("source_label[0]: \":a\": \":a\" is no key", filter(|f| f.source_label = one(":a"))),
        (
            "source_label[0]: \"Ex.com/a\": \"Ex.com/a\" is no key",
            filter(|f| f.source_label = one("Ex.com/a")),
        ),
        ("source_label[0]: \"a/b/c\": \"a/b/c\" is no key", filter(|f| f.source_label = one("a/b/c"))),
        ("source_label[0]: \"a/\": \"a/\" is no key", filter(|f| f.source_label = one("a/"))),
        (
            "source_label[0]: \"a=xxxx",
            filter(|f| f.source_label = one(&format!("a={}", "x".repeat(LONGEST + 1)))),
        ),
        ("source_cluster_name[0]: must not be empty", filter(|f| f.source_cluster_name = one(""))),
        ("destination_cluster_name[0]: must not be empty", filter(|f| f.destination_cluster_name = one(""))),
        ("source_port[0]: \"http\" is no port", filter(|f| f.source_port = one("http"))),
        ("destination_port[0]: \"65536\" is no port", filter(|f| f.destination_port = one("65536"))),
        ("traffic_direction[0]: 3 is no direction", filter(|f| f.traffic_direction = vec![3])),
        ("verdict[1]: 99 is no verdict", filter(|f| f.verdict = vec![1, 99])),
        ("drop_reason_desc[0]: 159 is no drop reason", filter(|f| f.drop_reason_desc = vec![159])),
        ("ip_version[0]: 4 is no IP version", filter(|f| f.ip_version = vec![4])),
        ("protocol[0]: \"tpc\" is no protocol", filter(|f| f.protocol = one("tpc"))),
        ("node_name[0]: must not be empty", filter(|f| f.node_name = one(""))),
        ("node_name[0]: \"a/b/c\" has more than one slash", filter(|f| f.node_name = one("a/b/c"))),
        ("dns_query[0]: \"(\" is no regular expression", filter(|f| f.dns_query = one("("))),
        ("http_status_code[0]: \"600\" is no status code", filter(|f| f.http_status_code = one("600"))),
        ("http_status_code[0]: \"+\" is no status code", filter(|f| f.http_status_code = one("+"))),
        ("http_path[0]: \"[\" is no regular expression", filter(|f| f.http_path = one("["))),
        ("http_url[0]: \"a{9999999}\" is no regular expression", filter(|f| f.http_url = one("a{9999999}"))),
        ("uuid[0]: at most 4096 bytes", filter(|f| f.uuid = one(&"x".repeat(5000)))),
        ("uuid: at most 1024 values", filter(|f| f.uuid = vec![String::new(); 1025])),
        (
            "http_method: can never match together with event_type 1",
            filter(|f| {
                f.http_method = one("GET");
                f.event_type = vec![EventTypeFilter { r#type: 1, ..EventTypeFilter::default() }];
            }),
        ),
    ];
    for (expected, filter) in cases {
        let error =
            FilterSet::new(&[FlowFilter::default(), filter.clone()], &[]).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("whitelist[1].{expected}")), "{error}");
        let error = FilterSet::new(&[], &[filter]).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("blacklist[0].{expected}")), "{error}");
    }
    let expressions = FlowFilter {
        experimental: Some(flow_filter::Experimental { cel_expression: vec!["true".into(); 9] }),
        ..FlowFilter::default()
    };
    let both = [expressions];
    let one_list = FilterSet::new(&both, &[]);
    assert!(one_list.is_ok(), "{one_list:?}");
    let error = FilterSet::new(&both, &both).expect_err("both lists have one budget");
    let words = "blacklist[0].experimental.cel_expression[7]: a request takes at most 16 expressions";
    assert_eq!(error.to_string(), words);
    let queries = filter(|f| f.dns_query = vec!["a".into(); 100]);
    let error = FilterSet::new(&[queries.clone(), queries], &[]).expect_err("too many patterns");
    assert_eq!(error.to_string(), "whitelist[1].dns_query[28]: a request takes at most 128 patterns");
    let many = vec![FlowFilter::default(); MOST_FILTERS + 1];
    assert!(FilterSet::new(&many, &[]).is_err_and(|error| error.to_string().contains("at most 256 filters")));
}
