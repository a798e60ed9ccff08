//! From a port that is known to one that runs: the steps of ethdev in their order, each with what to
//! do where the device refuses.

use std::ffi::c_int;
use std::sync::Arc;

use hioload_dpdk_sys as sys;

use super::device::{DeviceConfig, Waiting};
use super::eal::{self, DeviceInfo};
use super::events;
use super::explain::{self, DpdkError};
use super::interrupt::Interrupt;
use super::mempool::{Mempool, mbufs_for};
use super::negotiate::{self, Keeper, Terms};
use super::queue::HELD_MAX;
use super::spread::{KEY_WORD, Rss, Spread};
use crate::link::IdlePolicy;

/// The driver whose interrupts aren't used.
const VIRTIO_USER: &str = "net_virtio_user";
/// Bytes of the longest key of a hash.
const KEY_MAX: usize = 64;
/// Entries of the largest redirection table that is looked at.
const TABLE_MAX: usize = 4096;

/// A port on its way to being started.
pub(super) struct Setup {
    pub(super) port: u16,
    pub(super) known: DeviceInfo,
    pub(super) device: sys::rte_eth_dev_info,
    pub(super) terms: Terms,
    pub(super) if_index: u32,
    pub(super) rx_descriptors: u16,
    pub(super) tx_descriptors: u16,
    pub(super) mbufs: u32,
    pub(super) spread: Spread,
    pub(super) promiscuous: bool,
    pub(super) mtu: u16,
    pub(super) mac: [u8; 6],
    pub(super) pools: Vec<Mempool>,
    pub(super) waiting: Waiting,
    pub(super) interrupts: Vec<Interrupt>,
}

impl Setup {
    pub(super) fn new(known: DeviceInfo, config: &DeviceConfig) -> Result<Setup, DpdkError> {
        let port = known.port;
        let gone =
            || DpdkError::new(format!("the device `{}` is gone", known.name), "bring it back");
        let device = eal::dev_info(port).ok_or_else(gone)?;
        let mtu = current_mtu(port);
        let terms = negotiate::agree(&known.name, &known.driver, &device, mtu, config)?;
        Ok(Setup {
            port,
            if_index: device.if_index,
            device,
            terms,
            rx_descriptors: config.rx_descriptors,
            tx_descriptors: config.tx_descriptors,
            mbufs: 0,
            spread: Spread::One,
            promiscuous: false,
            mtu,
            mac: config.mac.unwrap_or(known.mac),
            pools: Vec::new(),
            waiting: match config.idle {
                IdlePolicy::Busy => Waiting::Never,
                // See `configure`.
                _ if known.driver == VIRTIO_USER => {
                    Waiting::Sleeps("its driver's interrupts don't survive closing it".into())
                }
                // Its thread installs and closes them whenever its peer comes and goes.
                _ if known.driver == "net_vhost" => {
                    Waiting::Sleeps("its interrupts come and go with its peer".into())
                }
                IdlePolicy::Adaptive { .. } => Waiting::Interrupts,
            },
            known,
            interrupts: Vec::new(),
        })
    }

    pub(super) fn configure(&mut self, config: &DeviceConfig) -> Result<(), DpdkError> {
        let _control = eal::control();
        let Setup { port, terms, known, waiting, .. } = self;
        let mut key = [0u8; KEY_MAX];
        for word in key.as_chunks_mut().0 {
            *word = KEY_WORD;
        }
        // SAFETY: plain numbers and pointers, for which zero is a value.
        let mut conf: sys::rte_eth_conf = unsafe { std::mem::zeroed() };
        conf.rxmode.mtu = terms.mtu.into();
        conf.rxmode.offloads = terms.rx_offloads;
        conf.txmode.offloads = terms.tx_offloads;
        if terms.hashed != 0 {
            conf.rxmode.mq_mode = sys::HIO_MQ_RX_RSS as _;
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = terms.key_bytes.min(KEY_MAX as u8);
            conf.rx_adv_conf.rss_conf.rss_hf = terms.hashed;
        }
        // SAFETY: null, or flags that live as long as the device.
        let flags = unsafe { self.device.dev_flags.as_ref() }.copied().unwrap_or(0);
        // With either kind of interrupt this driver's handler may run on the EAL's thread while the
        // port is closed, and crash there: closing it doesn't wait for a handler that is at work.
        let tells = known.driver != VIRTIO_USER;
        let tells_link = tells && u64::from(flags) & sys::HIO_DEV_INTR_LSC != 0;
        conf.intr_conf.set_lsc(tells_link.into());
        conf.intr_conf.set_rmv(u32::from(u64::from(flags) & sys::HIO_DEV_INTR_RMV != 0));
        // SAFETY: the port exists and is ours to configure; the key outlives the call.
        let configure = |conf: &sys::rte_eth_conf| unsafe {
            sys::rte_eth_dev_configure(*port, terms.queues, terms.queues, conf)
        };
        conf.intr_conf.set_rxq((*waiting == Waiting::Interrupts).into());
        let mut result = configure(&conf);
        if result < 0 && *waiting == Waiting::Interrupts {
            conf.intr_conf.set_rxq(0);
            let error = DpdkError::new("refused", "other interrupts may be in their way");
            let error = error.because(result);
            *waiting = Waiting::Sleeps(format!("with receive interrupts: {error}"));
            explain::forget();
            result = configure(&conf);
        }
        let what = format!("`{}` refuses to be configured", known.name);
        check(result, &what, "try with one worker, without offloads, with another MTU")?;
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port is configured.
        let result =
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(*port, &raw mut rx, &raw mut tx) };
        check(result, "the numbers of descriptors make no sense", "leave them at 1024")?;
        (self.rx_descriptors, self.tx_descriptors) = (rx, tx);
        Ok(())
    }

    /// Makes the queues and the mempools that they receive into.
    pub(super) fn queues(&mut self, config: &DeviceConfig) -> Result<(), DpdkError> {
        let _control = eal::control();
        let Setup { port, ref terms, rx_descriptors, tx_descriptors, .. } = *self;
        let rx_takes = rx_descriptors.max(terms.rx_takes);
        let wanted = mbufs_for(rx_takes, tx_descriptors, HELD_MAX);
        self.mbufs = config.mbufs.unwrap_or(wanted);
        let node = self.known.node;
        // SOCKET_ID_ANY.
        let socket = node.unwrap_or(u32::MAX);
        let mut rx_conf = self.device.default_rxconf;
        rx_conf.offloads = terms.rx_offloads;
        let mut tx_conf = self.device.default_txconf;
        tx_conf.offloads = terms.tx_offloads;
        for queue in 0..terms.queues {
            // They outlive the port, which is closed before this is dropped. Queues that are made
            // again receive into what they had.
            if self.pools.len() <= usize::from(queue) {
                self.pools.push(Mempool::new(node, self.mbufs, terms.frame_bytes)?);
            }
            let pool = self.pools[usize::from(queue)].raw();
            let what = format!("queue {queue} of `{}` can't be made", self.known.name);
            let help = "use fewer workers or descriptors";
            // SAFETY: the port is configured with that queue; the pool outlives it.
            unsafe {
                let rx = &raw const rx_conf;
                let made =
                    sys::rte_eth_rx_queue_setup(port, queue, rx_descriptors, socket, rx, pool);
                check(made, &what, help)?;
                let tx = &raw const tx_conf;
                let made = sys::rte_eth_tx_queue_setup(port, queue, tx_descriptors, socket, tx);
                check(made, &what, help)?;
            }
        }
        Ok(())
    }

    /// Starts the port, without receive interrupts where it doesn't start with them.
    pub(super) fn start(&mut self, config: &DeviceConfig) -> Result<(), DpdkError> {
        match self.try_start(config) {
            Err(error) if self.waiting == Waiting::Interrupts => {
                self.waiting = Waiting::Sleeps(format!("with receive interrupts: {error}"));
                explain::forget();
                if self.configure(config).is_err() {
                    // It was something else.
                    return Err(error);
                }
                self.queues(config)?;
                self.try_start(config)?;
            }
            started => started?,
        }
        if self.waiting == Waiting::Interrupts {
            let _control = eal::control();
            match Interrupt::of(self.port, self.terms.queues, &self.known.driver) {
                Ok(interrupts) => self.interrupts = interrupts,
                Err(why) => self.waiting = Waiting::Sleeps(why),
            }
        }
        Ok(())
    }

    fn try_start(&mut self, config: &DeviceConfig) -> Result<(), DpdkError> {
        let _control = eal::control();
        let port = self.port;
        let name = self.known.name.clone();
        if let Some(mtu) = config.mtu {
            // SAFETY: the port is configured and not started.
            let result = unsafe { sys::rte_eth_dev_set_mtu(port, mtu) };
            if result < 0 && current_mtu(port) != mtu {
                let help = format!("leave it at {}", current_mtu(port));
                check(result, &format!("`{name}` refuses an MTU of {mtu}"), &help)?;
            }
        }
        // SAFETY: the port is configured and has its queues.
        let result = unsafe { sys::rte_eth_dev_start(port) };
        check(result, &format!("`{name}` doesn't start"), "its log says why")?;
        self.mtu = current_mtu(port);
        // SAFETY: the port is started. One that can't be anything else, or doesn't count, may refuse.
        unsafe {
            sys::rte_eth_promiscuous_disable(port);
            // What it counted for somebody before is nobody's business here.
            sys::rte_eth_stats_reset(port);
        }
        if config.mac.is_some_and(|mac| mac != self.known.mac) {
            self.set_mac()?;
        }
        self.hear(&config.groups);
        // SAFETY: the port is started.
        self.promiscuous = unsafe { sys::rte_eth_promiscuous_get(port) } == 1;
        self.spread = match (self.terms.queues, self.terms.keeper) {
            (1, _) => Spread::One,
            (_, Keeper::Peer) => Spread::Peer,
            (_, Keeper::Kernel) => Spread::Kernel,
            (_, Keeper::Device) => Spread::Rss(self.rss()),
        };
        Ok(())
    }

    fn set_mac(&mut self) -> Result<(), DpdkError> {
        let mut mac = sys::rte_ether_addr { addr_bytes: self.mac };
        // SAFETY: the port is started; it copies the address.
        let result = unsafe { sys::rte_eth_dev_default_mac_addr_set(self.port, &raw mut mac) };
        if result >= 0 || self.be_promiscuous() {
            return Ok(());
        }
        let what = format!("`{}` can't take another station address", self.known.name);
        check(result, &what, "leave its own")
    }

    fn be_promiscuous(&self) -> bool {
        // SAFETY: the port is started.
        unsafe { sys::rte_eth_promiscuous_enable(self.port) == 0 }
    }

    /// Hears groups: these, or all of them, or everything, by what the device can.
    fn hear(&mut self, groups: &[[u8; 6]]) {
        if groups.is_empty() {
            return;
        }
        let mut list: Vec<_> =
            groups.iter().map(|&addr_bytes| sys::rte_ether_addr { addr_bytes }).collect();
        // SAFETY: the port is started; it copies the list.
        let heard = unsafe {
            sys::rte_eth_dev_set_mc_addr_list(self.port, list.as_mut_ptr(), list.len() as u32) == 0
                || sys::rte_eth_allmulticast_enable(self.port) == 0
        };
        if !heard && !self.be_promiscuous() {
            self.terms.warnings.push(format!(
                "`{}` can't be told which groups to hear: if it filters them, nobody finds the \
                 IPv6 addresses",
                self.known.name
            ));
        }
    }

    /// What the device hashes, and where hashes lead.
    fn rss(&mut self) -> Rss {
        let table = self.table();
        if table.is_none() {
            self.terms.warnings.push(format!(
                "`{}` doesn't tell where its hash leads: connections that this side opens may not \
                 find back to their worker; clients want one worker there",
                self.known.name
            ));
        }
        Rss {
            ports_v4: self.terms.hashed & sys::HIO_RSS_TCP_V4 != 0,
            ports_v6: self.terms.hashed & sys::HIO_RSS_TCP_V6 != 0,
            table,
        }
    }

    /// The queue of each hash's low bits: set in turn, or as the device has it.
    fn table(&self) -> Option<Arc<[u16]>> {
        let size = usize::from(self.device.reta_size);
        if size == 0 || size > TABLE_MAX || !size.is_power_of_two() {
            return None;
        }
        let group = sys::HIO_RETA_GROUP as usize;
        let groups = size.div_ceil(group);
        // SAFETY: plain numbers.
        let zero = || unsafe { std::mem::zeroed::<sys::rte_eth_rss_reta_entry64>() };
        let mut table: Vec<_> = (0..groups).map(|_| zero()).collect();
        for (index, entries) in table.iter_mut().enumerate() {
            entries.mask = u64::MAX;
            for (slot, queue) in entries.reta.iter_mut().enumerate() {
                *queue = ((index * group + slot) % usize::from(self.terms.queues)) as u16;
            }
        }
        // SAFETY: the port is started; there are as many entries as it says that it has.
        let known = unsafe {
            sys::rte_eth_dev_rss_reta_update(self.port, table.as_mut_ptr(), size as u16) == 0
                || sys::rte_eth_dev_rss_reta_query(self.port, table.as_mut_ptr(), size as u16) == 0
        };
        known.then(|| table.iter().flat_map(|entries| entries.reta).take(size).collect())
    }
}

/// What a port's MTU is; Ethernet's where it doesn't say.
fn current_mtu(port: u16) -> u16 {
    let mut mtu = 0;
    // SAFETY: it fills in what it is given, and knows which ports there are.
    match unsafe { sys::rte_eth_dev_get_mtu(port, &raw mut mtu) } {
        0 if mtu > 0 => mtu,
        _ => 1500,
    }
}

pub(super) fn check(result: c_int, what: &str, help: &str) -> Result<(), DpdkError> {
    match result {
        0.. => Ok(()),
        _ => Err(DpdkError::new(what, help).because(result)),
    }
}

/// Closes a port that was configured, but could not be started; before its [`Setup`] is dropped.
pub(super) struct CloseOnDrop(pub(super) u16);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a port, whose number is free then.
pub(super) fn close(port: u16) {
    let _control = eal::control();
    events::silence(port);
    // SAFETY: no queue of it is used any more; what it says to a port that is gone doesn't matter.
    unsafe {
        sys::rte_eth_dev_stop(port);
        sys::rte_eth_dev_close(port);
    }
    events::released(port);
}
