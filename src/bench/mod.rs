//! `hioload-ws bench`: measures a WebSocket server. It is a client like any other, on the library's
//! workers and backends: a handler ([`load`]) sends, verifies and keeps the books on each worker,
//! the main thread ([`drive`]) says when, and [`summary`] and [`report`] tell what came of it.

mod args;
mod drive;
mod idle;
mod load;
mod payload;
mod progress;
mod report;
mod shared;
mod sizes;
mod summary;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use args::BenchArgs;

/// Runs the command.
///
/// # Errors
/// With the exit code, what to tell the operator.
pub fn run(args: &BenchArgs) -> Result<ExitCode, (u8, String)> {
    let plan = args.plan().map_err(|problem| (crate::USAGE, problem))?;
    args.client(&plan).check().map_err(|error| (crate::USAGE, error.to_string()))?;
    if let Some(path) = &args.report {
        // Better to know now than after the run.
        std::fs::write(path, "")
            .map_err(|e| (1, format!("cannot write {}: {e}", path.display())))?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    take_signals(&interrupted).map_err(|error| (1, format!("no signals: {error}")))?;
    let summary = drive::run(args, plan, &interrupted).map_err(|problem| (1, problem))?;
    if let Some(path) = &args.report {
        std::fs::write(path, report::html(&summary))
            .map_err(|error| (1, format!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        eprint!("{summary}");
        println!("{}", summary.json());
    } else {
        print!("{summary}");
    }
    Ok(if summary.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The first SIGINT or SIGTERM sets the flag, the second one ends the process.
#[cfg(unix)]
fn take_signals(interrupted: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the shutdown looks at the flag before it is set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(interrupted))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn take_signals(_: &Arc<AtomicBool>) -> std::io::Result<()> {
    Ok(())
}
