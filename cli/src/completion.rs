//! `sinew completion SHELL`.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::output;

/// Arguments of `sinew completion`.
#[derive(Args)]
pub(crate) struct CompletionArgs {
    /// The shell; for bash: source <(sinew completion bash)
    shell: Shell,
}

/// Writes the script.
pub(crate) fn run(args: &CompletionArgs, mut tree: clap::Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree, "sinew", &mut script);
    output::write(&String::from_utf8_lossy(&script))
}
