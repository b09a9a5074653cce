//! SinewIdentity: one number and the labels that it stands for (policy.md 18).

use serde::{Deserialize, Serialize};

use super::Origin;
use crate::identity::Identity;
use crate::labels::Labels;

/// An allocated identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatedIdentity {
    /// The number; the object's name is its decimal form.
    pub identity: Identity,
    /// The labels that it stands for.
    pub labels: Labels,
    /// Where it stands.
    pub origin: Origin,
}

/// `spec` of a SinewIdentity.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentitySpec {
    labels: Labels,
}

impl AllocatedIdentity {
    /// The object as YAML.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let spec = IdentitySpec { labels: self.labels.clone() };
        super::own::to_yaml("SinewIdentity", &self.identity.to_string(), None, &spec, None::<&()>)
    }
}

pub(super) fn read(own: super::own::Own, origin: Origin) -> Result<AllocatedIdentity, super::own::Wrong> {
    let number = own.name.parse().ok().filter(|number: &u32| number.to_string() == own.name);
    let Some(number) = number else {
        let message = format!("{:?} is not the number of an identity", own.name);
        return Err(super::own::Wrong { path: "metadata.name".to_owned(), message });
    };
    let spec: IdentitySpec = own.spec()?;
    Ok(AllocatedIdentity { identity: Identity(number), labels: spec.labels, origin })
}
