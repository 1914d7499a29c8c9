//! The program: everything it does is in the library, so that tests can drive it in process.

use std::process::ExitCode;

fn main() -> ExitCode {
    retriever_server::cli::run(std::env::args_os(), &mut std::io::stdout().lock())
}
