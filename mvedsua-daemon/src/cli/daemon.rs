//! `mvedsuad daemon`.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{DaemonArgs, Place};
use super::wiring::{BpfObserver, ForkEngine};
use super::{logging, supervised};
use crate::control::daemon::{Daemon, StartError};
use crate::control::protocol::Problem;
use crate::control::{Code, http, server};

/// How long the daemon waits at its end for work that blocks.
const BLOCKED_WITHIN: Duration = Duration::from_secs(2);

/// Runs the daemon until it is asked to end.
pub(super) fn run(place: &Place, args: &DaemonArgs) -> Result<(), Problem> {
    let failed = |code: Code, why: String| {
        Problem::new(code, "running the daemon", why, "`mvedsuad doctor` says what this machine lacks")
    };
    let _log = logging::start(args.log_format)
        .map_err(|e| failed(Code::Unreachable, format!("starting a thread for the log: {e}")))?;
    if args.detached {
        // Neither a terminal that closes nor a directory that is unmounted concerns it.
        nix::unistd::setsid().map_err(|e| failed(Code::Unreachable, format!("leaving the session: {e}")))?;
    }
    let dirs = place.dirs();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control-blocking")
        .build()
        .map_err(|e| failed(Code::Unreachable, format!("starting the control plane: {e}")))?;
    let daemon = Daemon::start(&dirs, Arc::new(ForkEngine), Arc::new(BpfObserver::start()?)).map_err(|e| match e {
        StartError::Running(_) => failed(Code::Refused, e.to_string()),
        StartError::Config(_) => failed(Code::Usage, e.to_string()),
        StartError::Files { .. } => failed(Code::Unreachable, e.to_string()),
    })?;
    let ended = runtime.block_on(async {
        let socket = server::bind(&dirs, &daemon)
            .map_err(|e| failed(Code::Unreachable, format!("binding {}: {e}", dirs.socket().display())))?;
        if let Some(listener) = http::bind(&daemon).map_err(|e| failed(Code::Usage, e.to_string()))? {
            tokio::spawn(http::serve(Arc::clone(&daemon), listener));
        }
        on_signals(&daemon).map_err(|e| failed(Code::Unreachable, format!("listening for signals: {e}")))?;
        tracing::info!(socket = %dirs.socket().display(), pid = std::process::id(), "ready");
        if args.detached {
            say_ready().map_err(|e| failed(Code::Unreachable, format!("saying that it is ready: {e}")))?;
        }
        supervised::ready();
        supervised::keep_watchdog();
        server::serve(Arc::clone(&daemon), socket.listener).await;
        if socket.maker == server::Maker::Daemon {
            // Whoever comes now shall see that nobody is there. A socket of systemd's starts the next daemon.
            let _ = std::fs::remove_file(dirs.socket());
        }
        tracing::info!("ended");
        Ok(())
    });
    // Somebody may be reading from a disk that hangs.
    runtime.shutdown_timeout(BLOCKED_WITHIN);
    ended
}

/// Ends the daemon in order when it is told to end.
fn on_signals(daemon: &Arc<Daemon>) -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind)?;
        let daemon = Arc::clone(daemon);
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                supervised::stopping();
                daemon.end();
            }
        });
    }
    Ok(())
}

/// Tells whoever started the daemon that it answers, and lets go of the pipe.
fn say_ready() -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(())
}
