//! Why DPDK refuses, in words for an operator. The EAL and the drivers give a number at best; the
//! reason is in their log, which is kept here while something is tried, and goes to `tracing` anyway.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines of the log that are kept.
const LINES_MAX: usize = 64;
/// Lines of it that an error quotes.
const QUOTED_MAX: usize = 4;
/// Severities (`RTE_LOG_*`) as syslog has them: errors and worse.
const ERR: i32 = 4;
const WARNING: i32 = 5;
const NOTICE: i32 = 6;
const INFO: i32 = 7;

static RECENT: Mutex<VecDeque<(i32, String)>> = Mutex::new(VecDeque::new());

/// Why DPDK can't do what it was asked, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpdkError {
    what: String,
    help: String,
    log: Vec<String>,
}

impl DpdkError {
    pub(super) fn new(what: impl Into<String>, help: impl Into<String>) -> DpdkError {
        DpdkError { what: what.into(), help: help.into(), log: Vec::new() }
    }

    /// With what DPDK logged since [`forget`].
    pub(super) fn with_log(mut self) -> DpdkError {
        self.log = complaints();
        self
    }

    /// With the number that a function of ethdev returned, or `rte_errno`.
    pub(super) fn because(mut self, number: i32) -> DpdkError {
        let reason = std::io::Error::from_raw_os_error(number.abs());
        self.what = format!("{}: {reason}", self.what);
        self.with_log()
    }
}

impl fmt::Display for DpdkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DPDK: {}", self.what)?;
        if !self.log.is_empty() {
            write!(f, " (it said: {})", self.log.join("; "))?;
        }
        write!(f, "; {}", self.help)
    }
}

impl std::error::Error for DpdkError {}

/// What is logged is an answer, and no complaint.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Asks for what may well be refused. Under the lock of [`control`](super::eal::control), so that
/// nothing else is made quiet but what drivers say of frames meanwhile.
pub(super) fn quietly<T>(ask: impl FnOnce() -> T) -> T {
    QUIET.store(true, Ordering::Relaxed);
    let answer = ask();
    QUIET.store(false, Ordering::Relaxed);
    answer
}

/// A line of DPDK's log.
pub(super) fn heard(level: i32, line: &str) {
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    match level {
        _ if QUIET.load(Ordering::Relaxed) => tracing::debug!(target: "dpdk", "{line}"),
        ..=ERR => tracing::warn!(target: "dpdk", "{line}"),
        WARNING => tracing::info!(target: "dpdk", "{line}"),
        NOTICE | INFO => tracing::debug!(target: "dpdk", "{line}"),
        _ => tracing::trace!(target: "dpdk", "{line}"),
    }
    let Ok(mut recent) = RECENT.lock() else { return };
    if recent.len() == LINES_MAX {
        recent.pop_front();
    }
    recent.push_back((level, line.to_owned()));
}

/// What was logged so far has nothing to do with what is tried next.
pub(super) fn forget() {
    if let Ok(mut recent) = RECENT.lock() {
        recent.clear();
    }
}

/// The first errors and warnings of late.
fn complaints() -> Vec<String> {
    let Ok(recent) = RECENT.lock() else { return Vec::new() };
    let bad = recent.iter().filter(|(level, _)| *level <= WARNING);
    bad.take(QUOTED_MAX).map(|(_, line)| line.clone()).collect()
}

/// Why `rte_eal_init` failed with this `rte_errno`.
pub(super) fn start_failed(args: &[String], number: i32, is_root: bool) -> DpdkError {
    let given = if args.is_empty() { "none".to_owned() } else { args.join(" ") };
    let what = format!("the EAL doesn't start with the arguments `{given}`");
    let error = DpdkError::new(what, "").with_log();
    let help = remedy(&error.log.join("\n"), args, number, is_root);
    // The number is chosen freely: without hugepages it is that for a lack of rights.
    match error.log.is_empty() {
        true => DpdkError { help, ..error.because(number) },
        false => DpdkError { help, ..error },
    }
}

/// What to do about a failure, by what the log and the arguments say.
fn remedy(log: &str, args: &[String], number: i32, is_root: bool) -> String {
    let says = |words: &[&str]| words.iter().any(|word| log.contains(word));
    let has = |option: &str| args.iter().any(|arg| arg.split('=').next() == Some(option));
    if says(&["Is another primary process running", "Cannot create lock on"]) {
        return "another DPDK program runs under the same name here: give this one a \
                `--file-prefix` of its own, or `--in-memory`"
            .into();
    }
    if !is_root && (says(&["Permission denied", "EACCES"]) || number == libc::EACCES) {
        return "run as root, or give the user the hugepage mount, /dev/vfio and CAP_NET_ADMIN, \
                CAP_NET_RAW, CAP_IPC_LOCK"
            .into();
    }
    if says(&["parse device", "failed to parse"]) {
        return "a `--vdev` is a driver's name and a number, with options behind commas \
                (`net_tap0,iface=dtap0`); the driver is in a package librte-net-*"
            .into();
    }
    let memory = [
        "hugepage",
        "HUGEPAGE",
        "Cannot init memory",
        "Not enough memory available",
        "Cannot reserve memory",
        "couldn't allocate memory",
    ];
    if says(&memory) || number == libc::ENOMEM {
        return if has("--no-huge") {
            "without hugepages give `-m` some megabytes (`--no-huge -m 512`), and leave out \
             `--in-memory`, `--socket-mem` and `--huge-dir`"
                .into()
        } else {
            "it found fewer free hugepages than it wants: `sysctl vm.nr_hugepages=512` reserves \
             1 GiB of 2 MiB pages (for all DPDK programs together), `-m` and `--socket-mem` say \
             how many megabytes to take, `--no-huge -m 512` does without"
                .into()
        };
    }
    if says(&["lcore", "core list", "core mask", "coremask"]) {
        return "`-l` takes cores that this process may use: see `taskset -cp $$`, and \
                `hioload-ws topology`"
            .into();
    }
    if says(&["VFIO", "vfio", "IOMMU"]) {
        return "bind the NIC to vfio-pci (`dpdk-devbind.py --status` shows which has what), and \
                turn the IOMMU on"
            .into();
    }
    if number == libc::EINVAL || says(&["command line"]) {
        return "they are DPDK's own, as for every DPDK program, one option a word \
                (https://doc.dpdk.org/guides/linux_gsg/linux_eal_parameters.html); above is what \
                it did not understand"
            .into();
    }
    if !is_root {
        return "try as root".into();
    }
    "`--log-level=lib.eal:debug` makes it say more".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(log: &str, args: &[&str], number: i32, is_root: bool) -> String {
        let args: Vec<String> = args.iter().map(|&arg| arg.into()).collect();
        remedy(log, &args, number, is_root)
    }

    #[test]
    fn each_failure_names_its_remedy() {
        for (log, args, number, is_root, remedy) in [
            (
                "EAL: No free 2048 kB hugepages reported on node 0",
                &[][..],
                libc::EACCES,
                true,
                "sysctl",
            ),
            ("EAL: FATAL: Cannot get hugepage information.", &[], libc::EACCES, true, "--no-huge"),
            ("EAL: FATAL: Cannot init memory", &["--no-huge"], libc::ENOMEM, true, "-m"),
            (
                "EAL: Cannot create lock on 'config'. Is another primary process running?",
                &[],
                libc::EAGAIN,
                true,
                "--file-prefix",
            ),
            (
                "EAL: cannot open '/dev/hugepages/rtemap_0': Permission denied",
                &[],
                libc::EACCES,
                false,
                "root",
            ),
            (
                "EAL: invalid core list, please check specified cores are part of 0-1",
                &["-l", "64"],
                libc::EINVAL,
                true,
                "cores",
            ),
            (
                "EAL: failed to parse device \"net_foo0\"",
                &["--vdev=net_foo0"],
                libc::ENODEV,
                true,
                "librte-net",
            ),
            (
                "EAL: FATAL: Invalid 'command line' arguments.",
                &["--nonsense"],
                libc::EINVAL,
                true,
                "DPDK's own",
            ),
        ] {
            let advice = advice(log, args, number, is_root);
            assert!(advice.contains(remedy), "{log}: {advice}");
        }
    }

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = DpdkError {
            what: "no device `net_tap0`".into(),
            help: "give the EAL one".into(),
            log: vec!["TAP: no".into()],
        };
        let text = error.to_string();
        assert_eq!(text, "DPDK: no device `net_tap0` (it said: TAP: no); give the EAL one");
    }
}
