//! When a pod's pair can send and receive, and what it is said to lack before.

use std::pin::pin;
use std::time::Duration;

use sinew_agent::netlink::namespace::PodNamespace;
use sinew_agent::netlink::veth;
use tokio::time::timeout;

use super::{on_a_node, pod_link, pod_namespace, run};

/// Far shorter than an ADD waits, far longer than its questions take.
const MOMENT: Duration = Duration::from_millis(100);

/// The kernel lists an IPv6 address before it writes its local route. The test takes that route away itself: an idle kernel
/// writes it too soon to be seen missing.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_pair_is_usable_when_packets_to_both_ends_are_taken_in() {
    on_a_node(async |netlink| {
        let usable = Vec::<String>::new();
        let (_file, path) = pod_namespace();
        let pod = PodNamespace::open(&path).unwrap();
        let wanted = pod_link("c1", &["10.1.0.5", "fd00:1::5"]);
        let host = veth::create(&netlink, &pod, &wanted).await.unwrap();
        veth::open_host_side(&netlink, &host, &wanted).await.unwrap();
        assert_eq!(veth::wait_usable(&netlink, &pod, &wanted).await.unwrap(), usable);
        // Another pod's link, which has the gateway's addresses too.
        let (_other_file, other_path) = pod_namespace();
        let other_pod = PodNamespace::open(&other_path).unwrap();
        let other = pod_link("c2", &["10.1.0.6", "fd00:1::6"]);
        let other_host = veth::create(&netlink, &other_pod, &other).await.unwrap();
        veth::open_host_side(&netlink, &other_host, &other).await.unwrap();
        assert_eq!(veth::wait_usable(&netlink, &other_pod, &other).await.unwrap(), usable);

        let change_pods = async |what: &'static str| {
            pod.visit(async move |_inside| {
                run(&format!("ip -6 route {what} local fd00:1::5 dev eth0 table local"));
                Ok(())
            })
            .await
            .unwrap();
        };
        let change_nodes = async |what: &'static str| {
            run(&format!("ip -6 route {what} local fe80::1 dev {} table local", host.name));
        };
        change_pods("del").await;
        let lacks = veth::wait_usable(&netlink, &pod, &wanted).await.unwrap();
        assert_eq!(lacks, ["the pod's end takes no packets to fd00:1::5 in"]);
        let mut waiting = pin!(veth::wait_usable(&netlink, &pod, &wanted));
        timeout(MOMENT, &mut waiting).await.expect_err("the pod's end gets no packets");
        change_pods("add").await;
        assert_eq!(waiting.await.unwrap(), usable);

        change_nodes("del").await;
        let lacks = veth::wait_usable(&netlink, &pod, &wanted).await.unwrap();
        assert_eq!(lacks, ["the node's end takes no packets to fe80::1 in"]);
        assert_eq!(veth::wait_usable(&netlink, &other_pod, &other).await.unwrap(), usable);
        let mut waiting = pin!(veth::wait_usable(&netlink, &pod, &wanted));
        timeout(MOMENT, &mut waiting).await.expect_err("the gateway gets no packets");
        change_nodes("add").await;
        assert_eq!(waiting.await.unwrap(), usable);
    });
}
