//! Frames of any content, at any time, to a stack that listens and echoes: it never panics, never
//! says more than its bounds allow, and gives everything back.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::Arbitrary;
use hioload_core::Now;
use hioload_stack::{
    Address, Event, Link, LinkInfo, LinkRx, LinkTx, Offloads, RxChecksum, RxFrame, Stack,
    StackConfig, TxMeta,
};
use libfuzzer_sys::fuzz_target;

/// One thing that happens.
#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes at all.
    Frame(Vec<u8>),
    /// A segment of one of a few connections. `seq` and `ack` are relative to what the stack last
    /// sent on any of them, so that they are mostly plausible.
    Segment {
        port: u8,
        flags: u8,
        seq: i16,
        ack: i16,
        window: u16,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    /// Time passes, in milliseconds.
    Wait(u16),
    /// The user closes, aborts, pauses or sends.
    User { pick: u8, what: u8 },
}

struct Memory {
    rx: Rx,
    tx: Tx,
}

struct Rx(Vec<Vec<u8>>);

struct Tx {
    next: Vec<u8>,
    sent: Vec<Vec<u8>>,
}

impl Link for Memory {
    type Rx = Rx;
    type Tx = Tx;

    fn info(&self) -> LinkInfo {
        LinkInfo { mac: [2, 0, 0, 0, 0, 2], mtu: 1500, offloads: Offloads::default() }
    }

    fn split(&mut self) -> (&mut Rx, &mut Tx) {
        (&mut self.rx, &mut self.tx)
    }
}

impl LinkRx for Rx {
    fn receive(&mut self, _: usize) -> usize {
        self.0.len()
    }

    fn frame(&self, index: usize) -> RxFrame<'_> {
        // Checksums are what a fuzzer never finds.
        RxFrame { bytes: &self.0[index], checksum: RxChecksum::Good }
    }
}

impl LinkTx for Tx {
    fn room(&self) -> usize {
        256 - self.sent.len()
    }

    fn next(&mut self, len: usize) -> Option<&mut [u8]> {
        self.next.resize(len, 0);
        (self.sent.len() < 256).then_some(&mut self.next)
    }

    fn commit(&mut self, _: TxMeta) {
        self.sent.push(self.next.clone());
    }

    fn flush(&mut self) {}
}

const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];

fuzz_target!(|steps: Vec<Step>| {
    let link = Memory { rx: Rx(Vec::new()), tx: Tx { next: Vec::new(), sent: Vec::new() } };
    let config = StackConfig {
        addresses: vec![Address { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), prefix: 24 }],
        secret: Some([1; 32]),
        half_open_max: 2,
        connections_max: 8,
        freeze_after: Some(Duration::from_millis(50)),
        hugepages: false,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(link, &config, Now::ZERO).unwrap();
    stack.listen(80).unwrap();
    let mut now = Now::ZERO;
    let (mut seq, mut ack) = (0u32, 0u32);
    let mut ids = Vec::new();
    let mut arp = HEADER.to_vec();
    arp[13] = 6;
    arp.extend([
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
    ]);
    let mut frames = vec![arp];
    for step in steps.into_iter().take(200) {
        match step {
            Step::Frame(bytes) => frames.push(bytes),
            Step::Segment { port, flags, seq: s, ack: a, window, options, data } => {
                let options = &options[..options.len().min(40) & !3];
                let data = &data[..data.len().min(1400)];
                let mut frame = HEADER.to_vec();
                let total = (40 + options.len() + data.len()) as u16;
                frame.extend([0x45, 0]);
                frame.extend(total.to_be_bytes());
                frame.extend([
                    0,
                    0,
                    0,
                    0,
                    64,
                    6,
                    0,
                    0,
                    10,
                    0,
                    0,
                    1,
                    10,
                    0,
                    0,
                    2,
                    16,
                    port & 3,
                    0,
                    80,
                ]);
                frame.extend(seq.wrapping_add(s as u32).to_be_bytes());
                frame.extend(ack.wrapping_add(a as u32).to_be_bytes());
                frame.extend([(20 + options.len() as u8) << 2, flags]);
                frame.extend(window.to_be_bytes());
                frame.extend([0; 4]);
                frame.extend(options);
                frame.extend(data);
                frames.push(frame);
            }
            Step::Wait(ms) => now = now.after(Duration::from_millis(ms.into())),
            Step::User { pick, what } => {
                if let Some(&id) = ids.get(usize::from(pick) % ids.len().max(1)) {
                    match what % 5 {
                        0 => stack.close(id),
                        1 => stack.abort(id),
                        2 => stack.pause(id, what & 8 != 0),
                        3 => drop(stack.turn().1.send(id, &[what; 3000][..usize::from(what) * 11])),
                        _ => drop(stack.stats(id)),
                    }
                }
            }
        }
        stack.link_mut().rx.0 = std::mem::take(&mut frames);
        stack.poll(now);
        while let Some(event) = stack.next_event() {
            match event {
                Event::Opened(id) => ids.push(id),
                Event::Readable(id) => {
                    let (mut rx, mut tx) = stack.turn();
                    if let Some(window) = rx.take(id) {
                        tx.send(id, window);
                    }
                }
                Event::Closed(id, _) => ids.retain(|known| *known != id),
                Event::Writable(_) | Event::Eof(_) => {}
            }
        }
        stack.flush(now);
        for frame in stack.link_mut().tx.sent.drain(..) {
            if frame.len() >= 54 && frame[23] == 6 {
                ack = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
                seq = u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]);
            }
        }
        let counters = stack.counters().snapshot();
        assert!(counters.connections <= 8 && counters.half_open <= 2);
    }
    for id in ids {
        stack.abort(id);
    }
    stack.link_mut().rx.0.clear();
    for _ in 0..400 {
        now = now.after(Duration::from_secs(1));
        stack.poll(now);
        while stack.next_event().is_some() {}
        stack.flush(now);
        stack.link_mut().tx.sent.clear();
    }
    assert_eq!(stack.counters().snapshot().connections, 0);
});
