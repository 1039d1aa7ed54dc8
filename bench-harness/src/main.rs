//! The command line of weir-bench: everything is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(weir_bench::cli::main())
}
