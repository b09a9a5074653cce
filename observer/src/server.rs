//! The services of a socket: Observer, Peer, health and reflection, on agent and relay alike.
//!
//! The agent adds its own service to the routes and decides where they listen. Health answers for the server as a
//! whole, for each service by its name, and for `hubble.server.Observer`, which Hubble's clients ask for.

use std::sync::Arc;

use prost::Message;
use prost_types::FileDescriptorSet;
use sinew_api::proto::FILE_DESCRIPTOR_SET;
use sinew_api::proto::peer::peer_server::PeerServer;
use tokio::sync::watch;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder as Reflection;

use crate::peer::{PeerService, Peers};
use crate::service::{ObserverService, Served};
use crate::source::Source;

/// Names that health answers for; the empty one is the whole server.
const HEALTH_NAMES: [&str; 4] = ["", "hubble.server.Observer", "observer.Observer", "peer.Peer"];
/// Largest request that is read, in bytes. `hubble observe` sends a few hundred.
const LARGEST_REQUEST: usize = 1 << 20;

/// Observer, Peer, health (serving from now on) and reflection. The reporter sets what health answers.
pub async fn routes(
    source: Arc<dyn Source>,
    peers: watch::Receiver<Peers>,
) -> (RoutesBuilder, HealthReporter) {
    routes_described_by(source, peers, &observer_schema()).await
}

/// The same with a reflection of more than these services.
pub async fn routes_described_by(
    source: Arc<dyn Source>,
    peers: watch::Receiver<Peers>,
    schema: &[u8],
) -> (RoutesBuilder, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    set_serving(&reporter, true).await;
    let mut routes = Routes::builder();
    routes
        .add_service(Served::new(ObserverService::new(source), LARGEST_REQUEST))
        .add_service(PeerServer::new(PeerService::new(peers)).max_decoding_message_size(LARGEST_REQUEST))
        .add_service(health);
    // Both versions: hubble asks for v1alpha, grpcurl for v1 first.
    routes.add_service(reflection(schema).build_v1().expect("the committed descriptors are whole"));
    routes.add_service(reflection(schema).build_v1alpha().expect("the committed descriptors are whole"));
    (routes, reporter)
}

/// Says by all names whether there is anything to get here. What is served goes on either way.
pub async fn set_serving(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, status).await;
    }
}

/// The files of these services, without those of the agent's own, which are not served here.
fn observer_schema() -> Vec<u8> {
    let mut all =
        FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the committed descriptors are whole");
    all.file.retain(|file| !file.package().starts_with("sinew."));
    all.encode_to_vec()
}

fn reflection(schema: &[u8]) -> Reflection<'_> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(schema)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
