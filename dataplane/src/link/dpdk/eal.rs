//! DPDK's environment: started once in a process, with arguments in DPDK's own syntax, and cleaned
//! up when its last user has gone.

use std::ffi::{CStr, CString, c_char, c_int};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hioload_dpdk_sys as sys;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::capture;
use super::explain::{self, DpdkError};

/// `rte_eal_init` can't be called again, not even after `rte_eal_cleanup`.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Adding, taking away, opening, closing and listing devices, one at a time: while one thread closes
/// a port, drivers answer no question about it.
static CONTROL: Mutex<()> = Mutex::new(());

/// The right to change devices, or to look at those of others.
pub(super) fn control() -> MutexGuard<'static, ()> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The environment. Clones are the same; devices hold one. When the last goes, DPDK gives back its
/// memory and its hugepage files: so keep one on the thread that started it until the workers have
/// ended.
#[derive(Clone, Debug)]
pub struct Eal {
    started: Arc<Started>,
}

#[derive(Debug)]
struct Started {
    arguments: Vec<String>,
    captures: AtomicBool,
}

/// What there is to know of a device before it is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its number in DPDK.
    pub port: u16,
    /// Its name in DPDK: `net_tap0`, `0000:3b:00.0`.
    pub name: String,
    /// The driver: `net_tap`, `net_ice`.
    pub driver: String,
    /// The NUMA node that it is on; `None` where it is on none, or nobody knows.
    pub node: Option<u32>,
    /// Its station address.
    pub mac: [u8; 6],
    /// Queue pairs that it can have.
    pub queues_max: u16,
    /// Somebody in this process opened it.
    pub in_use: bool,
}

impl Eal {
    /// Starts the EAL with the words of a command line, without the program's name: `["-l", "1",
    /// "--in-memory", "--vdev=net_tap0"]`.
    ///
    /// The calling thread becomes the main lcore, but is not left pinned: the cores that it may use
    /// are what they were. It is not to poll; see [`Eal::lcores`] and [`Eal::register_thread`] for
    /// threads that do. DPDK writes its list of options to standard output when it is given one that
    /// it doesn't know, and ends the process after that for `--help`.
    ///
    /// What a killed process left behind needs no care: hugepage files that nobody holds are removed
    /// by this, if they are of the same `--file-prefix` or of none.
    ///
    /// # Errors
    /// What is wrong with the arguments, the hugepages or the rights, and how to mend it; or that it
    /// was started before in this process.
    pub fn start(args: &[impl AsRef<str>]) -> Result<Eal, DpdkError> {
        if let Err((what, rust, c)) = sys::check_layout() {
            return Err(DpdkError::new(
                format!("{what} is {rust} in Rust and {c} in C"),
                "build again with one version of libdpdk's headers",
            ));
        }
        let given: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut words = Vec::with_capacity(given.len() + 2);
        for word in ["hioload-ws"].into_iter().chain(given.iter().map(String::as_str)) {
            let Ok(word) = CString::new(word) else {
                let help = "an argument of the EAL is text without zero bytes";
                return Err(DpdkError::new("an argument with a zero byte", help));
            };
            // It keeps pointers into them, as programs' arguments are never freed.
            words.push(word.into_raw());
        }
        let count = words.len();
        words.push(std::ptr::null_mut());
        let words = words.leak();
        if STARTED.swap(true, Ordering::AcqRel) {
            let help = "start it once, and share it";
            return Err(DpdkError::new("the EAL was started in this process before", help));
        }
        explain::forget();
        // SAFETY: `sink` lives as long as the program.
        if unsafe { sys::hio_log_to(Some(sink)) } != 0 {
            tracing::warn!("DPDK's log can't be had; it goes to the standard error output");
        }
        let affinity = sched_getaffinity(None);
        // SAFETY: argc and argv as of a program, which live on.
        let parsed = unsafe { sys::rte_eal_init(count as c_int, words.as_mut_ptr()) };
        // SAFETY: reads a number of this thread.
        let number = unsafe { sys::hio_errno() };
        if let Ok(cpus) = affinity
            && let Err(error) = sched_setaffinity(None, &cpus)
        {
            tracing::warn!("the main thread stays where the EAL pinned it: {error}");
        }
        if parsed < 0 {
            let is_root = rustix::process::geteuid().is_root();
            return Err(explain::start_failed(&given, number, is_root));
        }
        let started = Started { arguments: given, captures: AtomicBool::new(false) };
        let eal = Eal { started: Arc::new(started) };
        // The rest is for the program, which has none here.
        let understood = parsed as usize + 1;
        match eal.arguments().get(understood.saturating_sub(1)) {
            Some(rest) => Err(DpdkError::new(
                format!("`{rest}` is not an option of the EAL"),
                "options begin with - or --; leave it out, or write it behind its option",
            )),
            None => Ok(eal),
        }
    }

    /// The version of DPDK that is linked.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: a string that lives as long as the library.
        unsafe { text(sys::rte_version()) }
    }

    /// Whether its memory is in hugepages.
    #[must_use]
    pub fn has_hugepages(&self) -> bool {
        // SAFETY: the EAL was started.
        unsafe { sys::rte_eal_has_hugepages() == 1 }
    }

    /// What it was started with.
    pub(super) fn arguments(&self) -> &[String] {
        &self.started.arguments
    }

    /// Packet capture is offered from now on; true where it wasn't before.
    pub(super) fn capture_is_new(&self) -> bool {
        !self.started.captures.swap(true, Ordering::AcqRel)
    }

    /// Packet capture is offered, which secondary processes do.
    pub(super) fn offers_capture(&self) -> bool {
        self.started.captures.load(Ordering::Acquire)
    }

    /// The devices that there are.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let mut devices = Vec::new();
        let mut port = 0;
        let _control = control();
        loop {
            // SAFETY: the EAL was started.
            let next = unsafe { sys::rte_eth_find_next(port) };
            if u64::from(next) >= sys::HIO_MAX_PORTS {
                return devices;
            }
            devices.extend(device_info(next));
            port = next + 1;
        }
    }

    /// The device of that name.
    ///
    /// # Errors
    /// There is none; the message lists those that there are.
    pub fn device(&self, name: &str) -> Result<DeviceInfo, DpdkError> {
        let devices = self.devices();
        let known: Vec<_> = devices.iter().map(|device| device.name.clone()).collect();
        devices.into_iter().find(|device| device.name == name).ok_or_else(|| {
            let known = match known.is_empty() {
                true => "there is none at all".into(),
                false => format!("there are: {}", known.join(", ")),
            };
            let help = "give the EAL a `--vdev`, or bind the NIC to vfio-pci \
                        (`dpdk-devbind.py --status` lists them)";
            DpdkError::new(format!("no device `{name}`; {known}"), help).with_log()
        })
    }

    /// Adds a device while the EAL runs, as `-a` and `--vdev` do at its start: `net_tap1,iface=t1`.
    ///
    /// # Errors
    /// The driver's, and what it logged.
    pub fn attach(&self, device: &str) -> Result<DeviceInfo, DpdkError> {
        explain::forget();
        let help = "the part before the first comma is a driver's name and a number, or an \
                    address on the PCI bus; the rest are that driver's options";
        let what = format!("the device `{device}` can't be added");
        let Ok(words) = CString::new(device) else { return Err(DpdkError::new(what, help)) };
        let control = control();
        // SAFETY: a string that ends in zero; the EAL was started.
        let result = unsafe { sys::rte_dev_probe(words.as_ptr()) };
        drop(control);
        if result < 0 {
            return Err(DpdkError::new(what, help).because(result));
        }
        self.device(device.split(',').next().unwrap_or(device))
    }

    /// Takes a device away that [`Eal::attach`] or `--vdev` added, and that nobody has open.
    ///
    /// # Errors
    /// There is none of that name, it is open, or its driver can't.
    pub fn detach(&self, name: &str) -> Result<(), DpdkError> {
        let what = format!("the device `{name}` can't be taken away");
        if self.devices().iter().any(|device| device.name == name && device.in_use) {
            return Err(DpdkError::new(what, "drop its queues first"));
        }
        // Addresses on the PCI bus have colons, names of virtual devices have none.
        let bus = if name.contains(':') { c"pci" } else { c"vdev" };
        let help = "give its name as `--vdev` had it, or its address on the PCI bus";
        let Ok(words) = CString::new(name) else { return Err(DpdkError::new(what, help)) };
        explain::forget();
        let _control = control();
        // SAFETY: strings that end in zero; the EAL was started.
        match unsafe { sys::rte_eal_hotplug_remove(bus.as_ptr(), words.as_ptr()) } {
            result if result < 0 => Err(DpdkError::new(what, help).because(result)),
            _ => Ok(()),
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.captures.load(Ordering::Acquire) {
            capture::withdraw();
        }
        // SAFETY: whoever uses the EAL holds a clone, and this was the last.
        unsafe { sys::rte_eal_cleanup() };
    }
}

/// What DPDK says of a port; `None` where there is no such port.
pub(super) fn dev_info(port: u16) -> Option<sys::rte_eth_dev_info> {
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let mut info: sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
    // SAFETY: it fills in what it is given, and knows which ports there are.
    let result = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    (result == 0).then_some(info)
}

/// The NUMA node of a port.
pub(super) fn node(port: u16) -> Option<u32> {
    // SAFETY: it knows which ports there are, and says -1 for others.
    u32::try_from(unsafe { sys::rte_eth_dev_socket_id(port) }).ok()
}

pub(super) fn device_info(port: u16) -> Option<DeviceInfo> {
    let info = dev_info(port)?;
    let mut name: [c_char; sys::RTE_ETH_NAME_MAX_LEN as usize] = [0; _];
    let mut mac = sys::rte_ether_addr { addr_bytes: [0; 6] };
    // SAFETY: the port exists; the name has the room that it needs.
    let (name, driver) = unsafe {
        sys::rte_eth_dev_get_name_by_port(port, name.as_mut_ptr());
        sys::rte_eth_macaddr_get(port, &raw mut mac);
        (text(name.as_ptr()), text(info.driver_name))
    };
    Some(DeviceInfo {
        port,
        name,
        driver,
        node: node(port),
        mac: mac.addr_bytes,
        queues_max: info.max_rx_queues.min(info.max_tx_queues),
        in_use: super::events::is_open(port),
    })
}

/// # Safety
/// `text` is null or a string that ends in zero.
pub(super) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A line of DPDK's log, or a part of one, from any thread.
extern "C" fn sink(level: c_int, words: *const c_char, len: usize) {
    if words.is_null() || len == 0 {
        return;
    }
    // SAFETY: the C library hands over `len` bytes of its stream's buffer.
    let bytes = unsafe { slice::from_raw_parts(words.cast::<u8>(), len) };
    for line in String::from_utf8_lossy(bytes).lines() {
        explain::heard(level, line);
    }
}
