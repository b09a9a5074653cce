//! Nodes at ports with mutual TLS: who is asked, who is not believed, and how both are told.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::*;
use crate::listen::{self, Limits};
use crate::peer::tls_server_name;
use crate::tls::tests::Authority;
use crate::tls::{ClientTls, Identity, ServerTls, Trust};

struct Ground {
    folder: tempfile::TempDir,
    authority: Authority,
    serving: Vec<tokio::task::JoinHandle<()>>,
    peers: Peers,
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.serving.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("ours");
        authority.write(&folder.path().join("ca.crt"));
        Self { folder, authority, serving: Vec::new(), peers: Peers::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node that shows that identity, with one flow.
    async fn node(&mut self, name: &str, identity: Identity) {
        let full = format!("default/{name}");
        let journal: Arc<Journal> =
            Arc::new(Journal::new(JournalSettings::new(&full, "0.1.0"), SystemTime::now()));
        journal.record_flows([flow(name, second(1))]);
        let tls = ServerTls::new(identity, vec![self.path("ca.crt")]).expect("good files");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        self.serving.push(tokio::spawn(async move {
            let (_nobody, none) = watch::channel(Peers::new());
            let (routes, _health) = crate::server::routes(journal, none).await;
            listen::serve(listener, Some(tls), routes.routes(), Limits::default()).await.expect("it serves");
        }));
        self.peers.insert(full, PeerAddress { address, tls: Some(tls_server_name("default", name)) });
    }

    fn issue(&self, name: &str) -> Identity {
        self.authority.issue(&self.path(name), &tls_server_name("default", name))
    }

    /// What a relay with that identity gets of all nodes: states with their reasons, and flows.
    async fn relayed(&self, identity: Option<Identity>) -> (Vec<String>, Vec<String>) {
        let (_peers, receiver) = watch::channel(self.peers.clone());
        let tls = ClientTls::new(identity, Trust::Files(vec![self.path("ca.crt")])).expect("good files");
        let tls = NodeTls::With(Arc::new(tls));
        let relay = Relay::new(RelaySettings::default(), "0.1.0", receiver, tls, SystemTime::now());
        let request = GetFlowsRequest::default();
        let query = FlowQuery {
            selection: Selection::from(&request),
            filters: Arc::new(FilterSet::default()),
            request,
        };
        let (mut states, mut flows) = (Vec::new(), Vec::new());
        let mut stream = relay.flows(query).await.expect("a stream");
        while let Some(answer) = stream.next().await {
            match answer.and_then(|answer| answer.decode()).expect("an answer").response_types {
                Some(ResponseTypes::NodeStatus(event)) => {
                    let state = event.state_change().as_str_name();
                    states.push(format!("{} {state} {}", event.node_names.join(","), event.message));
                }
                Some(ResponseTypes::Flow(flow)) => flows.push(flow.uuid),
                other => panic!("not told here: {other:?}"),
            }
        }
        states.sort();
        flows.sort();
        (states, flows)
    }
}

#[tokio::test]
async fn nodes_are_asked_with_tls_and_one_that_is_not_who_it_should_be_is_not_believed() {
    let mut ground = Ground::new();
    let (a, b) = (ground.issue("a"), ground.issue("b"));
    let strangers = Authority::new("strangers");
    let c = strangers.issue(&ground.path("c"), &tls_server_name("default", "c"));
    ground.node("a", a).await;
    ground.node("not-b", b).await;
    ground.node("c", c).await;
    let relay = ground.authority.issue(&ground.path("relay"), "relay");
    let (states, flows) = ground.relayed(Some(relay)).await;
    assert_eq!(flows, ["a"]);
    assert_eq!(states[0], "default/a NODE_CONNECTED ");
    assert!(
        states[1].starts_with("default/c NODE_UNAVAILABLE") && states[1].contains("UnknownIssuer"),
        "{states:?}"
    );
    assert!(
        states[2].starts_with("default/not-b NODE_UNAVAILABLE") && states[2].contains("not valid for name"),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_relay_without_a_certificate_is_told_why_it_gets_nothing() {
    let mut ground = Ground::new();
    let a = ground.issue("a");
    ground.node("a", a).await;
    let (states, flows) = ground.relayed(None).await;
    assert_eq!(flows, [""; 0]);
    assert_eq!(states.len(), 1);
    assert!(states[0].contains("CertificateRequired"), "{states:?}");
}
