//! SinewCIDRGroup, and CiliumCIDRGroup of `cilium.io/v2` and `cilium.io/v2alpha1`.

use super::{CidrGroup, cidr};
use crate::fields::{Fields, Report};
use crate::object::CidrGroupKind;
use crate::object::metadata::Metadata;

/// Reads `spec.externalCIDRs`. Whether the group is whole is for the caller to ask of the report.
pub(crate) fn read(
    document: &mut Fields<'_>,
    kind: CidrGroupKind,
    metadata: &Metadata,
    report: &mut Report,
) -> CidrGroup {
    let mut prefixes = Vec::new();
    document.take("status");
    if let Some(mut spec) = document.require("spec", report).and_then(|spec| spec.fields(report)) {
        if let Some(list) = spec.require("externalCIDRs", report) {
            for field in list.list(report).unwrap_or_default() {
                prefixes.extend(cidr::prefix(&field, true, report));
            }
        }
        spec.finish(report);
    }
    CidrGroup {
        kind,
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        prefixes,
        whole: true,
        origin: report.origin(document.line()),
    }
}
