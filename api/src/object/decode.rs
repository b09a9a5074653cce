//! Documents of the store as objects: which kinds there are, and what each becomes.
#![allow(
    clippy::result_large_err,
    reason = "what is refused is as much of an answer as an object, and smaller"
)]

use sha2::{Digest as _, Sha256};

use super::metadata::{self, Strictness};
use super::{
    GROUP_VERSION, Object, ObjectKind, ObjectName, PolicyKind, Problem, Refused, endpoint, identity,
};
use super::{namespace, node, own, pod};
use crate::fields::{Field, Fields, Report};
use crate::policy;
use crate::yaml::{self, Document, MAX_DOCUMENTS, Node, Value};

/// Every object of a file's bytes. What is not UTF-8 is refused as a whole.
#[must_use]
pub fn decode_bytes(file: &str, bytes: &[u8]) -> Vec<Result<Object, Refused>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => decode_text(file, text),
        Err(wrong) => {
            let before = bytes.get(..wrong.valid_up_to()).unwrap_or_default();
            let line = 1 + before.split(|byte| *byte == b'\n').count() - 1;
            let mut report = Report::new(file);
            report.refuse("", u32::try_from(line).unwrap_or(u32::MAX), "is not UTF-8");
            vec![Err(refused(None, 1, report))]
        }
    }
}

/// Every object of a file's text, YAML or JSON, in order.
#[must_use]
pub fn decode_text(file: &str, text: &str) -> Vec<Result<Object, Refused>> {
    let mut objects = Vec::new();
    for document in yaml::documents(text) {
        match document {
            Ok(document) => objects.extend(decode(file, &document)),
            Err(wrong) => {
                let mut report = Report::new(file);
                report.refuse("", wrong.line, format!("column {}: {}", wrong.column, wrong.message));
                objects.push(Err(refused(None, wrong.line, report)));
            }
        }
    }
    objects
}

/// The objects of one document: one, or those of a `List`.
#[must_use]
pub fn decode(file: &str, document: &Document) -> Vec<Result<Object, Refused>> {
    let root = Field::root(&document.root);
    if let Some(items) = list_items(root.node) {
        let surplus = items.get(MAX_DOCUMENTS).map(|item| {
            let mut report = Report::new(file);
            let message = format!("the list has {} items; at most {MAX_DOCUMENTS} are read", items.len());
            report.refuse("items", item.line, message);
            Err(refused(None, item.line, report))
        });
        let read = items.iter().take(MAX_DOCUMENTS).map(|node| one(file, &Field::root(node)));
        return read.chain(surplus).collect();
    }
    vec![one(file, &root)]
}

/// The items of a `List`, or of one of Kubernetes' lists of a kind (`PodList`), as `kubectl get -o yaml` writes them.
fn list_items(root: &Node) -> Option<&[Node]> {
    let kind = root.get("kind")?.as_text()?;
    match &root.get("items")?.value {
        Value::Sequence(items) if kind.ends_with("List") => Some(items),
        _ => None,
    }
}

fn one(file: &str, field: &Field<'_>) -> Result<Object, Refused> {
    let mut report = Report::new(file);
    let Some(mut document) = field.fields(&mut report) else {
        return Err(refused(None, field.line, report));
    };
    match kind(&mut document, &mut report) {
        Kind::Ours(kind) => object(kind, field.node, &mut document, report),
        Kind::Foreign => Err(Refused { foreign: true, ..refused(None, field.line, report) }),
        Kind::Unknown => Err(refused(None, field.line, report)),
    }
}

/// What a document says that it is.
enum Kind {
    Ours(ObjectKind),
    /// Somebody else's business.
    Foreign,
    /// It says nothing that can be read, or what looks like a slip in the name of one of ours.
    Unknown,
}

/// Which of our kinds the document is.
fn kind(document: &mut Fields<'_>, report: &mut Report) -> Kind {
    let version = document.require("apiVersion", report);
    let kind = document.require("kind", report);
    let Some(version) = version.and_then(|version| version.text(report)) else { return Kind::Unknown };
    let Some(field) = kind else { return Kind::Unknown };
    let Some(name) = field.text(report) else { return Kind::Unknown };
    let Some(kind) = ObjectKind::ALL.into_iter().find(|kind| kind.kind() == name) else {
        let message = format!("{name:?} of {version:?} is not read here");
        if is_foreign(version, name) {
            field.refuse(report, message);
            return Kind::Foreign;
        }
        let known: Vec<_> = ObjectKind::ALL.iter().map(|kind| kind.kind()).collect();
        field.refuse(report, format!("{message} (known: {})", known.join(", ")));
        return Kind::Unknown;
    };
    if !kind.api_versions().contains(&version) {
        let wanted = kind.api_versions().join(" or ");
        report.refuse("apiVersion", field.line, format!("{name} is of {wanted}, not of {version:?}"));
        return if is_foreign(version, name) { Kind::Foreign } else { Kind::Unknown };
    }
    Kind::Ours(kind)
}

/// Whether a document is meant for somebody else. A slip in the kind or in the API group of a policy must not take the
/// policy out of force: what is nearly one of ours is not foreign, nor is any kind of our own group.
fn is_foreign(version: &str, name: &str) -> bool {
    let group = |version: &'static str| version.split_once('/').map_or("", |(group, _)| group);
    let its = version.split_once('/').map_or("", |(group, _)| group);
    let near_kind = ObjectKind::ALL
        .into_iter()
        .any(|kind| nearly_same(kind.kind(), name) || kind.kind().eq_ignore_ascii_case(name));
    let near_group = ObjectKind::ALL
        .into_iter()
        .flat_map(|kind| kind.api_versions())
        .any(|known| nearly_same(group(known), its));
    its != group(GROUP_VERSION)
        && !(near_kind && near_group)
        && (!closes(name) || (name == "NetworkPolicy" && HAS_NETWORK_POLICY.contains(&its)))
}

/// Groups of others that have a kind `NetworkPolicy`, which is none of ours. In any other group the name is a slip or a
/// version that no cluster serves any more, as `extensions/v1beta1`.
const HAS_NETWORK_POLICY: [&str; 5] = [
    "projectcalico.org",
    "crd.projectcalico.org",
    "crd.antrea.io",
    "security.antrea.io",
    "security.antrea.tanzu.vmware.com",
];

/// Whether an object of exactly this kind may close something.
fn closes(name: &str) -> bool {
    ObjectKind::ALL
        .into_iter()
        .filter(|kind| matches!(kind, ObjectKind::Policy(_) | ObjectKind::CidrGroup(_)))
        .any(|kind| kind.kind() == name)
}

/// Whether two names differ in one place only, and by three letters at most.
fn nearly_same(one: &str, other: &str) -> bool {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one.as_bytes()[same..], &other.as_bytes()[same..]);
    let same = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
    one.len().max(other.len()) - same <= 3
}

fn object(
    kind: ObjectKind,
    root: &Node,
    document: &mut Fields<'_>,
    mut report: Report,
) -> Result<Object, Refused> {
    let line = document.line();
    if let ObjectKind::Policy(kind) = kind {
        return policy::decode::read(document, kind, generation(root), report)
            .map(Object::Policy)
            .map_err(|report| refused(None, line, report));
    }
    let strictness = match kind {
        ObjectKind::Pod | ObjectKind::Namespace => Strictness::Tolerant,
        _ => Strictness::Strict,
    };
    let Some(metadata) = metadata::metadata(document, kind.namespaced(), strictness, &mut report) else {
        return Err(refused(None, line, report));
    };
    let name = ObjectName { kind, namespace: metadata.namespace.clone(), name: metadata.name.clone() };
    let origin = report.origin(line);
    let own = |metadata: metadata::Metadata| own::Own::new(metadata.name, root);
    let read = match kind {
        ObjectKind::Policy(_) => return Err(refused(Some(name), line, report)),
        ObjectKind::CidrGroup(kind) => {
            let group = policy::cidr_group::read(document, kind, &metadata, &mut report);
            document.refuse_rest(&mut report);
            Ok(Object::CidrGroup(group))
        }
        ObjectKind::Pod => Ok(Object::Pod(pod::read(document, metadata, &mut report))),
        ObjectKind::Namespace => Ok(Object::Namespace(namespace::read(document, metadata, &report))),
        ObjectKind::Node => node::read(own(metadata), origin).map(Object::Node),
        ObjectKind::Endpoint => {
            endpoint::read(own(metadata), origin).map(|endpoint| Object::Endpoint(Box::new(endpoint)))
        }
        ObjectKind::Identity => identity::read(own(metadata), origin).map(Object::Identity),
    };
    match read {
        Ok(object) if report.count() == 0 => Ok(object),
        Ok(Object::CidrGroup(group)) => Err(Refused {
            remains: Some(Box::new(policy::CidrGroup { whole: false, ..group })),
            ..refused(Some(name), line, report)
        }),
        Ok(_) => Err(refused(Some(name), line, report)),
        Err(wrong) => {
            report.refuse(&wrong.path, line, wrong.message);
            Err(refused(Some(name), line, report))
        }
    }
}

fn refused(name: Option<ObjectName>, line: u32, report: Report) -> Refused {
    let origin = report.origin(line);
    let (problems, _) = report.into_parts();
    Refused::new(name, origin, problems)
}

/// A number for the content of a document, 53 bits of SHA-256, so that every reader of JSON can hold it: it changes
/// when the object changes, and not when its text is laid out anew. What an API server adds does not count.
fn generation(root: &Node) -> u64 {
    let mut hash = Sha256::new();
    content(root, 0, &mut hash);
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)) >> 11
}

fn content(node: &Node, depth: usize, hash: &mut Sha256) {
    let mut leaf = |tag: &str, text: &str| hash.update(format!("{tag}{}:{text}", text.len()));
    match &node.value {
        Value::Null => leaf("n", ""),
        Value::Bool(value) => leaf("b", &value.to_string()),
        Value::Integer(value) => leaf("i", &value.to_string()),
        Value::Number(text) => leaf("f", text),
        Value::Text(text) => leaf("t", text),
        Value::Sequence(items) => {
            leaf("s", &items.len().to_string());
            for item in items {
                content(item, depth + 1, hash);
            }
        }
        Value::Mapping(entries) => {
            let mut sorted: Vec<_> = entries.iter().filter(|entry| counts(&entry.key, depth)).collect();
            sorted.sort_by(|one, other| one.key.cmp(&other.key));
            leaf("m", &sorted.len().to_string());
            for entry in sorted {
                hash.update(format!("k{}:{}", entry.key.len(), entry.key));
                content(&entry.value, depth + 1, hash);
            }
        }
    }
}

/// Whether a field of the object (depth 0) or of its metadata (depth 1) is its author's.
fn counts(key: &str, depth: usize) -> bool {
    match depth {
        0 => key != "status",
        1 => !matches!(key, "generation" | "resourceVersion" | "managedFields" | "creationTimestamp" | "uid"),
        _ => true,
    }
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Policy(PolicyKind::SinewNetworkPolicy),
        Self::Policy(PolicyKind::SinewClusterwideNetworkPolicy),
        Self::Policy(PolicyKind::CiliumNetworkPolicy),
        Self::Policy(PolicyKind::CiliumClusterwideNetworkPolicy),
        Self::Policy(PolicyKind::NetworkPolicy),
        Self::CidrGroup(super::CidrGroupKind::Sinew),
        Self::CidrGroup(super::CidrGroupKind::Cilium),
        Self::Pod,
        Self::Namespace,
        Self::Node,
        Self::Endpoint,
        Self::Identity,
    ];

    /// The kind as it is written in YAML.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Policy(kind) => kind.kind(),
            Self::CidrGroup(super::CidrGroupKind::Sinew) => "SinewCIDRGroup",
            Self::CidrGroup(super::CidrGroupKind::Cilium) => "CiliumCIDRGroup",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Node => "SinewNode",
            Self::Endpoint => "SinewEndpoint",
            Self::Identity => "SinewIdentity",
        }
    }

    /// The values of `apiVersion` that it has.
    #[must_use]
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Policy(PolicyKind::NetworkPolicy) => &["networking.k8s.io/v1"],
            Self::Policy(PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy) => {
                &["cilium.io/v2"]
            }
            Self::CidrGroup(super::CidrGroupKind::Cilium) => &["cilium.io/v2", "cilium.io/v2alpha1"],
            Self::Pod | Self::Namespace => &["v1"],
            _ => &[GROUP_VERSION],
        }
    }

    /// Whether its objects are in namespaces.
    #[must_use]
    pub fn namespaced(self) -> bool {
        match self {
            Self::Policy(kind) => !kind.clusterwide(),
            Self::Pod => true,
            _ => false,
        }
    }
}

/// What the problems of a refused object say, for a log line.
impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let first = self.problems.first().map(Problem::to_string).unwrap_or_default();
        match &self.name {
            Some(name) => write!(f, "{} {name}: {first}", self.origin),
            None => write!(f, "{}: {first}", self.origin),
        }
    }
}
