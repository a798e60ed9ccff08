//! The handle on a server that runs.

use std::net::SocketAddr;

use hioload_pipeline::Remote;

use super::error::Error;
use super::monitor::Monitor;
use super::report::Report;
use super::signals::Watch;
use super::worker::Team;

/// A running server. Dropping it stops the server at once; [`Running::join`] waits for its end.
#[must_use = "dropping it stops the server; `join` waits for its end"]
pub struct Running {
    team: Team,
    remote: Remote,
    monitor: Monitor,
    report: Report,
    signals: Option<Watch>,
}

impl Running {
    pub(crate) fn new(
        team: Team,
        remote: Remote,
        monitor: Monitor,
        report: Report,
        signals: Option<Watch>,
    ) -> Self {
        Running { team, remote, monitor, report, signals }
    }

    /// The addresses that it listens on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.report.addresses
    }

    /// How it started: for a person, through `Display`.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Reaches all sessions, and drains or stops the workers, from any thread.
    #[must_use]
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Reads the counters, from any thread.
    #[must_use]
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Begins to close all sessions in order (1001); [`Running::join`] waits for that.
    pub fn drain(&self) {
        self.remote.drain();
    }

    /// Ends the workers now; sessions are dropped.
    pub fn stop(&self) {
        self.remote.stop();
    }

    /// Waits until every worker ended.
    ///
    /// # Errors
    /// Why a worker failed or panicked; the others were stopped then.
    pub fn join(mut self) -> Result<(), Error> {
        self.end()
    }

    /// After it, nobody uses what the workers had.
    fn end(&mut self) -> Result<(), Error> {
        let ended = self.team.join();
        #[cfg(feature = "dpdk")]
        self.monitor.device.close();
        ended
    }

    /// Tells through `tracing` how it started, then waits.
    pub(crate) fn log_and_join(self) -> Result<(), Error> {
        for warning in &self.report.warnings {
            tracing::warn!("{warning}");
        }
        for address in &self.report.addresses {
            tracing::info!(
                workers = self.report.pinned.len(),
                backend = self.report.backend,
                "listening on {address}"
            );
        }
        self.join()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `join` there is nobody left, and this is nothing.
        self.remote.stop();
        let _ = self.end();
        drop(self.signals.take());
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("report", &self.report).finish_non_exhaustive()
    }
}
