//! Prefixes as policies write them. Host bits are cleared, as Kubernetes and Cilium do, with a warning.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{CidrGroupMatch, CidrReach, PeerMatch};
use crate::fields::{Field, Report};
use crate::names;
use crate::policy::selectors::{self, Keys};

/// Reads a prefix. A bare address is its own prefix where `bare` says that the schema allows it.
pub(super) fn prefix(field: &Field<'_>, bare: bool, report: &mut Report) -> Option<IpNet> {
    let text = field.text(report)?;
    match parse(text, bare) {
        Ok(net) => {
            let masked = net.trunc();
            if masked != net {
                field.warn(report, format!("{text} has host bits; {masked} is meant"));
            }
            Some(masked)
        }
        Err(wrong) => {
            field.refuse(report, wrong);
            None
        }
    }
}

/// Why a text is not a prefix, or the prefix as it is written.
fn parse(text: &str, bare: bool) -> Result<IpNet, String> {
    let shown = names::shown(text);
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None if bare => (text, None),
        None => return Err(format!("{shown:?} is not a CIDR: the prefix length is missing")),
    };
    let address: IpAddr =
        address.parse().map_err(|_| format!("{shown:?} is not a CIDR: the address cannot be read"))?;
    if let IpAddr::V6(address) = address
        && let Some(inner) = address.to_ipv4_mapped()
    {
        return Err(format!("{shown:?} is an IPv4 address in IPv6 form; write {inner}"));
    }
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => longest,
        Some(digits) => {
            let canonical = digits == "0"
                || (!digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.parse().ok().filter(|length| canonical && *length <= longest);
            length
                .ok_or_else(|| format!("{shown:?} is not a CIDR: the prefix length must be 0 to {longest}"))?
        }
    };
    IpNet::new(address, length).map_err(|wrong| format!("{shown:?} is not a CIDR: {wrong}"))
}

/// Whether `except` has to be smaller than its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Except {
    /// NetworkPolicy: strictly smaller.
    Smaller,
    /// Cilium: it may be all of it.
    Within,
}

/// Reads `except`, each of which must be within `prefix`, if there is one.
pub(super) fn except(
    list: &Field<'_>,
    prefix: Option<IpNet>,
    rule: Except,
    report: &mut Report,
) -> Vec<IpNet> {
    let mut nets = Vec::new();
    for field in list.list(report).unwrap_or_default() {
        let Some(net) = self::prefix(&field, false, report) else { continue };
        match prefix {
            Some(prefix) if !prefix.contains(&net) => {
                field.refuse(report, format!("{net} is not within {prefix}"))
            }
            Some(prefix) if prefix == net && rule == Except::Smaller => {
                field.refuse(report, format!("{net} must be smaller than {prefix}"));
            }
            Some(prefix) if prefix == net => {
                field.warn(report, format!("{net} is all of its prefix: nothing is left"));
                nets.push(net);
            }
            _ => nets.push(net),
        }
    }
    nets
}

/// Reads an element of `fromCIDRSet` or `toCIDRSet`.
pub(super) fn set_element(field: &Field<'_>, reach: CidrReach, report: &mut Report) -> Option<PeerMatch> {
    let mut fields = field.fields(report)?;
    let cidr = fields.take("cidr");
    let group_ref = fields.take("cidrGroupRef");
    let group_selector = fields.take("cidrGroupSelector");
    let except = fields.take("except");
    fields.finish(report);
    let except = |prefix, report: &mut Report| {
        except.as_ref().map(|list| self::except(list, prefix, Except::Within, report)).unwrap_or_default()
    };
    match (cidr, group_ref, group_selector) {
        (Some(cidr), None, None) => {
            let prefix = prefix(&cidr, false, report)?;
            let except = except(Some(prefix), report);
            Some(PeerMatch::Cidr { prefix, except, reach })
        }
        (None, Some(name), None) => {
            let text = name.text(report)?;
            if let Err(wrong) = names::subdomain(text) {
                name.refuse(report, wrong);
            }
            let except = except(None, report);
            Some(PeerMatch::CidrGroup { group: CidrGroupMatch::Name(text.to_owned()), except, reach })
        }
        (None, None, Some(selector)) => {
            let selector = selectors::read(&selector, Keys::CidrGroup, report)?.unscoped();
            let except = except(None, report);
            Some(PeerMatch::CidrGroup { group: CidrGroupMatch::Labels(selector), except, reach })
        }
        _ => {
            field.refuse(report, "needs exactly one of cidr, cidrGroupRef and cidrGroupSelector");
            None
        }
    }
}
