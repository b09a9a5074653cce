//! Identities as the node knows them.

use sinew_api::identity::Identity;
use sinew_api::proto::agent::{GetIdentityResponse, Identity as Answer, ListIdentitiesResponse};
use sinew_engine::snapshot::IdentityView;
use tonic::Status;

use super::endpoints::endpoint_name;
use crate::view::View;

/// All, by number.
pub(super) fn list(view: &View) -> ListIdentitiesResponse {
    let identities =
        view.snapshot.identities.iter().map(|(id, identity)| answer(view, *id, identity)).collect();
    ListIdentitiesResponse { identities }
}

/// One.
pub(super) fn get(view: &View, id: u32) -> Result<GetIdentityResponse, Status> {
    let identity = view
        .snapshot
        .identities
        .get(&Identity(id))
        .ok_or_else(|| Status::not_found(format!("no identity {id} is known on this node")))?;
    Ok(GetIdentityResponse { identity: Some(answer(view, Identity(id), identity)) })
}

fn answer(view: &View, id: Identity, identity: &IdentityView) -> Answer {
    let scope = match (id.reserved_name(), id.scope()) {
        (Some(_), _) => "reserved",
        (None, 1) => "cidr",
        (None, 2) => "node",
        (None, _) => "global",
    };
    let endpoints = view.snapshot.endpoints.values().filter(|endpoint| endpoint.identity == id);
    Answer {
        id: id.0,
        labels: identity.labels.to_strings(),
        scope: scope.to_owned(),
        endpoints: endpoints.map(endpoint_name).collect(),
        addresses: identity.addresses as u32,
        known: identity.known,
    }
}
