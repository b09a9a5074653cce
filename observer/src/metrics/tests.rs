use prometheus_client::metrics::histogram::Histogram;

use super::*;

const DROPS: Description = Description::counter("x_drops_total", &["reason", "pod"], "Packets dropped.");
const FILL: Description = Description::gauge("x_fill_ratio", &[], "How full it is.");
const TIME: Description = Description::histogram("x_seconds", &["what"], "How long it took.");
const NONE: Description = Description::gauge("x_none", &["what"], "Nothing has one.");

fn families() -> Vec<Family> {
    let histogram = Histogram::new([0.1, 1.0]);
    histogram.observe(0.5);
    histogram.observe(2.0);
    vec![
        Family::new(&DROPS)
            .with(["a \"quoted\"\nreason\\", "shop/web"], Value::Count(u64::MAX))
            .with(["other", ""], Value::Count(0)),
        Family::single(&FILL, Value::Number(0.25)),
        Family::new(&TIME).with(["ADD"], Value::Spread(histogram)),
        Family::new(&NONE),
    ]
}

#[test]
fn openmetrics_as_its_specification_has_it() {
    // OpenMetrics 1.0: a counter's family is named without `_total`; backslash, quote and line feed are escaped; the
    // text ends with EOF. 2^64 - 1 is written whole.
    let expected = r#"# HELP x_drops Packets dropped.
# TYPE x_drops counter
x_drops_total{reason="a \"quoted\"\nreason\\",pod="shop/web"} 18446744073709551615
x_drops_total{reason="other",pod=""} 0
# HELP x_fill_ratio How full it is.
# TYPE x_fill_ratio gauge
x_fill_ratio 0.25
# HELP x_seconds How long it took.
# TYPE x_seconds histogram
x_seconds_sum{what="ADD"} 2.5
x_seconds_count{what="ADD"} 2
x_seconds_bucket{le="0.1",what="ADD"} 0
x_seconds_bucket{le="1.0",what="ADD"} 1
x_seconds_bucket{le="+Inf",what="ADD"} 2
# EOF
"#;
    assert_eq!(text(families(), Format::OpenMetrics), expected);
}

#[test]
fn the_older_text_describes_series_by_their_own_name() {
    let text = text(families(), Format::Prometheus);
    assert!(
        text.starts_with("# HELP x_drops_total Packets dropped.\n# TYPE x_drops_total counter\n"),
        "{text}"
    );
    assert!(text.contains("# HELP x_seconds How long it took.\n# TYPE x_seconds histogram\n"), "{text}");
    assert!(
        !text.contains("EOF") && text.ends_with("x_seconds_bucket{le=\"+Inf\",what=\"ADD\"} 2\n"),
        "{text}"
    );
}

#[test]
fn who_asks_for_openmetrics_gets_it() {
    // What Prometheus 2.42 sends, and what curl sends.
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
    assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    assert_eq!(Format::accepted(""), Format::Prometheus);
}
