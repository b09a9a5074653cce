//! What stays in force and what is said when texts in the folder break, over restarts too; who wins of two files; and what
//! two nodes on one folder tell each other (policy.md 4, 14, 15, 18).

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use sinew_tests::lab::process::wait_until;
use sinew_tests::lab::{Family, Lab, Node, Pod, Topology};

const SOON: Duration = Duration::from_secs(5);
const TCP: u16 = 80;
const OTHER: u16 = 81;

/// The server accepts port 80 of the client.
const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: server, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";

struct Ground {
    lab: Lab,
    client: Arc<Pod>,
    server: Arc<Pod>,
}

impl Ground {
    /// A client on node a, a server on node b, and the policy between them.
    fn new() -> Result<Self> {
        let lab = Lab::build(Topology::Wire(2)).start()?;
        let client = lab.node("a").pod("client", &[("app", "client")])?;
        let server = lab.node("b").pod("server", &[("app", "server")])?;
        server.serve(&[TCP, OTHER], &[])?;
        lab.apply("server", POLICY)?;
        Ok(Self { lab, client, server })
    }

    fn node(&self) -> &Arc<Node> {
        self.lab.node("b")
    }

    /// Port 80 answers and port 81 does not: the policy is in force.
    fn assert_policy_holds(&self, when: &str) -> Result<()> {
        for family in Family::BOTH {
            let to = self.server.address(family);
            assert!(self.client.tcp(to, TCP)?.answered(), "{when}, {family:?}: what the policy allows");
            assert!(!self.client.tcp(to, OTHER)?.answered(), "{when}, {family:?}: what it does not allow");
        }
        Ok(())
    }

    /// Writes a text that is no reason to enforce anything else, and waits until the node has said so.
    fn break_policy(&self, text: &str, said: &str) -> Result<()> {
        self.lab.store().write("server", text)?;
        self.wait_said(said)
    }

    fn wait_said(&self, said: &str) -> Result<()> {
        wait_until(&format!("the node says {said:?}"), SOON, || Ok(self.listed()?.contains(said)))
    }

    fn listed(&self) -> Result<String> {
        let output = self.node().sinew(&["policy", "list"])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn status(&self, path: &str) -> Result<String> {
        let path = self.lab.store().folder().join(".status").join(path);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

// policy.md 14, 15: a refused edit keeps the last valid version, over a restart too, and its author reads why.
#[test]
#[ignore = "cargo xtask test lab"]
fn a_refused_edit_keeps_the_last_valid_version() -> Result<()> {
    let ground = Ground::new()?;
    ground.assert_policy_holds("at first")?;
    let refused = POLICY.replace("protocol: TCP}]}]", "protocol: TCP}], rules: {http: [{}]}}]");
    ground.break_policy(&refused, "REFUSED")?;
    ground.assert_policy_holds("after a refused edit")?;
    wait_until("its author is told", SOON, || {
        let said = ground.status("CiliumNetworkPolicy/default/server.yaml")?;
        Ok(said.contains("spec.ingress[0].toPorts[0].rules.http") && said.contains("running generation"))
    })?;

    ground.node().restart_agent()?;
    ground.wait_said("REFUSED")?;
    ground.assert_policy_holds("after a restart over a refused edit")?;

    ground.lab.apply("server", POLICY)?;
    ground.assert_policy_holds("after the mend")?;
    wait_until("the author is told that it is enforced", SOON, || {
        Ok(!ground.status("CiliumNetworkPolicy/default/server.yaml")?.contains("refused"))
    })
}

// policy.md 15: a text that can't be read, or an emptied file, keeps what the file held; deleting the file removes it.
#[test]
#[ignore = "cargo xtask test lab"]
fn an_unreadable_file_keeps_what_it_held() -> Result<()> {
    let ground = Ground::new()?;
    ground.break_policy("kind: [", "UNREADABLE")?;
    ground.assert_policy_holds("behind a broken text")?;
    wait_until("its author is told", SOON, || {
        Ok(ground.status("unreadable/b.yaml").is_ok_and(|said| said.contains("server.yaml:")))
    })?;
    let status = ground.node().sinew(&["status"])?;
    assert!(!status.status.success(), "a document that can't be read is a failure of the node");

    ground.node().restart_agent()?;
    ground.wait_said("UNREADABLE")?;
    ground.assert_policy_holds("after a restart over a broken text")?;
    ground.break_policy("", "the file is empty")?;
    ground.assert_policy_holds("behind an empty file")?;

    ground.lab.withdraw("server")?;
    let to = ground.server.address(Family::V4);
    assert!(ground.client.tcp(to, OTHER)?.answered(), "without the file there is no policy");
    wait_until("nothing is unreadable any more", SOON, || Ok(ground.status("unreadable/b.yaml").is_err()))
}

// policy.md 4: the first path in byte order wins, the other is refused, both are named.
#[test]
#[ignore = "cargo xtask test lab"]
fn of_two_files_with_one_name_the_first_path_wins() -> Result<()> {
    let ground = Ground::new()?;
    ground.lab.store().write("zz-later", &POLICY.replace("port: '80'", "port: '81'"))?;
    wait_until("the second file is refused", SOON, || {
        let said = ground.status("CiliumNetworkPolicy/default/server.yaml")?;
        Ok(said.contains("server.yaml:2") && said.contains("zz-later.yaml:2"))
    })?;
    ground.assert_policy_holds("beside a second file")?;
    ground.lab.withdraw("server")?;
    let to = ground.server.address(Family::V4);
    wait_until("the second file steps in", SOON, || {
        Ok(ground.client.tcp(to, OTHER)?.answered() && !ground.client.tcp(to, TCP)?.answered())
    })
}

// Point 8, policy.md 18: two agents on one folder give one label set one number, and know each other's endpoints.
#[test]
#[ignore = "cargo xtask test lab"]
fn two_nodes_on_one_folder_share_numbers_and_endpoints() -> Result<()> {
    let ground = Ground::new()?;
    let twin = ground.lab.node("b").pod("twin", &[("app", "client")])?;
    wait_until("both nodes list one number for the clients", SOON, || {
        let (a, b) = (client_numbers(ground.lab.node("a"))?, client_numbers(ground.lab.node("b"))?);
        Ok(a.len() == 1 && a == b)
    })?;
    let to = ground.server.address(Family::V6);
    assert!(twin.tcp(to, TCP)?.answered(), "the same labels, the same number, the same verdict");
    let endpoints = ground.lab.store().folder().join(".endpoints/a");
    wait_until(
        "the client's endpoint is in the folder",
        SOON,
        || Ok(fs::read_dir(&endpoints)?.count() == 1),
    )?;
    ground.lab.node("a").remove_pod("client")?;
    wait_until("its endpoint is taken back", SOON, || Ok(fs::read_dir(&endpoints)?.count() == 0))
}

/// Numbers of the identities of `app=client`, as a node lists them.
fn client_numbers(node: &Node) -> Result<Vec<String>> {
    let output = node.sinew(&["identity", "list"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_clients = text.lines().filter(|line| line.contains("app=client"));
    Ok(of_clients.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect())
}
