//! The binary `sinew`: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    sinew_cli::run(std::env::args_os())
}
