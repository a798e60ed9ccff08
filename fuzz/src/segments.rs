//! The input of the target `segments`: what happens to a stack.

use arbitrary::Arbitrary;

use crate::{Bytes, variant};

/// A stack, and what happens to it.
#[derive(Arbitrary, Clone, PartialEq, Debug)]
pub struct Run {
    pub vlan: bool,
    pub cookies: bool,
    pub freeze_ms: u8,
    pub ring_class: u8,
    pub steps: Vec<Step>,
}

/// What stands between the IP header and a segment.
#[derive(Arbitrary, Clone, Copy, PartialEq, Debug)]
pub enum Wrap {
    Nothing,
    /// IPv4: a fragment. IPv6: that extension header.
    Header(u8),
    /// A tag of this id.
    Tag(u8),
    /// Padding behind the packet.
    Padding(u8),
}

/// One thing that happens.
#[derive(Arbitrary, Clone, PartialEq, Debug)]
pub enum Step {
    /// Any bytes at all.
    Frame(Vec<u8>),
    /// A segment of one of a few connections. `seq` and `ack` are relative to what the stack last
    /// sent on it, so that they are mostly plausible.
    Segment {
        port: u8,
        flags: u8,
        seq: i16,
        ack: i16,
        window: u16,
        options: Vec<u8>,
        data: Vec<u8>,
        wrap: Wrap,
    },
    /// An ICMP error about what the stack last sent on a connection.
    Error { port: u8, kind: u8, code: u8, mtu: u16, seq: i16 },
    /// A frame that was sent before, by us or by the stack, with some bytes changed.
    Bent { which: u8, changes: Vec<(u16, u8)>, cut: u16, turned: bool },
    /// Time passes, in milliseconds.
    Wait(u16),
    /// The user closes, aborts, pauses, sends or asks.
    User { pick: u8, what: u8 },
    /// The stack opens a connection to one of our ports.
    Connect(u8),
}

impl Bytes for Run {
    fn put(&self, out: &mut Vec<u8>) {
        let Run { vlan, cookies, freeze_ms, ring_class, steps } = self;
        (*vlan, *cookies).put(out);
        (*freeze_ms, *ring_class).put(out);
        steps.put(out);
    }
}

impl Bytes for Wrap {
    fn put(&self, out: &mut Vec<u8>) {
        let (index, value) = match *self {
            Wrap::Nothing => (0, None),
            Wrap::Header(kind) => (1, Some(kind)),
            Wrap::Tag(id) => (2, Some(id)),
            Wrap::Padding(bytes) => (3, Some(bytes)),
        };
        variant(index, 4, out);
        out.extend(value);
    }
}

impl Bytes for Step {
    fn put(&self, out: &mut Vec<u8>) {
        let index = match self {
            Step::Frame(_) => 0,
            Step::Segment { .. } => 1,
            Step::Error { .. } => 2,
            Step::Bent { .. } => 3,
            Step::Wait(_) => 4,
            Step::User { .. } => 5,
            Step::Connect(_) => 6,
        };
        variant(index, 7, out);
        match self {
            Step::Frame(bytes) => bytes.put(out),
            Step::Segment { port, flags, seq, ack, window, options, data, wrap } => {
                (*port, *flags).put(out);
                (*seq, *ack).put(out);
                window.put(out);
                options.put(out);
                data.put(out);
                wrap.put(out);
            }
            Step::Error { port, kind, code, mtu, seq } => {
                [*port, *kind, *code].put(out);
                (*mtu, *seq).put(out);
            }
            Step::Bent { which, changes, cut, turned } => {
                which.put(out);
                changes.put(out);
                (*cut, *turned).put(out);
            }
            Step::Wait(ms) => ms.put(out),
            Step::User { pick, what } => [*pick, *what].put(out),
            Step::Connect(port) => port.put(out),
        }
    }
}
