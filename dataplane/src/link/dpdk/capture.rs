//! Packet capture by DPDK's own programs, `dpdk-dumpcap` and `dpdk-pdump`. They are secondary
//! processes: they map this one's hugepages, and ask it over a socket of the EAL's to hang callbacks
//! on its queues, which copy each frame into a ring of theirs. So a queue that may be captured runs
//! its bursts through C, callbacks included, and the EAL must let others in. It does not once a thread
//! was registered with it, so none is.

use hioload_dpdk_sys as sys;

use super::eal::Eal;
use super::explain::{self, DpdkError};

/// Options of the EAL with which no other process can see its memory or its socket.
const ALONE: [&str; 4] = ["--in-memory", "--no-shconf", "--no-huge", "--huge-unlink"];

/// Lets capture programs in; once is enough, and further calls change nothing.
pub(super) fn offer(eal: &Eal) -> Result<(), DpdkError> {
    if let Some(option) = eal.arguments().iter().find_map(|word| keeps_others_out(word)) {
        let what = format!("packets can't be captured with `{option}`");
        let help = "dpdk-dumpcap is a process of its own, which shares this one's hugepages and \
                    socket: leave the option out, and give a `--file-prefix` instead; or leave \
                    capture off";
        return Err(DpdkError::new(what, help));
    }
    if !eal.capture_is_new() {
        return Ok(());
    }
    explain::forget();
    // SAFETY: the EAL runs, and this is done once.
    match unsafe { sys::rte_pdump_init() } {
        0.. => Ok(()),
        _ => {
            // SAFETY: reads a number of this thread.
            let number = unsafe { sys::hio_errno() };
            let help = "leave capture off, or see what the EAL says with --log-level=lib.*:debug";
            Err(DpdkError::new("packet capture can't be offered", help).because(number))
        }
    }
}

/// Before the EAL ends, where it was [`offer`]ed.
pub(super) fn withdraw() {
    // SAFETY: the EAL still runs.
    unsafe { sys::rte_pdump_uninit() };
}

/// The option in this word that keeps other processes out, if it is one.
fn keeps_others_out(word: &str) -> Option<&str> {
    let (option, value) = word.split_once('=').map_or((word, ""), |(name, value)| (name, value));
    // Its other values leave the files where they are while the process lives.
    let leaves = option == "--huge-unlink" && matches!(value, "existing" | "never");
    (ALONE.contains(&option) && !leaves).then_some(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shuts_other_processes_out_is_known() {
        for word in ["--in-memory", "--no-shconf", "--no-huge", "--huge-unlink=always"] {
            assert!(
                keeps_others_out(word).is_some_and(|option| word.starts_with(option)),
                "{word}"
            );
        }
        for word in ["--huge-unlink=existing", "--huge-unlink=never", "--no-pci", "-m", "in-memory"]
        {
            assert_eq!(keeps_others_out(word), None, "{word}");
        }
    }
}
