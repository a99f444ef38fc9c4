//! The `headwater` command: arguments in, exit code out; everything else is the library's.

use std::process::ExitCode;

use clap::Parser as _;
use headwater::app;

fn main() -> ExitCode {
    app::run(app::cli::Cli::parse())
}
