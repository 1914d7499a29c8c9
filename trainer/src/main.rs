//! The `trainer` program: one command with the environment of this process.

use std::process::ExitCode;

use trainer::config::environment;

fn main() -> ExitCode {
    trainer::cli::restart_tuned();
    let code = trainer::cli::run_command_line(
        std::env::args_os(),
        &environment(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    );
    ExitCode::from(code)
}
