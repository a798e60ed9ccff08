//! What a frame costs between the stack and a DPDK driver: bursts of 32 go out on a ring that comes
//! back to the same port, are looked at, and are freed. The driver's own part is a ring's, the
//! smallest there is. Prints cycles and nanoseconds a frame, both ways together.
//!
//! `cargo run --release -p hioload-dataplane --features dpdk --example queue_cost -- -l 1
//! --in-memory -m 64 --no-pci --vdev=net_ring0`

use std::error::Error;
use std::time::Instant;

use hioload_dataplane::cycles;
use hioload_dataplane::dpdk::{Device, DeviceConfig, Eal};
use hioload_stack::{Link, LinkRx, LinkTx, TxMeta};

const BURST: usize = 32;
const ROUNDS: u32 = 200_000;
const FRAME_BYTES: usize = 118;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let eal = Eal::start(&args)?;
    let info = eal.devices().into_iter().next().ok_or("give it a --vdev=net_ring0")?;
    let (device, mut queues) = Device::open(&eal, &info.name, &DeviceConfig::default())?;
    println!("{}", device.report());
    let queue = &mut queues[0];
    let mut best = f64::MAX;
    for _ in 0..5 {
        let (began, start) = (Instant::now(), cycles::now());
        let mut received = 0;
        for _ in 0..ROUNDS {
            let (rx, tx) = queue.split();
            for _ in 0..BURST {
                if let Some(frame) = tx.next(FRAME_BYTES) {
                    frame[..14].fill(2);
                    tx.commit(TxMeta::default());
                }
            }
            tx.flush();
            let count = rx.receive(BURST);
            received +=
                (0..count).map(|index| usize::from(rx.frame(index).bytes[0])).sum::<usize>();
        }
        let frames = received as f64 / 2.0;
        let each = (cycles::now() - start) as f64 / frames;
        best = best.min(each);
        let nanos = began.elapsed().as_nanos() as f64 / frames;
        println!("{each:.1} cycles, {nanos:.1} ns a frame out and in ({frames} frames)");
    }
    println!("best of 5: {best:.1} cycles a frame");
    Ok(())
}
