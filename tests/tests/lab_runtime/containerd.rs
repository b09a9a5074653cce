//! Debian's containerd in a node's network namespace, with runc and our plugin, and an image made on the spot.
//!
//! The settings are what root without CAP_SYS_RESOURCE on a hybrid cgroup hierarchy needs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sinew_tests::lab::process::{Running, run, tail, wait_until};
use sinew_tests::lab::{Node, binaries};

/// The image of every container and of the sandboxes: our probe and what it links to.
pub(crate) const IMAGE: &str = "localhost/sinew-probe:lab";

pub(crate) struct Containerd {
    running: Running,
    folder: PathBuf,
}

impl Containerd {
    /// Starts it on a node, with a configuration list of plugins.
    pub(crate) fn start(node: &Node, plugins: &Value) -> Result<Self> {
        let folder = node.directories().notes.join("containerd");
        let (conf, bin) = (folder.join("net.d"), folder.join("cni-bin"));
        for new in [&conf, &bin] {
            fs::create_dir_all(new).with_context(|| format!("making {}", new.display()))?;
        }
        for entry in fs::read_dir("/usr/lib/cni").context("containernetworking-plugins is not installed")? {
            let entry = entry?;
            symlink(entry.path(), bin.join(entry.file_name()))?;
        }
        symlink(binaries::find("sinew-cni")?, bin.join("sinew-cni"))?;
        let list = json!({"cniVersion": "1.0.0", "name": "sinew", "plugins": plugins});
        fs::write(conf.join("10-sinew.conflist"), list.to_string())?;
        let config = folder.join("config.toml");
        fs::write(&config, settings(&folder, &conf, &bin))?;

        let mut command = node.netns().command("containerd");
        command.arg("--config").arg(&config);
        let running = Running::start(&mut command, &folder.join("log"))?;
        let containerd = Self { running, folder };
        wait_until("containerd", Duration::from_secs(20), || Ok(containerd.ctr(&["version"]).is_ok()))
            .with_context(|| tail(&containerd.folder.join("log"), 20))?;
        let archive = containerd.folder.join("image.tar");
        make_image(&containerd.folder.join("image"), &archive)?;
        containerd.ctr(&["--namespace", "k8s.io", "images", "import", &archive.display().to_string()])?;
        Ok(containerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    pub(crate) fn log(&self) -> String {
        tail(&self.folder.join("log"), 20)
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.running.kill().map(drop)
    }

    fn ctr(&self, words: &[&str]) -> Result<String> {
        run(Command::new("ctr").arg("--address").arg(self.socket()).args(words))
    }
}

fn settings(folder: &Path, conf: &Path, bin: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{}"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        bin.display(),
        conf.display()
    )
}

/// A one-layer OCI archive with the probe and its library closure. OCI image specification 1.0: layout, manifest, config.
fn make_image(scratch: &Path, archive: &Path) -> Result<()> {
    let (layer, blobs) = (scratch.join("layer"), scratch.join("oci/blobs/sha256"));
    for folder in [&layer, &blobs] {
        fs::create_dir_all(folder)?;
    }
    for folder in ["tmp", "proc", "sys", "dev", "etc", "run"] {
        fs::create_dir_all(layer.join(folder))?;
    }
    let probe = binaries::find("sinew-probe")?;
    fs::copy(&probe, layer.join("sinew-probe"))?;
    let libraries = run(Command::new("ldd").arg(&probe))?;
    let paths =
        libraries.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    for path in paths {
        let inside = layer.join(path.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().context("a library lies in a folder")?)?;
        fs::copy(path, inside)?;
    }
    let tar = scratch.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(&layer).arg("-cf").arg(&tar).args([
        "--owner=0",
        "--group=0",
        ".",
    ]))?;
    let (layer_digest, layer_size) = blob(&blobs, &fs::read(&tar)?)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/sinew-probe", "serve"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let (config_digest, config_size) = blob(&blobs, config.to_string().as_bytes())?;
    let kind = |name: &str| format!("application/vnd.oci.image.{name}");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind("manifest.v1+json"),
        "config": {"mediaType": kind("config.v1+json"), "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": kind("layer.v1.tar"), "digest": layer_digest, "size": layer_size}],
    });
    let (digest, size) = blob(&blobs, manifest.to_string().as_bytes())?;
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": kind("manifest.v1+json"), "digest": digest, "size": size,
            "annotations": {"io.containerd.image.name": IMAGE},
        }],
    });
    let oci = scratch.join("oci");
    fs::write(oci.join("index.json"), index.to_string())?;
    fs::write(oci.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    run(Command::new("tar").arg("-C").arg(&oci).arg("-cf").arg(archive).arg(".")).map(drop)
}

fn blob(folder: &Path, content: &[u8]) -> Result<(String, usize)> {
    let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(folder.join(&hash), content)?;
    Ok((format!("sha256:{hash}"), content.len()))
}
