//! When things go wrong on this side: handlers that panic, memory that runs out.

mod common;

use std::panic;
use std::sync::Once;

use common::*;
use hioload_pipeline::fake::Mode;
use hioload_pipeline::middleware::Recover;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{
    Batch, Closed, ClosedBy, Context, Handler, Opening, Overflow, SessionId, Verdict,
};

/// Panics that are meant don't fill the log of the tests.
const MEANT: &str = "meant";

fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&MEANT) {
                usual(info);
            }
        }));
    });
}

/// Where a [`Fragile`] panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Open,
    Ready,
    Take,
    Look,
    Begin,
    Close,
    Timer,
    Writable,
}

/// Echoes, and panics at a message that says so, or where it was told to.
struct Fragile {
    at: At,
    closed: Vec<(u16, ClosedBy)>,
    once: bool,
}

impl Handler for Fragile {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, context: &mut Context<'_, '_, ()>) -> Verdict<()> {
        if self.at == At::Timer {
            context.set_timer(secs(1), 1);
        }
        if self.at == At::Open {
            panic::panic_any(MEANT);
        }
        Verdict::Accept(())
    }

    fn on_ready(&mut self, _: SessionId, _: &mut Context<'_, '_, ()>) {
        if self.at == At::Ready {
            panic::panic_any(MEANT);
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        if self.at == At::Begin && std::mem::take(&mut self.once) {
            panic::panic_any(MEANT);
        }
        if self.at == At::Look {
            for message in batch.iter_mut() {
                if message.payload() == b"boom" {
                    panic::panic_any(MEANT);
                }
            }
        }
        while let Some((message, context)) = batch.next() {
            if message.payload() == b"boom" {
                panic::panic_any(MEANT);
            }
            let _ = context.echo(message);
        }
    }

    fn on_writable(&mut self, _: SessionId, _: &mut Context<'_, '_, ()>) {
        if self.at == At::Writable {
            panic::panic_any(MEANT);
        }
    }

    fn on_close(&mut self, _: SessionId, (): (), closed: Closed<'_>, _: &mut Context<'_, '_, ()>) {
        self.closed.push((closed.code.get(), closed.by));
        if self.at == At::Close {
            panic::panic_any(MEANT);
        }
    }

    fn on_timer(&mut self, _: u64, _: &mut Context<'_, '_, ()>) {
        panic::panic_any(MEANT);
    }
}

fn fragile(mode: Mode, at: At) -> Rig<Recover<Fragile>> {
    quiet();
    Plan::new(mode).start(Recover::new(Fragile { at, closed: Vec::new(), once: true }))
}

#[test]
fn a_panic_closes_its_session_and_the_rest_of_the_batch_is_answered() {
    for mode in MODES {
        for at in [At::Take, At::Look] {
            let mut rig = fragile(mode, at);
            let mut clients: Vec<_> = (0..5).map(|_| rig.open()).collect();
            for (nth, client) in clients.iter().enumerate() {
                client.frame(TEXT, b"one");
                client.frame(TEXT, if nth == 2 { b"boom" } else { b"two" });
                client.frame(TEXT, b"three");
            }
            rig.run();
            for (nth, client) in clients.iter_mut().enumerate() {
                if nth == 2 {
                    let frames = client.frames();
                    let last = frames.last().expect("a close frame");
                    assert_eq!(last.close().map(|c| c.0), Some(1011), "{at:?}");
                    assert!(frames.len() <= 2, "nothing behind what panicked: {frames:?}");
                } else {
                    assert_eq!(client.messages(), [&b"one"[..], b"two", b"three"], "{at:?}");
                }
                client.leave();
            }
            assert_eq!(rig.counters().handler_panics_total, 1, "{at:?}");
            rig.assert_clean();
        }
    }
}

#[test]
fn many_panics_in_one_batch_are_each_their_own_session() {
    for mode in MODES {
        for at in [At::Take, At::Look] {
            let mut rig = fragile(mode, at);
            let mut clients: Vec<_> = (0..12).map(|_| rig.open()).collect();
            for (nth, client) in clients.iter().enumerate() {
                client.frame(TEXT, if nth % 2 == 0 { b"boom" } else { b"fine" });
            }
            rig.run();
            for (nth, client) in clients.iter_mut().enumerate() {
                match nth % 2 {
                    0 => assert_eq!(client.close_code(0), 1011),
                    _ => assert_eq!(client.messages(), [b"fine"]),
                }
                client.leave();
            }
            assert_eq!(rig.counters().handler_panics_total, 6);
            rig.assert_clean();
        }
    }
}

#[test]
fn a_panic_before_any_message_is_touched_costs_one_session() {
    for mode in MODES {
        let mut rig = fragile(mode, At::Begin);
        let mut clients: Vec<_> = (0..3).map(|_| rig.open()).collect();
        clients.iter().for_each(|client| client.frame(TEXT, b"x"));
        rig.run();
        let codes: Vec<_> =
            clients.iter_mut().map(|c| c.frames()[0].close().map(|c| c.0)).collect();
        assert_eq!(codes.iter().filter(|c| **c == Some(1011)).count(), 1, "{codes:?}");
        clients.iter().for_each(Client::leave);
        rig.assert_clean();
    }
}

#[test]
fn a_panic_in_any_other_call_is_caught() {
    for mode in MODES {
        let mut rig = fragile(mode, At::Open);
        let mut client = rig.connect();
        client.send(&wire::request("/", ""));
        rig.run();
        assert_eq!(client.status(), Some(500));
        client.peer.finish();
        rig.assert_clean();

        let mut rig = fragile(mode, At::Ready);
        let mut client = rig.open();
        assert_eq!(client.close_code(0), 1011);
        client.leave();
        rig.assert_clean();

        for at in [At::Close, At::Timer] {
            let mut rig = fragile(mode, at);
            let mut client = rig.open();
            rig.pass(secs(2));
            client.frame(TEXT, b"fine");
            rig.run();
            assert_eq!(client.messages(), [b"fine"]);
            client.leave();
            rig.run();
            assert_eq!(rig.counters().handler_panics_total, 1, "{at:?}");
            rig.assert_clean();
        }

        let mut rig = fragile(mode, At::Writable);
        let mut client = rig.open();
        client.peer.set_window(0);
        (0..20).for_each(|_| client.frame(BINARY, &[1; 1000]));
        rig.run();
        client.frame(BINARY, &[1; 1000]);
        rig.run();
        client.peer.set_window(usize::MAX);
        rig.run();
        assert_eq!(client.frames().last().and_then(|f| f.close().map(|c| c.0)), Some(1011));
        client.leave();
        rig.assert_clean();
    }
}

/// Eight pages of 2 MiB; every size of buffer that is in use takes one at least.
const SMALL: u64 = 16 << 20;

#[test]
fn messages_beyond_the_memory_close_their_sessions_with_1013_and_the_rest_goes_on() {
    for mode in MODES {
        let plan = Plan { budget_bytes: SMALL, ..Plan::new(mode) };
        let mut rig = plan.start(Probe::echo());
        let mut clients: Vec<_> = (0..40).map(|_| rig.open()).collect();
        let frame = wire::frame(BINARY, &wire::pattern(700_000, 1));
        for client in &clients {
            // All but its last byte: it waits in memory.
            client.send(&frame[..frame.len() - 1]);
            rig.run();
        }
        let codes: Vec<_> = clients.iter_mut().flat_map(|c| c.frames()).collect();
        assert!(!codes.is_empty(), "some had to go");
        assert!(codes.iter().all(|f| f.close().map(|c| c.0) == Some(1013)), "{codes:?}");
        assert!(rig.counters().refused_by_memory_total > 0);
        clients.iter().for_each(|client| client.peer.reset());
        rig.assert_clean();
        recovers(&mut rig);
    }
}

/// Once the memory is free again, newcomers are served.
fn recovers(rig: &mut Rig<Probe>) {
    rig.pass(secs(1));
    let mut fresh = rig.open();
    fresh.frame(TEXT, b"hello");
    rig.run();
    assert_eq!(fresh.messages(), [b"hello"]);
    fresh.leave();
    rig.assert_clean();
}

#[test]
fn output_that_nobody_reads_is_given_up_before_newcomers_are_closed() {
    for mode in MODES {
        let plan = Plan { budget_bytes: SMALL, ..Plan::new(mode) };
        let plan = plan.settings(|s| {
            s.max_unsent_bytes = 1 << 20;
            s.overflow = Overflow::DropNewest;
        });
        let mut others = Vec::new();
        let mut rig = plan.start(Probe::on_message(move |message, context| match message.len() {
            0 => others.push(message.session()),
            1..10 => context.echo(message).unwrap_or_default(),
            _ => others.iter().for_each(|id| {
                let _ = context.send_binary(*id, message.payload());
            }),
        }));
        let mut clients: Vec<_> = (0..30).map(|_| rig.open()).collect();
        for client in clients.iter().skip(1) {
            client.frame(BINARY, b"");
            client.peer.set_window(0);
        }
        for nth in 0..60 {
            clients[0].frame(BINARY, &wire::pattern(30_000, nth));
            rig.pass(std::time::Duration::from_millis(50));
        }
        assert!(rig.counters().refused_by_memory_total > 0, "{:?}", rig.counters());
        let first = &mut clients[0];
        first.frame(TEXT, b"and I?");
        rig.run();
        let got = first.frames();
        let told = |f: &wire::Frame| f.payload == b"and I?" || f.close().map(|c| c.0) == Some(1013);
        assert!(got.iter().all(told), "{got:?}");
        clients.iter().for_each(|client| client.peer.reset());
        rig.assert_clean();
        recovers(&mut rig);
    }
}

#[test]
fn newcomers_get_503_while_memory_is_short() {
    for mode in MODES {
        let plan = Plan { budget_bytes: SMALL, ..Plan::new(mode) };
        let mut rig = plan.start(Probe::echo());
        // Held outside of any session, so that nothing can be done about it.
        let hog = rig.node.share();
        let held: Vec<_> = std::iter::from_fn(|| hog.alloc(1 << 20)).collect();
        assert!(!held.is_empty());
        let mut client = rig.connect();
        client.send(&wire::request("/", ""));
        rig.run();
        let status = client.status();
        assert!(matches!(status, Some(503) | None), "{status:?}");
        client.peer.finish();
        rig.pass(secs(1));
        assert!(client.peer.is_closed());
        assert_eq!(rig.counters().sessions_total, 0);
        drop(held);
        hog.trim();
        recovers(&mut rig);
    }
}
