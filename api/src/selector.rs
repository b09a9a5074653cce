//! Label selectors: `matchLabels` and `matchExpressions` over sourced labels.

use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// A conjunction of requirements. Without one it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's source; `any` for all of them.
    pub source: String,
    /// The label's key.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
}

/// The operators of Kubernetes' selectors, with their meaning there: `NotIn` holds where the key is absent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The key has one of the values.
    In(Vec<String>),
    /// The key is absent or has none of the values.
    NotIn(Vec<String>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    /// Whether the requirement holds.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut values = labels
            .iter()
            .filter(|(label, _)| {
                label.key == self.key && (self.source == "any" || label.source == self.source)
            })
            .map(|(_, value)| value);
        match &self.operator {
            Operator::In(wanted) => values.any(|value| wanted.iter().any(|want| want == value)),
            Operator::NotIn(unwanted) => !values.any(|value| unwanted.iter().any(|want| want == value)),
            Operator::Exists => values.next().is_some(),
            Operator::DoesNotExist => values.next().is_none(),
        }
    }
}
