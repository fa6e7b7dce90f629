//! `mvedsuad`: the daemon and its client in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(mvedsua_daemon::cli::run())
}
