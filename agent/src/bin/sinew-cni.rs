//! `sinew-cni`: the CNI plugin's binary. What it does is in `sinew_agent::plugin`.

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    sinew_agent::plugin::run(&|name| std::env::var(name).ok(), &mut io::stdin(), &mut io::stdout())
}
