//! What peers of the stack do. Sequence numbers are relative to what the stack last sent on that
//! port, so a handshake's last ACK is 1 beyond its SYN-ACK. Ports from 4 on are IPv6.

use hioload_fuzz::seed;
use hioload_fuzz::segments::{Run, Step, Wrap};

use crate::Seeds;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
/// MSS 1460, window scale 7, SACK permitted.
const OPTIONS: &[u8] = &[2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 1, 1];
/// What a user does: `what % 5`, and a flag or a length in the rest.
const CLOSE: u8 = 0;
const ABORT: u8 = 1;
const RESUME: u8 = 2;
const PAUSE: u8 = 12;
const SEND: u8 = 253;

fn segment(port: u8, flags: u8, seq: i16, ack: i16) -> Step {
    let (options, data) = (vec![], vec![]);
    Step::Segment { port, flags, seq, ack, window: 8000, options, data, wrap: Wrap::Nothing }
}

fn syn(port: u8) -> Step {
    with_options(segment(port, SYN, 0, 0), OPTIONS)
}

fn data(port: u8, seq: i16, ack: i16, bytes: &[u8]) -> Step {
    let mut step = segment(port, ACK | PSH, seq, ack);
    if let Step::Segment { data, .. } = &mut step {
        data.extend(bytes);
    }
    step
}

fn with_options(mut step: Step, bytes: &[u8]) -> Step {
    if let Step::Segment { options, .. } = &mut step {
        options.extend(bytes);
    }
    step
}

fn with_window(mut step: Step, value: u16) -> Step {
    if let Step::Segment { window, .. } = &mut step {
        *window = value;
    }
    step
}

fn wrapped(mut step: Step, value: Wrap) -> Step {
    if let Step::Segment { wrap, .. } = &mut step {
        *wrap = value;
    }
    step
}

fn open(port: u8, then: impl IntoIterator<Item = Step>) -> Vec<Step> {
    [syn(port), segment(port, ACK, 0, 1)].into_iter().chain(then).collect()
}

fn user(what: u8) -> Step {
    Step::User { pick: 0, what }
}

/// A whole life: the peer says five bytes, gets them back, and both finish.
fn life(port: u8) -> Vec<Step> {
    open(
        port,
        [
            data(port, 0, 1, b"hello"),
            segment(port, ACK | FIN, 0, 5),
            user(CLOSE),
            segment(port, ACK, 0, 1),
            Step::Wait(61_000),
        ],
    )
}

/// From the peer's station to ours.
fn frame(ethertype: u16, payload: &[u8]) -> Step {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    Step::Frame(frame)
}

fn arp_request() -> Step {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
    arp.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    frame(0x0806, &arp)
}

/// An ICMP echo request; its checksum is the complement of its one word that isn't 0.
fn ping() -> Step {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    frame(0x0800, &packet)
}

pub fn segments() -> Seeds {
    let run =
        |steps: Vec<Step>| Run { vlan: false, cookies: false, freeze_ms: 0, ring_class: 0, steps };
    let block = |from: u32, to: u32| -> Vec<u8> {
        [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat()
    };
    let lost = || with_options(segment(0, ACK, 0, -1460), &block(1461, 2784));
    let patient = |steps: Vec<Step>| Run { freeze_ms: 255, ring_class: 2, ..run(steps) };
    let runs = [
        ("life_v4", run(life(0))),
        ("life_v6", run(life(5))),
        ("life_vlan", Run { vlan: true, ..run([life(1), life(6)].concat()) }),
        ("cookies", Run { cookies: true, ..run([vec![syn(2)], life(0), life(5)].concat()) }),
        (
            "we_finish_first",
            run(open(0, [user(CLOSE), segment(0, ACK, 0, 1), segment(0, ACK | FIN, 0, 1), syn(0)])),
        ),
        (
            "both_finish",
            run(open(0, [user(CLOSE), segment(0, ACK | FIN, 0, 0), segment(0, ACK, 0, 1)])),
        ),
        (
            "never_heard",
            run(open(
                0,
                [data(0, 0, 1, b"a"), Step::Wait(1100), Step::Wait(2100), Step::Wait(61_000)],
            )),
        ),
        ("half_open", run(vec![syn(0), syn(5), Step::Wait(1100), Step::Wait(11_000)])),
        (
            "lost_and_sacked",
            patient(open(
                0,
                [user(SEND), lost(), lost(), lost(), lost(), segment(0, ACK, 0, 1460)],
            )),
        ),
        (
            "out_of_order",
            patient(open(
                5,
                [data(5, 5, 1, b"world"), data(5, 0, 1, b"hello"), data(5, -5, 5, b"again")],
            )),
        ),
        (
            "window_closed_and_open",
            patient(open(
                0,
                [
                    with_window(segment(0, ACK, 0, 1), 0),
                    user(SEND),
                    Step::Wait(1100),
                    segment(0, ACK, 0, 0),
                ],
            )),
        ),
        (
            "frozen_and_thawed",
            Run {
                freeze_ms: 1,
                ..run(open(
                    0,
                    [
                        Step::Wait(2000),
                        segment(0, ACK, -1, 1),
                        data(0, 0, 0, b"hello"),
                        segment(0, ACK, 0, 5),
                        Step::Wait(2000),
                        user(SEND),
                        segment(0, RST, 0, 0),
                    ],
                ))
            },
        ),
        (
            "blind",
            run(open(
                0,
                [
                    segment(0, RST, 100, 0),
                    syn(0),
                    segment(0, ACK, 0, 5000),
                    data(0, 0, -30_000, b"blind"),
                    segment(0, RST, 0, 0),
                ],
            )),
        ),
        (
            "no_connection",
            run(vec![segment(0, ACK, 0, 0), segment(5, FIN | ACK, 0, 0), segment(1, RST, 0, 0)]),
        ),
        (
            "connecting",
            run(vec![
                Step::Connect(2),
                with_options(segment(2, SYN | ACK, 0, 1), OPTIONS),
                user(SEND),
                segment(2, ACK, 0, 1460),
                Step::Connect(6),
                segment(6, RST | ACK, 0, 1),
            ]),
        ),
        (
            "both_connect",
            run(vec![Step::Connect(6), syn(6), segment(6, SYN | ACK, -1, 1), user(CLOSE)]),
        ),
        (
            "path_mtu",
            patient(
                [
                    open(
                        0,
                        [user(SEND), Step::Error { port: 0, kind: 3, code: 4, mtu: 1280, seq: 0 }],
                    ),
                    open(
                        5,
                        [
                            Step::User { pick: 1, what: SEND },
                            Step::Error { port: 5, kind: 2, code: 0, mtu: 1280, seq: 0 },
                            Step::Wait(60_000),
                        ],
                    ),
                ]
                .concat(),
            ),
        ),
        (
            "unreachable",
            run(vec![
                Step::Connect(3),
                Step::Error { port: 3, kind: 3, code: 3, mtu: 0, seq: 0 },
                Step::Connect(7),
                Step::Error { port: 7, kind: 1, code: 4, mtu: 0, seq: 0 },
            ]),
        ),
        (
            "wrapped",
            run(vec![
                wrapped(syn(0), Wrap::Header(0x20)),
                wrapped(syn(5), Wrap::Header(0)),
                wrapped(syn(5), Wrap::Header(2)),
                wrapped(syn(1), Wrap::Tag(7)),
                wrapped(syn(2), Wrap::Padding(6)),
            ]),
        ),
        ("below_tcp", run(vec![arp_request(), ping(), frame(0x86dd, &[0x60; 60])])),
        (
            "bent",
            run(open(
                0,
                [
                    data(0, 0, 1, b"hello"),
                    Step::Bent { which: 4, changes: vec![(47, 24)], cut: 0, turned: false },
                    Step::Bent { which: 2, changes: vec![(16, 9), (38, 1)], cut: 50, turned: true },
                ],
            )),
        ),
        (
            "paused",
            run(open(
                0,
                [
                    user(PAUSE),
                    data(0, 0, 1, &[b'x'; 100]),
                    data(0, 0, 0, &[b'y'; 100]),
                    user(RESUME),
                    user(ABORT),
                ],
            )),
        ),
    ];
    runs.iter().map(|(name, run)| (*name, seed(run))).collect()
}
