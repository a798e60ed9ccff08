//! What a port tells by itself, on a thread of the EAL: its link came up or went down, it was taken
//! away. Kept in a table by port, so that a late call finds no memory that is gone.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hioload_dpdk_sys as sys;

use super::explain::DpdkError;

struct Port {
    open: AtomicBool,
    removed: AtomicBool,
    link_changes: AtomicU32,
}

static PORTS: [Port; sys::HIO_MAX_PORTS as usize] = [const {
    Port {
        open: AtomicBool::new(false),
        removed: AtomicBool::new(false),
        link_changes: AtomicU32::new(0),
    }
}; _];

/// What is listened for.
const EVENTS: [sys::rte_eth_event_type; 3] =
    [sys::RTE_ETH_EVENT_INTR_LSC, sys::RTE_ETH_EVENT_INTR_RMV, sys::RTE_ETH_EVENT_INTR_RESET];

/// Takes a port for one user at a time, until it is [`released`], and listens to it.
pub(super) fn claim(port: u16, name: &str) -> Result<(), DpdkError> {
    let entry = &PORTS[usize::from(port)];
    if entry.open.swap(true, Ordering::AcqRel) {
        let help = "a device is opened once, with as many queues as are needed";
        return Err(DpdkError::new(format!("the device `{name}` is in use"), help));
    }
    entry.removed.store(false, Ordering::Relaxed);
    entry.link_changes.store(0, Ordering::Relaxed);
    for event in EVENTS {
        // SAFETY: the function lives as long as the program, and is given no pointer.
        unsafe {
            sys::rte_eth_dev_callback_register(port, event, Some(heard), std::ptr::null_mut());
        }
    }
    Ok(())
}

/// Hears no more: to be called before the port is closed, and with it gone for ethdev.
pub(super) fn silence(port: u16) {
    for event in EVENTS {
        // SAFETY: it was registered so; where it wasn't, nothing happens.
        unsafe {
            sys::rte_eth_dev_callback_unregister(port, event, Some(heard), std::ptr::null_mut());
        }
    }
}

/// Nobody uses the port any more, and its number is free. Under the lock of
/// [`control`](super::eal::control), as the next device may have that number at once.
pub(super) fn released(port: u16) {
    PORTS[usize::from(port)].open.store(false, Ordering::Release);
}

pub(super) fn is_open(port: u16) -> bool {
    PORTS.get(usize::from(port)).is_some_and(|entry| entry.open.load(Ordering::Acquire))
}

/// Whether the port is gone for good.
#[inline]
pub(super) fn is_removed(port: u16) -> bool {
    PORTS[usize::from(port)].removed.load(Ordering::Relaxed)
}

/// The port is gone, as somebody found out.
pub(super) fn removed(port: u16) {
    PORTS[usize::from(port)].removed.store(true, Ordering::Relaxed);
}

/// How often the link came up or went down, as far as the device tells.
pub(super) fn link_changes(port: u16) -> u32 {
    PORTS[usize::from(port)].link_changes.load(Ordering::Relaxed)
}

extern "C" fn heard(
    port: u16,
    event: sys::rte_eth_event_type,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let Some(entry) = PORTS.get(usize::from(port)) else { return 0 };
    if event == sys::RTE_ETH_EVENT_INTR_LSC {
        entry.link_changes.fetch_add(1, Ordering::Relaxed);
        let state = super::device::link_state(port);
        tracing::info!("DPDK port {port}: {state}");
    } else {
        entry.removed.store(true, Ordering::Relaxed);
    }
    0
}
