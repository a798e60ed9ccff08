//! What the operating system allows this process: its CPUs and its descriptors. Where it can't be
//! asked (other than on Linux), nothing is pinned and nothing is raised.

use std::io;

/// Descriptors that the process needs besides connections and listeners: logs, wake-ups, epolls.
const SPARE_DESCRIPTORS: u64 = 64;

/// The numbers of the CPUs that this process may use, ascending; empty where the system doesn't say.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    sys::allowed_cpus()
}

/// How many of them a scheduler's quota (a container's) really gives; at least 1.
pub(crate) fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Binds the calling thread to one core.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    sys::pin(cpu)
}

/// Raises the soft limit of descriptors to the hard one and gives what holds then; `None`: no
/// limit, or not known.
pub(crate) fn raise_descriptors() -> Option<u64> {
    sys::raise_descriptors()
}

/// Warns where the setting `name` asks for more connections than the descriptors allow.
pub(crate) fn compare_descriptors(
    name: &str,
    connections: usize,
    descriptors: Option<u64>,
    warnings: &mut Vec<String>,
) {
    let wanted = connections as u64 + SPARE_DESCRIPTORS;
    if let Some(limit) = descriptors
        && connections > 0
        && wanted > limit
    {
        warnings.push(format!(
            "{name} is {connections}, but this process may have only {limit} descriptors; the rest \
             will wait or fail. Raise the hard limit to {wanted} (ulimit -Hn, LimitNOFILE of \
             systemd)"
        ));
    }
}

/// Whether sockets can listen on IPv6 here.
pub(crate) fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

#[cfg(target_os = "linux")]
mod sys {
    use std::io;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn allowed_cpus() -> Vec<usize> {
        match sched_getaffinity(None) {
            Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
            Err(_) => Vec::new(),
        }
    }

    pub(super) fn pin(cpu: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu);
        Ok(sched_setaffinity(None, &set)?)
    }

    pub(super) fn raise_descriptors() -> Option<u64> {
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            // Where it may not be raised the old limit just stays: it is what gets reported.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        }
        getrlimit(Resource::Nofile).current
    }
}

#[cfg(not(target_os = "linux"))]
mod sys {
    use std::io;

    pub(super) fn allowed_cpus() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn pin(_cpu: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn raise_descriptors() -> Option<u64> {
        None
    }
}
