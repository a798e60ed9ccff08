//! A wire that is not to be trusted, between two interfaces: it carries frames from one to the other
//! and harms them as a seed says. A tool for labs, where the machine has no `tc netem`.
//!
//!     bad_wire [--seed N] [--loss N] [--duplicate N] [--corrupt N] [--reorder N] [--delay-ms N] A B
//!
//! Rates are per mille of the frames, each way. Both interfaces must be there for nobody else: up,
//! without addresses, with ARP and IPv6 off. It runs until it is ended, says `ready` when it begins,
//! and tells once a second what it carried.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("packet sockets are Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use hioload_core::Now;
    use hioload_dataplane::{AfPacket, Attention, Link, Port};
    use hioload_stack::sim::{Faults, Harm};
    use hioload_stack::{BURST, LinkRx, LinkTx, TxMeta};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// A station that nobody has: the sockets hear frames for every other one.
    const NOBODY: [u8; 6] = [0x02, 0, 0, 0xba, 0xd0, 0];

    /// What was carried from one end to the other.
    #[derive(Clone, Copy, Default)]
    struct Carried {
        came: u64,
        left: u64,
        /// Frames that the other end's MTU forbids: corrupted, or not cut by the sender.
        too_long: u64,
    }

    pub fn main() -> Result<(), Box<dyn Error>> {
        let (seed, faults, [a, b]) = arguments(std::env::args().skip(1))?;
        let open = |name: &str| AfPacket::open(name, Some(NOBODY), Arc::default());
        let mut ends = [open(&a)?, open(&b)?];
        let mut harm = [Harm::new(seed, faults), Harm::new(!seed, faults)];
        let mut carried = [Carried::default(); 2];
        println!("ready: seed {seed}, {faults:?}");
        let began = Instant::now();
        let mut told = Duration::ZERO;
        loop {
            wait(&ends, &harm, Now::ZERO.after(began.elapsed()))?;
            let now = Now::ZERO.after(began.elapsed());
            for end in &mut ends {
                if let Some(fault) = end.take_fault() {
                    return Err(fault.into());
                }
            }
            for from in [0, 1] {
                let (rx, _) = ends[from].split();
                for index in 0..rx.receive(BURST) {
                    carried[from].came += 1;
                    harm[from].carry(now, rx.frame(index).bytes.to_vec());
                }
                let (_, tx) = ends[1 - from].split();
                while tx.room() > 0
                    && let Some(frame) = harm[from].arrived(now)
                {
                    match tx.next(frame.len()) {
                        Some(room) => {
                            room.copy_from_slice(&frame);
                            tx.commit(TxMeta::default());
                            carried[from].left += 1;
                        }
                        None => carried[from].too_long += 1,
                    }
                }
                tx.flush();
            }
            if began.elapsed() >= told + Duration::from_secs(1) {
                told = began.elapsed();
                for (from, to, Carried { came, left, too_long }) in
                    [(&a, &b, carried[0]), (&b, &a, carried[1])]
                {
                    println!("{from} to {to}: {came} came, {left} left, {too_long} too long");
                }
            }
        }
    }

    /// Until a frame comes from either end, or is due at one.
    fn wait(ends: &[AfPacket; 2], harm: &[Harm; 2], now: Now) -> Result<(), Box<dyn Error>> {
        let next = harm.iter().filter_map(Harm::next_arrival).min();
        let most = Duration::from_secs(1);
        let time = next.map_or(most, |at| at.since(now).min(most));
        let timeout =
            Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut fds = Vec::with_capacity(2);
        for end in ends {
            let Attention::Descriptor(fd) = end.attention() else {
                return Err("a packet socket has a descriptor".into());
            };
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn arguments(
        mut given: impl Iterator<Item = String>,
    ) -> Result<(u64, Faults, [String; 2]), Box<dyn Error>> {
        let (mut seed, mut faults, mut ends) = (1, Faults::default(), Vec::new());
        while let Some(argument) = given.next() {
            let mut number = || -> Result<u64, Box<dyn Error>> {
                Ok(given.next().ok_or("a number is missing")?.parse()?)
            };
            match argument.as_str() {
                "--seed" => seed = number()?,
                "--loss" => faults.loss = number()?,
                "--duplicate" => faults.duplicate = number()?,
                "--corrupt" => faults.corrupt = number()?,
                "--reorder" => faults.reorder = number()?,
                "--delay-ms" => faults.delay_us = number()? * 1000,
                _ => ends.push(argument),
            }
        }
        let ends = ends.try_into().map_err(|_| "two interfaces are wanted")?;
        Ok((seed, faults, ends))
    }
}
