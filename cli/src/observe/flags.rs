//! The command line of `sinew observe`: Hubble's flags with its defaults, and ours.
//!
//! Filters keep the order in which they were given, since `--not` belongs to the filter after it. So they are declared in
//! a table and read with their positions; all other flags are derived. Neighbours: `filters.rs` and `request.rs` read it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, ValueEnum};

use crate::server::ServerArgs;

/// `sinew observe [flows]`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FlowArgs {
    #[command(flatten)]
    pub(super) selectors: SelectorArgs,
    #[command(flatten)]
    pub(super) filters: FilterArgs,
    #[command(flatten)]
    pub(super) raw: RawFilterArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) flow_format: FlowFormatArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) other: OtherArgs,
}

/// `sinew observe agent-events` and `debug-events`.
#[derive(Args, Clone, Debug)]
pub(super) struct EventArgs {
    #[command(flatten)]
    pub(super) selectors: SelectorArgs,
    #[command(flatten)]
    pub(super) format: FormatArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// Which entries, by number and time.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Selectors")]
pub(super) struct SelectorArgs {
    /// Everything that the server holds
    #[arg(long)]
    pub(super) all: bool,
    /// The oldest N; from a relay N of each node
    #[arg(long, value_name = "N")]
    pub(super) first: Option<u64>,
    /// The newest N; from a relay N of each node [default: 20]
    #[arg(long, value_name = "N")]
    pub(super) last: Option<u64>,
    /// Go on with new ones
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Not before: a length of time ago (3s, 4m, 1h43m) or a point in time (2026-11-21T03:00Z)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
    /// Not after, as for --since; without a meaning together with --follow
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) until: Option<String>,
}

/// FlowFilters as they go over the wire.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Raw filters")]
pub(super) struct RawFilterArgs {
    /// Show flows that this FlowFilter (JSON) matches
    #[arg(long, value_name = "JSON")]
    pub(super) allowlist: Vec<String>,
    /// Leave out flows that this FlowFilter (JSON) matches
    #[arg(long, value_name = "JSON")]
    pub(super) denylist: Vec<String>,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputForm {
    /// One line each
    #[default]
    Compact,
    /// A block of KEY: VALUE lines each
    Dict,
    /// The answers as JSON, one a line
    #[value(alias = "JSON")]
    Json,
    /// The same
    Jsonpb,
    /// Columns; not with --follow
    #[value(alias = "tab")]
    Table,
}

/// Forms of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TimeForm {
    /// Nov 21 03:22:22.123
    #[default]
    #[value(name = "StampMilli")]
    StampMilli,
    /// 2026-11-21
    #[value(name = "YearMonthDay")]
    YearMonthDay,
    /// 2026-11-21T03Z
    #[value(name = "YearMonthDayHour")]
    YearMonthDayHour,
    /// 2026-11-21T03:22Z
    #[value(name = "YearMonthDayHourMinute")]
    YearMonthDayHourMinute,
    /// 2026-11-21T03:22:22Z
    #[value(name = "RFC3339")]
    Rfc3339,
    /// 2026-11-21T03:22:22.123Z
    #[value(name = "RFC3339Milli")]
    Rfc3339Milli,
    /// 2026-11-21T03:22:22.123456Z
    #[value(name = "RFC3339Micro")]
    Rfc3339Micro,
    /// 2026-11-21T03:22:22.123456789Z
    #[value(name = "RFC3339Nano")]
    Rfc3339Nano,
    /// Sat, 21 Nov 2026 03:22:22 +0000
    #[value(name = "RFC1123Z")]
    Rfc1123Z,
}

/// How answers are written.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Format")]
pub(super) struct FormatArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(super) output: OutputForm,
    /// Name the node of each line
    #[arg(long)]
    pub(super) print_node_name: bool,
    /// Form of times, which are UTC; JSON has its own
    #[arg(long, value_enum, default_value_t, ignore_case = true, value_name = "FORM")]
    pub(super) time_format: TimeForm,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// How flows are written.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Flow format")]
pub(super) struct FlowFormatArgs {
    /// Name the policies that allowed or denied, behind a policy verdict
    #[arg(long)]
    pub(super) print_policy_names: bool,
    /// Colours in compact and dict
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(super) color: Colour,
    /// Names of pods and services in place of addresses
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set, value_name = "BOOL")]
    pub(super) ip_translation: bool,
    /// Addresses, not names
    #[arg(long)]
    pub(super) numeric: bool,
}

/// The rest.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Other")]
pub(super) struct OtherArgs {
    /// Fields of flow.Flow to ask for, with JSON output
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub(super) field_mask: Vec<String>,
    /// Ask for the fields that are shown only, for output that is not JSON
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set, value_name = "BOOL")]
    pub(super) use_default_field_masks: bool,
    /// Read flows from this file (JSON, one a line; - for stdin) and ask nobody
    #[arg(long, value_name = "FILE")]
    pub(super) input_file: Option<PathBuf>,
    /// Print the filters of this command line as YAML and ask nobody
    #[arg(long)]
    pub(super) print_raw_filters: bool,
    /// Keep quiet about nodes that fail
    #[arg(short, long)]
    pub(super) silent_errors: bool,
    /// Behind each policy verdict and drop: the rule that decided and where it stands, or the nearest rule and the
    /// field that failed; with a UUID only for that flow, while the server still holds it
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "UUID")]
    pub(super) explain: Option<String>,
}

/// One filter of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenFilter {
    /// Flag without dashes.
    pub(super) name: &'static str,
    /// Value as given; `true` for a flag without one.
    pub(super) value: String,
}

/// All filters, `not` included, in the order given.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterArgs {
    pub(super) given: Vec<GivenFilter>,
}

struct FilterFlag {
    name: &'static str,
    short: Option<char>,
    /// Name of the value; empty for a flag without one.
    value: &'static str,
    help: &'static str,
}

const fn flag(name: &'static str, value: &'static str, help: &'static str) -> FilterFlag {
    FilterFlag { name, short: None, value, help }
}

const fn short(name: &'static str, short: char, value: &'static str, help: &'static str) -> FilterFlag {
    FilterFlag { name, short: Some(short), value, help }
}

/// Hubble 1.19's filters, in the order of its help, and `policy`.
const FILTERS: &[FilterFlag] = &[
    short("all-namespaces", 'A', "", "Either end in any namespace"),
    flag("cel-expression", "EXPRESSION", "The CEL expression over _flow holds"),
    flag("cluster", "NAME", "Either end in this cluster"),
    flag("drop-reason-desc", "REASON", "Dropped for this reason (POLICY_DENIED, …)"),
    flag("encrypted", "", "Encrypted between nodes"),
    flag("fqdn", "PATTERN", "Either end resolved from this name (*.example.com)"),
    flag("from-all-namespaces", "", "Source in any namespace"),
    flag("from-cluster", "NAME", "Source in this cluster"),
    flag("from-fqdn", "PATTERN", "Source resolved from this name"),
    flag("from-identity", "IDENTITY", "Source has this identity, by number or reserved name"),
    flag("from-ip", "ADDRESS", "Source address, or a prefix of it"),
    flag("from-label", "SELECTOR", "Source has these labels (app=web, reserved:world)"),
    flag("from-namespace", "NAMESPACE", "Source in this namespace"),
    flag(
        "from-pod",
        "[NAMESPACE/]POD",
        "Source is a pod whose name begins so; without a namespace in default",
    ),
    flag("from-port", "PORT", "Source port"),
    flag("from-service", "[NAMESPACE/]NAME", "Source address belongs to a service whose name begins so"),
    flag("from-workload", "[KIND/]NAME", "Source is owned by this controller"),
    flag("http-header", "KEY:VALUE", "The HTTP message has this header"),
    flag("http-method", "METHOD", "HTTP method"),
    flag("http-path", "REGEX", "Path of the HTTP request"),
    flag("http-status", "CODE", "HTTP status (404, 5+)"),
    flag("http-url", "REGEX", "URL of the HTTP request"),
    flag("identity", "IDENTITY", "Either end has this identity"),
    flag("interface", "NAME", "Seen at this interface"),
    flag("ip", "ADDRESS", "Either address, or a prefix of it"),
    flag("ip-trace-id", "ID", "Trace id in IP options"),
    flag("ip-version", "VERSION", "v4, v6 or none"),
    short("ipv4", '4', "", "IPv4"),
    short("ipv6", '6', "", "IPv6"),
    short("label", 'l', "SELECTOR", "Either end has these labels"),
    short("namespace", 'n', "NAMESPACE", "Either end in this namespace"),
    flag("node-label", "SELECTOR", "Seen on a node with these labels"),
    flag("node-name", "PATTERN", "Seen on this node (k8s*, cluster/node)"),
    flag("not", "", "Turns the next filter round"),
    flag("pod", "[NAMESPACE/]POD", "Either end is a pod whose name begins so"),
    flag("policy", "NAME", "A policy of this name allowed or denied it (web, shop/web, cnp/shop/web)"),
    flag("port", "PORT", "Either port"),
    flag("protocol", "NAME", "Protocol (tcp, udp, icmp, http, …)"),
    flag("service", "[NAMESPACE/]NAME", "Either address belongs to a service whose name begins so"),
    flag("snat-ip", "ADDRESS", "Source address after masquerading, or a prefix of it"),
    flag("tcp-flags", "FLAGS", "These TCP flags are set (syn,ack)"),
    flag("to-all-namespaces", "", "Destination in any namespace"),
    flag("to-cluster", "NAME", "Destination in this cluster"),
    flag("to-fqdn", "PATTERN", "Destination resolved from this name"),
    flag("to-identity", "IDENTITY", "Destination has this identity"),
    flag("to-ip", "ADDRESS", "Destination address, or a prefix of it"),
    flag("to-label", "SELECTOR", "Destination has these labels"),
    flag("to-namespace", "NAMESPACE", "Destination in this namespace"),
    flag("to-pod", "[NAMESPACE/]POD", "Destination is a pod whose name begins so"),
    flag("to-port", "PORT", "Destination port"),
    flag("to-service", "[NAMESPACE/]NAME", "Destination address belongs to a service whose name begins so"),
    flag("to-workload", "[KIND/]NAME", "Destination is owned by this controller"),
    flag("trace-id", "ID", "Part of this distributed trace"),
    flag("traffic-direction", "DIRECTION", "ingress or egress"),
    short(
        "type",
        't',
        "TYPE[:SUBTYPE]",
        "capture, drop, l7, policy-verdict, trace[:POINT], trace-sock; a POINT is to-endpoint, from-overlay, …",
    ),
    flag("unencrypted", "", "Not encrypted between nodes"),
    flag("uuid", "UUID", "This flow"),
    flag("verdict", "VERDICT", "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED"),
    flag("workload", "[KIND/]NAME", "Either end is owned by this controller"),
];

impl Args for FilterArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        FILTERS.iter().fold(command, |command, filter| {
            let mut arg = Arg::new(filter.name)
                .long(filter.name)
                .help(filter.help)
                .help_heading("Filters")
                .action(ArgAction::Append);
            if let Some(letter) = filter.short {
                arg = arg.short(letter);
            }
            arg = if filter.value.is_empty() {
                arg.num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .hide_default_value(true)
                    .value_name("BOOL")
            } else {
                arg.value_name(filter.value).allow_hyphen_values(true)
            };
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for filter in FILTERS {
            let values = matches.get_many::<String>(filter.name).into_iter().flatten();
            let places = matches.indices_of(filter.name).into_iter().flatten();
            given.extend(
                places
                    .zip(values)
                    .map(|(place, value)| (place, GivenFilter { name: filter.name, value: value.clone() })),
            );
        }
        given.sort_by_key(|(place, _)| *place);
        Ok(Self { given: given.into_iter().map(|(_, filter)| filter).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
