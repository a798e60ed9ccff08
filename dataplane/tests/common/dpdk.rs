//! What the lab's tests of DPDK share: one EAL for the process, and devices that are added to it for
//! each server, with Linux at their other end. `HIOLOAD_DPDK_HUGEPAGES=no` does without hugepages.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hioload_dataplane::dpdk::{
    Device, DeviceConfig, DpdkError, Eal, Queue, QueueCounters, RegisteredThread,
};
use hioload_dataplane::{Frames, IdlePolicy};

use super::{Net, run};

/// Sleeps early: there are more workers than cores here.
const IDLE: IdlePolicy = IdlePolicy::Adaptive { spins: 100, sleep: Duration::from_micros(500) };

/// The EAL of this process.
pub fn eal() -> &'static Eal {
    // An EAL that doesn't start can't be started again.
    static EAL: OnceLock<Result<Eal, DpdkError>> = OnceLock::new();
    let started = EAL.get_or_init(|| {
        super::assert_namespace();
        let mut args = vec![
            "--lcores",
            "0@0,1@0",
            "--iova-mode=va",
            "--no-pci",
            "--no-telemetry",
            "--no-shconf",
        ];
        match std::env::var("HIOLOAD_DPDK_HUGEPAGES").as_deref() {
            Ok("no") => args.extend(["--no-huge", "-m", "512"]),
            // virtio_user shows its memory to the other side by a few files, and new memory at once,
            // under a lock that vhost's thread wants for its answer. In one process nobody would
            // ever get on: so there is enough from the start.
            _ => args.extend(["--in-memory", "--single-file-segments", "-m", "192"]),
        }
        Eal::start(&args)
    });
    started.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// Drivers that reach Linux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    AfPacket,
    Tap,
    AfXdp,
}

/// A device, and the network on it.
pub struct Site {
    driver: Driver,
    net: Net,
    device: Option<Device>,
    queues: Mutex<Vec<Option<Queue>>>,
    counters: Vec<Arc<QueueCounters>>,
}

impl Site {
    /// A device with so many queue pairs.
    pub fn new(driver: Driver, queues: u16) -> Site {
        Site::with(driver, DeviceConfig { queues, ..Site::config() })
    }

    /// How devices are opened here.
    pub fn config() -> DeviceConfig {
        DeviceConfig { rx_descriptors: 256, tx_descriptors: 256, idle: IDLE, ..Default::default() }
    }

    pub fn with(driver: Driver, config: DeviceConfig) -> Site {
        let net = Net::new();
        let mut site =
            Site { driver, net, device: None, queues: Mutex::default(), counters: Vec::new() };
        let queues = config.queues;
        let interface = site.interface();
        if driver != Driver::Tap {
            site.make_pair(queues);
        }
        let options = match driver {
            Driver::AfPacket => format!("iface={interface},qpairs={queues}"),
            Driver::Tap => format!("iface={interface}"),
            Driver::AfXdp => format!("iface={interface},queue_count={queues}"),
        };
        let groups = DeviceConfig::groups_of([site.ip(true, 2)]);
        let info = eal()
            .attach(&format!("{},{options}", site.name()))
            .unwrap_or_else(|error| panic!("{error}"));
        let (device, links) = Device::open(eal(), &info.name, &DeviceConfig { groups, ..config })
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(device.report().queues, queues, "{}", device.report());
        if driver == Driver::Tap {
            site.net.admit_kernel(&interface);
        }
        site.device = Some(device);
        site.counters = links.iter().map(Queue::counters).collect();
        site.queues = Mutex::new(links.into_iter().map(Some).collect());
        site
    }

    fn name(&self) -> String {
        let driver = match self.driver {
            Driver::AfPacket => "net_af_packet",
            Driver::Tap => "net_tap",
            Driver::AfXdp => "net_af_xdp",
        };
        format!("{driver}{}", self.net.number)
    }

    /// The interface that the device is on.
    pub fn interface(&self) -> String {
        self.net.interface()
    }

    /// The interface at the other end; the same for TAP.
    pub fn peer(&self) -> String {
        match self.driver {
            Driver::Tap => self.interface(),
            _ => format!("peer{}", self.net.number),
        }
    }

    fn make_pair(&self, queues: u16) {
        let (ours, theirs, queues) = (self.interface(), self.peer(), queues.to_string());
        run(&[
            "ip",
            "link",
            "add",
            &ours,
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
            "type",
            "veth",
            "peer",
            "name",
            &theirs,
            "numtxqueues",
            &queues,
            "numrxqueues",
            &queues,
        ]);
        // The kernel keeps silent at our end, and does its own checksums and cutting at the other.
        run(&["sysctl", "-q", "-w", &format!("net.ipv6.conf.{ours}.disable_ipv6=1")]);
        run(&["ip", "link", "set", &ours, "arp", "off", "up"]);
        let done = Command::new("ethtool").args(["-K", &theirs, "tx", "off"]).output();
        assert!(done.expect("ethtool").status.success(), "ethtool -K {theirs} tx off");
        self.net.admit_kernel(&theirs);
    }

    pub fn ip(&self, v6: bool, host: u8) -> IpAddr {
        self.net.ip(v6, host)
    }

    /// Where the server is.
    pub fn server(&self, v6: bool) -> SocketAddr {
        self.net.server(v6)
    }

    pub fn device(&self) -> &Device {
        self.device.as_ref().expect("it is open")
    }

    pub fn counters(&self, queue: usize) -> &QueueCounters {
        &self.counters[queue]
    }

    /// The backend on a queue, for the thread that calls this.
    pub fn backend(&self, queue: usize) -> Frames<Queue> {
        register();
        let link = self.queues.lock().expect("no panic")[queue].take().expect("each once");
        self.net.backend(link)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Workers that panicked have dropped theirs.
        self.queues.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        if self.device.take().is_none() {
            return;
        }
        let gone = eal().detach(&self.name());
        if self.driver != Driver::Tap {
            super::succeeds(&["ip", "link", "delete", &self.interface()]);
        }
        if !std::thread::panicking() {
            gone.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// Makes this thread known to DPDK until it ends.
fn register() {
    thread_local! {
        static REGISTERED: RefCell<Option<RegisteredThread>> = const { RefCell::new(None) };
    }
    REGISTERED.with(|registered| {
        let mut registered = registered.borrow_mut();
        if registered.is_none() {
            *registered = Some(eal().register_thread().unwrap_or_else(|error| panic!("{error}")));
        }
    });
}
