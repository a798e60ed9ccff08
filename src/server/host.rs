//! What the operating system allows this process: its cores and its descriptors. Where it can't be
//! asked (other than on Linux), nothing is pinned and nothing is raised.

use std::io;

/// Descriptors that the process needs besides connections and listeners: logs, wake-ups, epolls.
const SPARE_DESCRIPTORS: u64 = 64;

/// The cores that this process may use.
pub(crate) struct Cores {
    /// Their numbers, ascending; empty where the system doesn't say.
    pub(crate) cpus: Vec<usize>,
    /// How many of them a scheduler's quota (a container's) really gives; at least 1.
    pub(crate) usable: usize,
}

impl Cores {
    pub(crate) fn of_this_process() -> Self {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        Cores { cpus: sys::allowed_cpus(), usable }
    }

    /// The core of each of `workers` workers, or why they are left to the scheduler.
    pub(crate) fn assign(&self, workers: usize) -> Result<&[usize], String> {
        let cores = self.cpus.len();
        match self.cpus.get(..workers) {
            _ if cores == 0 => Err("this system doesn't say which cores are allowed".into()),
            None => Err(format!("there are more workers than the {cores} allowed cores")),
            Some(_) if self.usable < cores => Err(format!(
                "a CPU quota gives {} of the {cores} allowed cores, and others use them too",
                self.usable
            )),
            Some(cpus) => Ok(cpus),
        }
    }

    /// As [`Cores::assign`], from the last core down.
    pub(crate) fn assign_last(&self, workers: usize) -> Result<Vec<usize>, String> {
        self.assign(workers)?;
        Ok(self.cpus.iter().rev().take(workers).copied().collect())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_a_core_each_only_where_there_are_enough() {
        let cores = Cores { cpus: vec![2, 5, 7], usable: 3 };
        assert_eq!(cores.assign(2), Ok(&[2, 5][..]));
        assert_eq!(cores.assign(3), Ok(&[2, 5, 7][..]));
        assert!(cores.assign(4).is_err_and(|why| why.contains("3 allowed cores")));
        assert_eq!(cores.assign_last(2), Ok(vec![7, 5]));
        assert!(cores.assign_last(4).is_err());
    }

    #[test]
    fn a_cpu_quota_leaves_workers_to_the_scheduler() {
        // Pinned, every container of a large machine would sit on its first cores.
        let cores = Cores { cpus: (0..64).collect(), usable: 2 };
        assert!(cores.assign(2).is_err_and(|why| why.contains("quota")));
    }
}
