//! What a handler is told about one session keeps its order, also where other sessions are at work
//! in the same turn.

mod common;

use common::*;
use hioload_pipeline::fake::Mode;
use hioload_pipeline::suite::wire;
use hioload_pipeline::{Batch, Closed, Context, Handler, Kind, Opening, SessionId, Verdict};

/// Who joins makes it send to the first one more than its limit takes, which ends that one.
#[derive(Default)]
struct Greeter {
    first: Option<SessionId>,
    told: Vec<&'static str>,
}

impl Handler for Greeter {
    type Session = ();

    fn on_open(&mut self, _: &mut Opening<'_>, _: &mut Context<'_, '_, ()>) -> Verdict<()> {
        Verdict::Accept(())
    }

    fn on_ready(&mut self, session: SessionId, context: &mut Context<'_, '_, ()>) {
        let first = *self.first.get_or_insert(session);
        if first != session {
            assert!(context.send(first, Kind::Binary, &[7; 15_000]).is_err());
        }
    }

    fn on_batch(&mut self, batch: &mut Batch<'_, '_, ()>) {
        while let Some((message, context)) = batch.next() {
            self.told.push("message");
            let _ = context.echo(message);
        }
    }

    fn on_close(&mut self, _: SessionId, (): (), _: Closed<'_>, _: &mut Context<'_, '_, ()>) {
        self.told.push("close");
    }
}

#[test]
fn no_message_comes_after_the_close_that_a_handshake_of_the_same_turn_brings() {
    let plan = Plan::new(Mode::Readiness).settings(|s| s.max_unsent_bytes = 20_000);
    // Which of the two the transport reports first is its own affair.
    let told = [false, true].map(|join_first| {
        let mut rig = plan.start(Greeter::default());
        let reader = rig.open();
        reader.peer.set_window(0);
        reader.frame(BINARY, &[1; 9000]);
        rig.run();
        let joiner = rig.connect();
        rig.run();
        if join_first {
            joiner.send(&wire::request("/", ""));
        }
        reader.frame(TEXT, b"hello");
        if !join_first {
            joiner.send(&wire::request("/", ""));
        }
        rig.run();
        std::mem::take(&mut rig.worker.handler().told)
    });
    assert!(told.iter().all(|told| told.last() == Some(&"close")), "{told:?}");
    assert!(told.contains(&vec!["message", "message", "close"]), "{told:?}");
}
