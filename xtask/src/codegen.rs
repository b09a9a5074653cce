//! `cargo xtask codegen`: Rust code and descriptors from `api/proto`, committed in `api/src/proto`.
//!
//! The code is committed so that building needs neither this task nor a `protoc`; `--check` compares what would be
//! written with what is there and fails when it is stale. Neighbour: `sinew_api::proto`, which includes the output.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use prost::Message;
use prost_types::FileDescriptorSet;

use crate::paths;

/// Options of `cargo xtask codegen`.
#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the committed code is not what would be written.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Packages that are Hubble's: their code names each other by `super`.
const HUBBLE: [&str; 4] =
    ["flow/flow.proto", "observer/observer.proto", "peer/peer.proto", "relay/relay.proto"];
/// Our own service. It refers to Hubble's packages from outside.
const AGENT: &str = "agent/agent.proto";
/// Descriptors of all packages, for reflection and for the test of the schema.
const DESCRIPTORS: &str = "descriptors.bin";

/// Makes the code, and writes or compares it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = paths::root();
    let made = generate(&root.join("api/proto"))?;
    let folder = root.join("api/src/proto");
    let mut stale = Vec::new();
    for (name, content) in &made {
        let path = folder.join(name);
        if fs::read(&path).ok().as_deref() == Some(content.as_slice()) {
            continue;
        }
        stale.push(path.display().to_string());
        if !options.check {
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    match (stale.is_empty(), options.check) {
        (true, _) => println!("codegen: {} files are current", made.len()),
        (false, false) => println!("codegen: wrote {}", stale.join(", ")),
        (false, true) => {
            bail!("stale: {}; run `cargo xtask codegen` and commit the result", stale.join(", "))
        }
    }
    Ok(())
}

/// Every file of `api/src/proto` with its content.
fn generate(proto: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let hubble = compile(proto, &HUBBLE)?;
    let agent = compile(proto, &[AGENT])?;
    let mut made = BTreeMap::new();
    for name in ["flow", "observer", "peer", "relay"] {
        let code = code_of(hubble.clone(), &[])?;
        let file = format!("{name}.rs");
        made.insert(
            file.clone(),
            code.get(&file).with_context(|| format!("no code was made for {name}"))?.clone(),
        );
    }
    let code = code_of(agent.clone(), &[(".flow", "crate::proto::flow")])?;
    made.insert(
        "agent.rs".to_owned(),
        code.get("sinew.agent.v1.rs").context("no code was made for the agent")?.clone(),
    );

    // One set with each file once, for reflection and for tests of the schema.
    let mut all = hubble;
    for file in agent.file {
        if !all.file.iter().any(|known| known.name == file.name) {
            all.file.push(file);
        }
    }
    for file in &mut all.file {
        file.source_code_info = None; // comments: two thirds of the bytes, and no client of reflection reads them
    }
    made.insert(DESCRIPTORS.to_owned(), all.encode_to_vec());
    Ok(made)
}

/// Descriptors of `files` and all that they import, with comments.
fn compile(proto: &Path, files: &[&str]) -> Result<FileDescriptorSet> {
    protox::compile(files, [proto]).map_err(|error| anyhow::anyhow!("{error:?}")).context("compile api/proto")
}

/// File name to code, as prost and tonic make it. `external` packages are left out and referred to by path.
fn code_of(
    mut descriptors: FileDescriptorSet,
    external: &[(&str, &str)],
) -> Result<BTreeMap<String, Vec<u8>>> {
    // The public schema calls fields deprecated that old clients still read, so we fill them: no warning is wanted.
    for message in descriptors.file.iter_mut().flat_map(|file| &mut file.message_type) {
        for field in &mut message.field {
            if let Some(options) = &mut field.options {
                options.deprecated = None;
            }
        }
    }
    let scratch = std::env::temp_dir().join(format!("sinew-codegen-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let mut builder =
        tonic_prost_build::configure().out_dir(&scratch).build_transport(false).emit_rerun_if_changed(false);
    for (package, path) in external {
        builder = builder.extern_path(*package, *path);
    }
    let outcome = builder.compile_fds(descriptors).context("make code").and_then(|()| {
        let mut made = BTreeMap::new();
        for entry in fs::read_dir(&scratch).context("list the code made")? {
            let entry = entry.context("list the code made")?;
            let content =
                fs::read(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
            made.insert(entry.file_name().to_string_lossy().into_owned(), content);
        }
        Ok(made)
    });
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    outcome
}
