//! What works on a good wire.

mod common;

use common::*;
use std::net::SocketAddr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn server(v6: bool) -> SocketAddr {
    SocketAddr::new(ip(v6, 1), 80)
}

#[test]
fn bytes_come_back_in_order_over_both_families() {
    for v6 in [false, true] {
        for total in [0, 1, 100, 5_000, 200_000] {
            let mut pair = Pair::plain();
            pair.stacks[1].listen(80).unwrap();
            let (mut client, mut echo) = (Client::new(), Echo::default());
            client.open(&mut pair.stacks[0], server(v6), 9, total);
            let done = pair.run([&mut client, &mut echo], MINUTE, |_| false);
            assert!(!done);
            assert_eq!((client.finished, client.broken), (1, 0), "{total} bytes, v6 {v6}");
            assert_eq!(echo.bytes, total);
            assert_eq!(echo.closed, [hioload_stack::Gone::Finished]);
        }
    }
}
