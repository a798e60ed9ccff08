//! Initial sequence numbers (RFC 6528).

use crate::peer::*;

fn isn(port: u16, at: Duration, secret: u8) -> u32 {
    let config = StackConfig { secret: Some([secret; 32]), ..config(1) };
    let mut script = Script::with(false, config);
    script.wait(at);
    script.port = port;
    script.raw(1, 0, SYN, &[], &[]);
    script.one().seq
}

#[test]
fn isns_move_by_the_clock_and_differ_by_tuple_and_secret() {
    let first = isn(5000, ms(100), 1);
    let later = isn(5000, ms(1100), 1);
    assert_eq!(later.wrapping_sub(first), 250_000, "4 µs each");
    assert!(isn(5001, ms(100), 1).abs_diff(first) > 1000);
    assert!(isn(5000, ms(100), 2).abs_diff(first) > 1000);
}
