//! Whom to ask for flows: the server named, or the first that answers of the places where one may be.
//!
//! `--server`, `$SINEW_SERVER`, `$HUBBLE_SERVER` name one and only that is tried. Without any: the node's own socket,
//! then localhost:4245, where a relay is forwarded to. A failure tells all that was tried. TLS is for ports; a socket of
//! this machine has its file's mode. Neighbours: `flags.rs` has the command line, `sinew_observer::dial` connects.

pub(crate) mod config;
mod flags;

use std::env;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sinew_observer::dial::{Patience, Way, reason};
use sinew_observer::tls::{ClientTls, Identity, Trust};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

pub(crate) use flags::{ServerArgs, like_hubbles};

use crate::failure::Failure;
use crate::{agent, output};

/// Where a relay answers.
const RELAY: &str = "localhost:4245";

/// A connection to a server.
pub(crate) type Server = InterceptedService<Channel, Credentials>;

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Socket(String),
    /// `host:port`.
    Plain(String),
    /// `host:port` with TLS.
    Tls(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{path}"),
            Self::Plain(address) => f.write_str(address),
            Self::Tls(address) => write!(f, "tls://{address}"),
        }
    }
}

/// Connects to the server that the command line means.
pub(crate) async fn connect(args: &ServerArgs) -> Result<(Server, Address), Failure> {
    if let Some(flag) = args.forward.given() {
        let failure = Failure::usage(format!("{flag} needs Kubernetes, which this version does not speak"));
        return Err(
            failure.next("forward the relay's port by other means, and name it: --server localhost:4245")
        );
    }
    if let Some(file) = &args.config {
        args.tell(format_args!("the configuration file is {}", file.display()));
    }
    let candidates = candidates(args, |name| env::var(name).ok())?;
    let credentials = Credentials::of(args)?;
    let mut tried = Vec::new();
    for (address, why) in &candidates {
        let way = way(args, address)?;
        if credentials.0.is_some() && !matches!(way, Way::Tls { .. }) {
            tried.push(format!("{address} ({why}): a password is sent over TLS only"));
            continue;
        }
        match way.connect(Patience { connect: args.timeout, ping: None }).await {
            Ok(channel) => {
                args.tell(format_args!("connected to {address} ({why})"));
                return Ok((InterceptedService::new(channel, credentials), address.clone()));
            }
            Err(problem) => {
                args.tell(format_args!("no connection to {address} ({why}): {problem}"));
                tried.push(format!("{address} ({why}): {problem}"));
            }
        }
    }
    let tried = tried.join("; ");
    let next = next_step(&tried);
    Err(Failure::unreachable(format!("no server answers; tried {tried}")).next(next))
}

/// What to change after these failures. TLS tells what it did not like in rustls' words.
fn next_step(tried: &str) -> &'static str {
    // In the order in which a handshake meets them.
    const STEPS: [(&str, &str); 4] = [
        ("InvalidContentType", "it does not speak TLS: leave out --tls, tls:// and the client certificate"),
        ("certificate not valid for name", "say for which name its certificate is: --tls-server-name NAME"),
        ("NotValidForName", "say for which name its certificate is: --tls-server-name NAME"),
        ("UnknownIssuer", "say who has issued its certificate: --tls-ca-cert-files FILE"),
    ];
    let found = STEPS.iter().find(|(problem, _)| tried.contains(problem));
    found.map_or("name one: --server ADDRESS, $SINEW_SERVER or $HUBBLE_SERVER", |(_, next)| next)
}

impl ServerArgs {
    /// Tells what happens, where --debug asks for it.
    pub(crate) fn tell(&self, what: fmt::Arguments<'_>) {
        if self.debug {
            output::tell(format_args!("debug: {what}"));
        }
    }
}

/// A server's refusal: what is wrong with a filter is the command line's fault, the rest as for every command.
pub(crate) fn refused(status: &Status) -> Failure {
    match (status.code(), std::error::Error::source(status)) {
        (Code::InvalidArgument, _) => {
            Failure::usage(format!("the server refuses the request: {}", status.message()))
        }
        (_, Some(_)) => {
            let reason = reason(status);
            let failure = Failure::unreachable(format!("the server ends the connection: {reason}"));
            if reason.contains("CertificateRequired") {
                failure.next("show a certificate: --tls-client-cert-file FILE and --tls-client-key-file FILE")
            } else if reason.contains("alert") {
                failure
                    .next("see whether the server lets this certificate in: its log says why it refuses one")
            } else {
                failure.next(
                    "see whether it runs, and whether it wants TLS: --tls, or tls:// before its address",
                )
            }
        }
        (_, None) => agent::refused(status),
    }
}

/// Addresses to try, each with where it comes from.
fn candidates(
    args: &ServerArgs,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(Address, &'static str)>, Failure> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let named = args.server.clone().map(|text| (text, "--server"));
    let named = named.or_else(|| set("SINEW_SERVER").map(|text| (text, "$SINEW_SERVER")));
    let named = named.or_else(|| set("HUBBLE_SERVER").map(|text| (text, "$HUBBLE_SERVER")));
    let tls = args.tls || args.tls_client_cert_file.is_some();
    if let Some((text, why)) = named {
        return Ok(vec![(parse(&text, why, tls)?, why)]);
    }
    let socket = Address::Socket(args.socket.display().to_string());
    let relay = if tls { Address::Tls } else { Address::Plain };
    Ok(vec![(socket, "the node's socket"), (relay(RELAY.to_owned()), "a relay")])
}

fn parse(text: &str, why: &str, tls: bool) -> Result<Address, Failure> {
    if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
        return Ok(Address::Socket(path.to_owned()));
    }
    let with_tls = text.strip_prefix("tls://");
    let address = with_tls.or_else(|| text.strip_prefix("tcp://")).unwrap_or(text);
    // `http://host` would be looked up as the name of a host, and the answer would tell of that.
    if let Some((scheme, _)) = address.split_once("://") {
        return Err(Failure::usage(format!(
            "{why} {text:?} is no address: no {scheme}://, but host:port, tls://host:port or unix:///path"
        )));
    }
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            let kind = if tls || with_tls.is_some() { Address::Tls } else { Address::Plain };
            Ok(kind(address.to_owned()))
        }
        _ => Err(Failure::usage(format!(
            "{why} {text:?} is no address: host:port, tls://host:port or unix:///path"
        ))),
    }
}

fn way(args: &ServerArgs, address: &Address) -> Result<Way, Failure> {
    Ok(match address {
        Address::Socket(path) => Way::Socket(path.clone()),
        Address::Plain(address) => Way::Plain(address.clone()),
        Address::Tls(address) => {
            let pair = args.tls_client_cert_file.clone().zip(args.tls_client_key_file.clone());
            let identity = pair.map(|(certificate, key)| Identity { certificate, key });
            let trust = match (args.tls_allow_insecure, &*args.tls_ca_cert_files) {
                (true, _) => Trust::Anything,
                (false, []) => Trust::System,
                (false, files) => Trust::Files(files.to_vec()),
            };
            let tls = ClientTls::new(identity, trust).map_err(|error| Failure::usage(error.to_string()))?;
            Way::Tls { address: address.clone(), name: args.tls_server_name.clone(), tls: Arc::new(tls) }
        }
    })
}

/// What is sent along with each request: name and password, where there are some (RFC 7617).
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Option<MetadataValue<Ascii>>);

impl Credentials {
    fn of(args: &ServerArgs) -> Result<Self, Failure> {
        let (Some(name), Some(password)) = (&args.basic_auth_username, &args.basic_auth_password) else {
            return Ok(Self(None));
        };
        if name.contains(':') {
            return Err(Failure::usage(
                "--basic-auth-username: a name with a colon can't be sent (RFC 7617 section 2)",
            ));
        }
        let text = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        let mut value = MetadataValue::try_from(text)
            .map_err(|_| Failure::usage("--basic-auth-password can't be sent in a header"))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
