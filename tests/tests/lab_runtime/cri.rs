//! The few messages of the Container Runtime Interface (`runtime.v1`, cri-api of Kubernetes 1.26, which containerd 1.6
//! serves) that starting a pod needs.
//!
//! The crate `k8s-cri` has all of them and needs a `protoc` program to build; these are the field numbers of api.proto.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PortMapping {
    /// 0 is TCP.
    #[prost(int32, tag = "1")]
    pub(crate) protocol: i32,
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxSandbox {
    #[prost(string, tag = "1")]
    pub(crate) cgroup_parent: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<SandboxMetadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) port_mappings: Vec<PortMapping>,
    #[prost(map = "string, string", tag = "7")]
    pub(crate) annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// Several requests and answers hold one id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Addresses {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(message, repeated, tag = "2")]
    more: Vec<Id>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<Addresses>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxStatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<SandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    /// `ContainerMetadata`, whose first field is the name.
    #[prost(message, optional, tag = "1")]
    metadata: Option<Id>,
    /// `ImageSpec`, whose first field is the image.
    #[prost(message, optional, tag = "2")]
    image: Option<Id>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, tag = "11")]
    log_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Exec {
    #[prost(string, tag = "1")]
    container: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    /// Seconds.
    #[prost(int64, tag = "3")]
    timeout: i64,
}

/// What a command in a container said.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(crate) exit_code: i32,
}

/// A client of a runtime.
pub(crate) struct Runtime {
    channel: Channel,
}

impl Runtime {
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let endpoint =
            Endpoint::from_shared(format!("unix:{}", socket.display()))?.timeout(Duration::from_secs(60));
        Ok(Self { channel: endpoint.connect().await.context("connecting to containerd")? })
    }

    pub(crate) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let request = RunSandbox { config: Some(config.clone()) };
        Ok(self.call::<_, Id>("RunPodSandbox", request).await?.id)
    }

    /// Every address that CNI gave it.
    pub(crate) async fn addresses(&self, sandbox: &str) -> Result<Vec<String>> {
        let answer: SandboxStatusAnswer =
            self.call("PodSandboxStatus", Id { id: sandbox.to_owned() }).await?;
        let network =
            answer.status.and_then(|status| status.network).context("a sandbox without a network")?;
        Ok(std::iter::once(network.first).chain(network.more.into_iter().map(|address| address.id)).collect())
    }

    pub(crate) async fn start_container(
        &self,
        sandbox: &str,
        sandbox_config: &SandboxConfig,
        image: &str,
        command: &[&str],
    ) -> Result<String> {
        let config = ContainerConfig {
            metadata: Some(Id { id: "main".to_owned() }),
            image: Some(Id { id: image.to_owned() }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            log_path: "main.log".to_owned(),
        };
        let request = CreateContainer {
            sandbox: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config.clone()),
        };
        let container = self.call::<_, Id>("CreateContainer", request).await?.id;
        self.call::<_, Empty>("StartContainer", Id { id: container.clone() }).await?;
        Ok(container)
    }

    pub(crate) async fn exec(&self, container: &str, command: &[&str]) -> Result<Executed> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.call("ExecSync", Exec { container: container.to_owned(), command, timeout: 30 }).await
    }

    pub(crate) async fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            self.call::<_, Empty>(method, Id { id: sandbox.to_owned() }).await?;
        }
        Ok(())
    }

    async fn call<Request, Answer>(&self, method: &str, request: Request) -> Result<Answer>
    where
        Request: Message + Send + Sync + 'static,
        Answer: Message + Default + Send + Sync + 'static,
    {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.context("containerd went away")?;
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let answer =
            client.unary(tonic::Request::new(request), path, ProstCodec::<Request, Answer>::default()).await;
        Ok(answer.map_err(|status| anyhow::anyhow!("{method}: {status}"))?.into_inner())
    }
}
