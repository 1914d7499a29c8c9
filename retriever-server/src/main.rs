//! The program: everything it does is in the library, so that tests can drive it in process.

use std::io;
use std::process::ExitCode;

use retriever_server::cli::{self, Streams};

fn main() -> ExitCode {
    let mut streams = Streams { out: &mut io::stdout().lock(), err: &mut io::stderr() };
    let code = cli::run(std::env::args_os(), &mut streams);
    cli::end();
    ExitCode::from(code)
}
