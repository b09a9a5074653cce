//! `sinew-agent-changed`: the agent with other kernel programs, to upgrade to. It is `sinew-agent` in everything but the
//! object that it carries, which `cargo xtask build changed` compiles from the same source into other instructions.

use anyhow::Result;
use clap::Parser;
use sinew_agent::config::{Arguments, Config};
use sinew_agent::run;
use tracing_subscriber::EnvFilter;

#[cfg(changed_object)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("SINEW_CHANGED_OBJECT")));
#[cfg(not(changed_object))]
const OBJECT: Option<&[u8]> = None;

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_writer(std::io::stderr).init();
    let Some(object) = OBJECT else {
        anyhow::bail!("the programs to upgrade to are not built: run `cargo xtask build changed`")
    };
    run::run(Config::try_from(Arguments::parse())?, object)
}
