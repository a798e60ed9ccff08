//! Threads for DPDK: its own lcores, which wait for something to run, and threads of the program
//! that are made known to it. Either way a thread gets a number, and with it a cache of its own in
//! every mempool; without one the mempools work, but by atomic operations.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};

use hioload_dpdk_sys as sys;

use super::eal::Eal;
use super::explain::{self, DpdkError};

/// A thread that the EAL made for one of the cores in `-l` or `--lcores`; not the main one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lcore {
    /// Its number in DPDK.
    pub id: u32,
    /// The core that it is pinned to, the first if there are several.
    pub cpu: u32,
    /// Its NUMA node.
    pub node: u32,
}

/// What runs on an lcore.
#[derive(Debug)]
pub struct LcoreTask<T> {
    lcore: u32,
    result: Receiver<Result<T, Box<dyn Any + Send>>>,
    _eal: Eal,
}

/// A thread of the program that DPDK knows; it forgets it when this is dropped, on the same thread.
#[derive(Debug)]
pub struct RegisteredThread {
    /// It was given its number here.
    ours: bool,
    /// It is dropped on the thread that it names.
    _here: PhantomData<*const ()>,
    _eal: Eal,
}

type Job = Box<dyn FnOnce() + Send>;

impl Eal {
    /// The lcores beside the main one, which is the thread that started the EAL.
    #[must_use]
    pub fn lcores(&self) -> Vec<Lcore> {
        let mut lcores = Vec::new();
        let mut id = u32::MAX;
        loop {
            // SAFETY: the EAL was started; from u32::MAX it begins with the first.
            id = unsafe { sys::rte_get_next_lcore(id, 1, 0) };
            if u64::from(id) >= sys::HIO_MAX_LCORES {
                return lcores;
            }
            lcores.push(lcore(id));
        }
    }

    /// The main lcore: the one that started the EAL.
    #[must_use]
    pub fn main_lcore(&self) -> Lcore {
        // SAFETY: the EAL was started, and has a main lcore.
        lcore(unsafe { sys::rte_get_main_lcore() })
    }

    /// Runs `work` on an lcore, which must be idle.
    ///
    /// # Errors
    /// There is no such lcore, or it runs something.
    pub fn launch<T: Send + 'static>(
        &self,
        lcore: Lcore,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<LcoreTask<T>, DpdkError> {
        let what = format!("lcore {} takes no work", lcore.id);
        if !self.lcores().iter().any(|known| known.id == lcore.id) {
            return Err(DpdkError::new(what, "name it in `-l`, beside the main one"));
        }
        let (done, result) = sync_channel(1);
        let job: Job = Box::new(move || {
            // Who waits for the result may have gone.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        let job = Box::into_raw(Box::new(job));
        // SAFETY: `run` takes the box back, once.
        let launched = unsafe { sys::rte_eal_remote_launch(Some(run), job.cast(), lcore.id) };
        if launched != 0 {
            // SAFETY: it was refused, so the box is still ours.
            drop(unsafe { Box::from_raw(job) });
            return Err(DpdkError::new(what, "wait for what it runs").because(launched));
        }
        Ok(LcoreTask { lcore: lcore.id, result, _eal: self.clone() })
    }

    /// Makes the calling thread known to DPDK, with the cores that it may run on now: pin it before.
    /// On an lcore of the EAL's nothing is to be done. Nor is it where packets may be captured: DPDK
    /// has either threads that it didn't make or secondary processes, and mempools work by atomic
    /// operations for a thread that it doesn't know.
    ///
    /// # Errors
    /// There are as many as DPDK was built for (128).
    pub fn register_thread(&self) -> Result<RegisteredThread, DpdkError> {
        // SAFETY: reads a number of this thread.
        let unknown = unsafe { sys::hio_lcore_id() == sys::hio_lcore_none() };
        let ours = unknown && !self.offers_capture();
        explain::forget();
        // SAFETY: the EAL was started.
        if ours && unsafe { sys::rte_thread_register() } != 0 {
            // SAFETY: reads a number of this thread.
            let number = unsafe { sys::hio_errno() };
            let help = "start fewer workers, or without secondary processes";
            return Err(DpdkError::new("it takes no further thread", help).because(number));
        }
        Ok(RegisteredThread { ours, _here: PhantomData, _eal: self.clone() })
    }
}

/// What there is to know of an lcore that there is. `rte_lcore_to_cpu_id` would give the number of
/// the physical core of the CPU that has the lcore's number, wherever the lcore runs.
fn lcore(id: u32) -> Lcore {
    // SAFETY: there is such an lcore.
    let (cpus, node) = unsafe { (sys::rte_lcore_cpuset(id), sys::rte_lcore_to_socket_id(id)) };
    let mut first = 0;
    for word in cpus.__bits {
        first += word.trailing_zeros();
        if word != 0 {
            break;
        }
    }
    Lcore { id, cpu: first, node }
}

extern "C" fn run(job: *mut c_void) -> c_int {
    // SAFETY: it was made by `Eal::launch`, and is run once.
    let job = unsafe { Box::from_raw(job.cast::<Job>()) };
    // It catches panics of the work; none is left that could cross into C.
    job();
    0
}

impl<T> LcoreTask<T> {
    /// Waits until the work is done, blocking.
    ///
    /// # Errors
    /// What it panicked with, as with a thread.
    pub fn join(self) -> Result<T, Box<dyn Any + Send>> {
        let result = self.result.recv();
        // SAFETY: there is such an lcore. It has done all but return to its waiting.
        unsafe { sys::rte_eal_wait_lcore(self.lcore) };
        result.unwrap_or_else(|_| Err(Box::new("the lcore ended without a result")))
    }
}

impl RegisteredThread {
    /// The number that DPDK gave it; `LCORE_ID_ANY` (`u32::MAX`) where it has none.
    #[must_use]
    pub fn lcore(&self) -> u32 {
        // SAFETY: reads a number of this thread.
        unsafe { sys::hio_lcore_id() }
    }
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: this thread was registered; the type can't leave it.
            unsafe { sys::rte_thread_unregister() };
        }
    }
}
