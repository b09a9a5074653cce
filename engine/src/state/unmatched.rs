//! What of a policy can match nobody, whoever comes, because of how the agents are set up: labels that make no
//! identity, an API server whose address nobody told. Its author learns the key and the flag.
//!
//! Neighbours: `views.rs` puts these beside the other warnings, `validate.rs` has those that depend on the cluster.

use sinew_api::object::Problem;
use sinew_api::policy::{Entity, PeerMatch, Peers, Policy};
use sinew_api::selector::{Operator, Requirement, Selector};

use super::Engine;
use crate::validate;

impl Engine {
    /// The warnings of a policy.
    pub(super) fn unmatched(&self, policy: &Policy) -> Vec<Problem> {
        let mut warnings = Vec::new();
        let mut warn = |path: &str, line: u32, message: String| {
            let origin = validate::at_line(policy, line);
            warnings.push(Problem { path: path.to_owned(), message, origin });
        };
        for spec in &policy.specs {
            for message in self.without_identity(&spec.subject) {
                warn(&validate::subject_path(spec, policy), spec.subject_line, message);
            }
            for rule in spec.ingress.iter().chain(&spec.egress) {
                let Peers::OneOf(peers) = &rule.peers else { continue };
                for peer in peers {
                    match &peer.matches {
                        PeerMatch::Labels(selector) => {
                            for message in self.without_identity(selector) {
                                warn(&peer.path, peer.line, message);
                            }
                        }
                        PeerMatch::Entity(Entity::KubeApiserver) if self.knows_no_apiserver() => {
                            let message =
                                "matches nobody: the agent knows no address of it (--kube-apiserver)";
                            warn(&peer.path, peer.line, message.to_owned());
                        }
                        PeerMatch::Entity(_) | PeerMatch::Cidr { .. } | PeerMatch::CidrGroup { .. } => {}
                    }
                }
            }
        }
        warnings
    }

    fn knows_no_apiserver(&self) -> bool {
        self.config.kube_apiserver.as_ref().is_some_and(Vec::is_empty)
    }

    /// A sentence for each label that a selector asks for and that is part of no identity.
    fn without_identity(&self, selector: &Selector) -> Vec<String> {
        let left_out = selector.requirements.iter().filter(|requirement| !self.makes_identity(requirement));
        let message = |requirement: &Requirement| {
            let everybody = match &requirement.operator {
                Operator::In(_) | Operator::Exists => "nobody has it",
                Operator::NotIn(_) | Operator::DoesNotExist => "everybody is without it",
            };
            format!(
                "asks for the label {:?}, which is no part of identities (--labels of the agents): {everybody}",
                requirement.key
            )
        };
        left_out.map(message).collect()
    }

    fn makes_identity(&self, requirement: &Requirement) -> bool {
        let keeps = |source: &str| self.config.labels.keeps(source, &requirement.key);
        match requirement.source.as_str() {
            "any" => keeps("k8s") || keeps("cni"),
            source @ ("k8s" | "cni") => keeps(source),
            // Of these the decoder speaks.
            _ => true,
        }
    }
}
