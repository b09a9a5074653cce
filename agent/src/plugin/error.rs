//! Everything that stops a CNI command, with the specification's code for it.
//!
//! Neighbours: `report` prints it as the CNI error object. Codes: CNI specification, section 5, "Error"; 8 is libcni's
//! `ErrInvalidNetNS`.

use std::io;
use std::path::PathBuf;

/// A CNI error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// The configuration asks for a version of the specification that the plugin does not speak.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field that the plugin does not support; the message holds key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is gone; the runtime has nothing to clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or wrong; the message names it.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO: Self = Self(5);
    /// Standard input is no JSON object.
    pub const DECODING: Self = Self(6);
    /// The configuration is understood and wrong.
    pub const INVALID_CONFIG: Self = Self(7);
    /// The path in `CNI_NETNS` is no network namespace of a pod.
    pub const INVALID_NETNS: Self = Self(8);
    /// The agent is away: the same command may succeed later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: no ADD can be served.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// The agent's answer is no answer (own code).
    pub const BAD_ANSWER: Self = Self(100);
}

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum PluginError {
    #[error("reading the network configuration from standard input")]
    Stdin { source: io::Error },
    #[error("standard input is longer than {limit} bytes")]
    StdinTooLong { limit: u64 },
    #[error("environment variable {name} is missing")]
    VariableMissing { name: &'static str },
    #[error("environment variable {name}: {reason}")]
    VariableInvalid { name: &'static str, reason: String },
    #[error("the network configuration is not a JSON object")]
    NotJson { reason: String },
    #[error("CNI version {found} is not supported: sinew-cni speaks 1.0.0 and 1.1.0")]
    Version { found: String },
    #[error("CNI version {version} has no {command}: it came with 1.1.0")]
    CommandTooNew { command: &'static str, version: String },
    #[error("unsupported field in the network configuration: {path}: {value}: {reason}")]
    Unsupported { path: String, value: String, reason: &'static str },
    #[error("network configuration: {path}: {reason}")]
    Config { path: String, reason: String },
    #[error("CNI_NETNS {path}: there is no such network namespace")]
    NetnsGone { path: String },
    #[error("CNI_NETNS {path}: {reason}")]
    NetnsInvalid { path: String, reason: &'static str },
    #[error("the sinew agent does not answer on {}", socket.display())]
    AgentAway { socket: PathBuf, source: io::Error },
    #[error("the sinew agent took longer than {seconds} s")]
    AgentSlow { seconds: u64 },
    #[error("the sinew agent's answer makes no sense: {reason}")]
    Answer { reason: String },
    #[error("the sinew agent cannot serve an ADD")]
    NotAvailable { source: Box<PluginError> },
    #[error("{message}")]
    Refused { code: u32, message: String, details: String },
    #[error("noting the DEL in {}", path.display())]
    Queue { path: PathBuf, source: io::Error },
}

impl PluginError {
    /// The code of the CNI error object.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Stdin { .. } | Self::Queue { .. } => Code::IO,
            Self::StdinTooLong { .. } | Self::NotJson { .. } => Code::DECODING,
            Self::VariableMissing { .. } | Self::VariableInvalid { .. } => Code::INVALID_ENVIRONMENT,
            Self::Version { .. } | Self::CommandTooNew { .. } => Code::INCOMPATIBLE_VERSION,
            Self::Unsupported { .. } => Code::UNSUPPORTED_FIELD,
            Self::Config { .. } => Code::INVALID_CONFIG,
            Self::NetnsGone { .. } => Code::UNKNOWN_CONTAINER,
            Self::NetnsInvalid { .. } => Code::INVALID_NETNS,
            Self::AgentAway { .. } | Self::AgentSlow { .. } => Code::TRY_AGAIN_LATER,
            Self::Answer { .. } => Code::BAD_ANSWER,
            Self::NotAvailable { .. } => Code::NOT_AVAILABLE,
            Self::Refused { code, .. } => Code(*code),
        }
    }

    /// The longer text of the error object, or empty: what the message leaves out.
    #[must_use]
    pub fn details(&self) -> String {
        match self {
            Self::Stdin { source } | Self::Queue { source, .. } => source.to_string(),
            Self::AgentAway { source, .. } => format!("{source}; is sinew-agent running on this node?"),
            Self::AgentSlow { .. } => "see the agent's log and `sinew status`".to_owned(),
            Self::NotJson { reason } => reason.clone(),
            Self::NotAvailable { source } => match source.details() {
                details if details.is_empty() => source.to_string(),
                details => format!("{source}: {details}"),
            },
            Self::Refused { details, .. } => details.clone(),
            Self::StdinTooLong { .. }
            | Self::VariableMissing { .. }
            | Self::VariableInvalid { .. }
            | Self::Version { .. }
            | Self::CommandTooNew { .. }
            | Self::Unsupported { .. }
            | Self::Config { .. }
            | Self::NetnsGone { .. }
            | Self::NetnsInvalid { .. }
            | Self::Answer { .. } => String::new(),
        }
    }
}
