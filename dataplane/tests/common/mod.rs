//! What the lab's tests share: TAP devices in a network namespace of their own, and a wire that
//! harms frames from a seed.
#![allow(dead_code)]

pub mod attacker;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod turns;
pub mod wire;

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use hioload_core::Now;
use hioload_dataplane::{Address, Frames, Port, Stack, StackConfig, Tap};

/// The port of every server.
pub const PORT: u16 = 9001;

/// A device's network: the kernel is host 1, the stack is host 2.
#[derive(Clone)]
pub struct Net {
    number: u16,
}

impl Net {
    /// A network that no other test of this process has.
    pub fn new() -> Net {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        assert_namespace();
        Net { number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    /// The interface that the stack's link is on.
    pub fn interface(&self) -> String {
        format!("lab{}", self.number)
    }

    /// The address of a host, 1 or 2.
    pub fn ip(&self, v6: bool, host: u8) -> IpAddr {
        match v6 {
            true => format!("fd00:{:x}::{host}", self.number + 1).parse().expect("an address"),
            false => {
                let [high, low] = self.number.to_be_bytes();
                format!("10.{}.{low}.{host}", 100 + high).parse().expect("an address")
            }
        }
    }

    /// Where the server is.
    pub fn server(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(self.ip(v6, 2), PORT)
    }

    /// Makes a TAP device and gives the kernel its addresses. The device ends with the link.
    pub fn tap(&self) -> Tap {
        let name = self.interface();
        let tap = Tap::open(&name, None, Arc::default()).expect("root and /dev/net/tun");
        self.admit_kernel(&name);
        tap
    }

    /// Gives the kernel its addresses on an interface.
    pub fn admit_kernel(&self, interface: &str) {
        let (v4, v6) = (format!("{}/24", self.ip(false, 1)), format!("{}/64", self.ip(true, 1)));
        run(&["ip", "address", "add", &v4, "dev", interface]);
        run(&["ip", "address", "add", &v6, "dev", interface, "nodad"]);
        run(&["ip", "link", "set", interface, "up"]);
    }

    pub fn config(&self) -> StackConfig {
        StackConfig {
            addresses: vec![
                Address { ip: self.ip(false, 2), prefix: 24 },
                Address { ip: self.ip(true, 2), prefix: 64 },
            ],
            connections_max: 1 << 14,
            ring_class: 1,
            hugepages: false,
            ..StackConfig::default()
        }
    }

    /// The backend on a link of this network. It listens.
    pub fn backend<L: Port>(&self, link: L) -> Frames<L> {
        let mut stack = Stack::new(link, &self.config(), Now::ZERO).expect("a good config");
        stack.listen(PORT).expect("the first listener");
        Frames::new(stack).expect("descriptors")
    }
}

/// These tests make interfaces: only ever in a namespace made for them.
pub fn assert_namespace() {
    assert_eq!(
        std::env::var("HIOLOAD_LAB").as_deref(),
        Ok("namespace"),
        "these tests need a network namespace of their own: ci/stack-lab.sh makes it"
    );
}

/// Runs a command that has to succeed.
pub fn run(command: &[&str]) {
    assert!(succeeds(command), "{command:?} failed");
}

/// Runs a command.
pub fn succeeds(command: &[&str]) -> bool {
    let output = Command::new(command[0]).args(&command[1..]).output().expect(command[0]);
    if !output.status.success() {
        eprintln!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}
