//! Runs one scenario a given number of times, for callgrind: `ci/instructions.sh` runs each twice
//! with different counts, and the difference is what a message costs, without start and end.
//!
//! `instructions list` names the scenarios with the messages of one step; `instructions NAME STEPS`
//! runs one.

#![forbid(unsafe_code)]

use std::hint::black_box;

use hioload_benches::{EpollRig, Rig, client_frames, echo};
use hioload_ws_proto::{Decoder, Item, Limits, Role, Rules, mask};

/// A scenario: its name, how many messages a step handles, and what a number of steps does.
struct Scenario {
    name: &'static str,
    messages: usize,
    run: fn(steps: usize, messages: usize),
}

macro_rules! scenarios {
    ($($name:literal, $messages:literal => $run:expr;)*) => {
        &[$(Scenario { name: $name, messages: $messages, run: $run }),*]
    };
}

const SCENARIOS: &[Scenario] = scenarios! {
    "unmask_64KiB", 1 => |steps, _| unmask(steps, 64 * 1024);
    "parse_16B", 32 => |steps, n| parse(steps, n, 16);
    "parse_125B", 32 => |steps, n| parse(steps, n, 125);
    "parse_1KiB", 8 => |steps, n| parse(steps, n, 1024);
    "parse_16KiB", 1 => |steps, n| parse(steps, n, 16 * 1024);
    "parse_64KiB", 1 => |steps, n| parse(steps, n, 64 * 1024);
    "echo_20B_1_session_depth_1", 1 => |steps, n| echoes(steps, 1, n, 20);
    "echo_20B_1_session_depth_16", 16 => |steps, n| echoes(steps, 1, n, 20);
    "echo_20B_50_sessions_depth_1", 50 => |steps, n| echoes(steps, n, 1, 20);
    "echo_1KiB_50_sessions_depth_1", 50 => |steps, n| echoes(steps, n, 1, 1024);
    "echo_16KiB_1_session_depth_1", 1 => |steps, n| echoes(steps, 1, n, 16 * 1024);
    "epoll_20B_1_session_depth_1", 1 => |steps, n| epoll_echoes(steps, 1, n, 20);
    "epoll_20B_1_session_depth_16", 16 => |steps, n| epoll_echoes(steps, 1, n, 20);
    "epoll_20B_50_sessions_depth_1", 50 => |steps, n| epoll_echoes(steps, n, 1, 20);
    "epoll_1KiB_1_session_depth_16", 16 => |steps, n| epoll_echoes(steps, 1, n, 1024);
    "epoll_16KiB_1_session_depth_2", 2 => |steps, n| epoll_echoes(steps, 1, n, 16 * 1024);
    // Half as much again as a turn receives.
    "epoll_16KiB_16_sessions_depth_3", 48 => |steps, n| epoll_echoes(steps, 16, n / 16, 16 * 1024);
};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => {
            for scenario in SCENARIOS {
                println!("{} {}", scenario.name, scenario.messages);
            }
        }
        [name, steps] => {
            let scenario = SCENARIOS.iter().find(|s| s.name == name);
            let (Some(scenario), Ok(steps)) = (scenario, steps.parse()) else {
                eprintln!("no scenario {name}, or {steps} is no number; see `instructions list`");
                std::process::exit(2);
            };
            (scenario.run)(steps, scenario.messages);
        }
        _ => {
            eprintln!("usage: instructions list | instructions NAME STEPS");
            std::process::exit(2);
        }
    }
}

fn unmask(steps: usize, bytes: usize) {
    let mut buf = vec![7; bytes];
    for step in 0..steps {
        mask::apply((step as u32 | 1).to_be_bytes(), 0, black_box(&mut buf));
    }
}

fn parse(steps: usize, messages: usize, payload_bytes: usize) {
    let frames = client_frames(payload_bytes, messages);
    let rules = Rules::new(Role::Server, Limits::default());
    let mut window = frames.clone();
    for _ in 0..steps {
        // Unmasking twice with one key gives the masked bytes again, so nothing is copied.
        let mut rest = &mut window[..];
        let mut decoder = Decoder::new();
        let mut whole = 0;
        while let Ok(Some(Item::Message { room, .. })) = decoder.next(&rules, &mut rest) {
            black_box(room);
            whole += 1;
        }
        assert_eq!(whole, messages, "every frame is a whole message");
    }
}

fn echoes(steps: usize, sessions: usize, depth: usize, payload_bytes: usize) {
    let mut rig = Rig::new(echo(), sessions);
    let frames = client_frames(payload_bytes, depth);
    // A reply's header lacks the four bytes of the mask.
    let expected = frames.len() - 4 * depth;
    for _ in 0..steps {
        rig.round(&frames, |reply| assert_eq!(reply.len(), expected));
    }
}

/// The client's reads and writes, two system calls a session and step, are in the figures.
fn epoll_echoes(steps: usize, sessions: usize, depth: usize, payload_bytes: usize) {
    let mut rig = EpollRig::new(echo(), sessions);
    let frames = client_frames(payload_bytes, depth);
    for _ in 0..steps {
        rig.round(&frames, frames.len() - 4 * depth);
    }
    assert_eq!(rig.counters().messages_assembled_total.get(), 0, "no message is cut");
}
