//! What goes wrong under a DPDK device: mbufs run out, the link goes down and up, the interface is
//! deleted, the EAL doesn't start. Each ends in service going on, or in a message.
#![cfg(target_os = "linux")]

mod common;

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::dpdk::{Driver, Site};
use common::{run, succeeds};
use hioload_core::Now;
use hioload_core::pool::Pool;
use hioload_core::wait::Wait;
use hioload_dataplane::Frames;
use hioload_dataplane::dpdk::{Device, DeviceConfig, Eal, Queue};
use hioload_pipeline::backend::{Backend, Events};
use hioload_pipeline::suite::wire::{BINARY, TEXT, pattern};
use hioload_pipeline::suite::{Lab, PATIENCE, Server, Stream, cases, tcp};
use hioload_pipeline::{Settings, on_message};
use hioload_stack::{Link, LinkRx, LinkTx, TxMeta};

/// A server on one queue.
struct OnAfPacket;

impl Lab for OnAfPacket {
    type Backend = Frames<Queue>;
    type Site = Site;

    fn site(_: usize) -> Site {
        Site::new(Driver::AfPacket, 1)
    }

    fn backend(site: &Site, worker: usize, _: &Pool) -> Frames<Queue> {
        site.backend(worker)
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        tcp::dial(site.server(false))
    }
}

/// One whose mempool is much too small.
struct Starved;

/// Looks, at its end, whether mbufs ran out, and whether all that were left came back.
struct StarvedSite(Site);

/// Fewer than a burst.
const FEW: u32 = 20;

impl Drop for StarvedSite {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // This driver doesn't count what it had no mbuf for; the kernel kept it.
            let counted = self.0.counters(0).snapshot();
            assert!(counted.tx_no_mbuf_total > 0, "mbufs never ran out: {counted:?}");
            assert_eq!(self.0.device().free_mbufs(0), FEW, "an mbuf was lost");
        }
    }
}

impl Lab for Starved {
    type Backend = Frames<Queue>;
    type Site = StarvedSite;

    fn site(_: usize) -> StarvedSite {
        let config = DeviceConfig { mbufs: Some(FEW), ..Site::config() };
        StarvedSite(Site::with(Driver::AfPacket, config))
    }

    fn backend(site: &StarvedSite, worker: usize, _: &Pool) -> Frames<Queue> {
        site.0.backend(worker)
    }

    fn connect(site: &StarvedSite) -> io::Result<Box<dyn Stream>> {
        tcp::dial(site.0.server(false))
    }
}

#[test]
fn an_empty_mempool_is_counted_and_costs_no_message() {
    cases::echoes_many_messages_sent_at_once::<Starved>();
    cases::echoes_messages_of_every_size::<Starved>();
}

#[test]
fn a_link_that_goes_down_and_up_costs_no_byte() {
    // The peer's interface, of which the site has the name.
    static INTERFACE: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    struct Watched;
    impl Lab for Watched {
        type Backend = Frames<Queue>;
        type Site = Site;

        fn site(workers: usize) -> Site {
            let site = OnAfPacket::site(workers);
            *INTERFACE.lock().expect("no panic") = site.peer();
            site
        }

        fn backend(site: &Site, worker: usize, pool: &Pool) -> Frames<Queue> {
            OnAfPacket::backend(site, worker, pool)
        }

        fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
            OnAfPacket::connect(site)
        }
    }
    let server = Server::<Watched>::start(1, &Settings::default(), |_| {
        on_message(|message, context| {
            let _ = context.echo(message);
        })
    });
    let interface = INTERFACE.lock().expect("no panic").clone();
    let done = AtomicBool::new(false);
    let mut client = server.open();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(200));
                run(&["ip", "link", "set", &interface, "down"]);
                std::thread::sleep(Duration::from_millis(300));
                run(&["ip", "link", "set", &interface, "up"]);
            }
            done.store(true, Ordering::Relaxed);
        });
        let began = Instant::now();
        let mut round = 0;
        while !done.load(Ordering::Relaxed) || round < 100 {
            let payload = pattern(10_000, round);
            client.frame(if round % 2 == 0 { TEXT } else { BINARY }, &payload);
            client.expect(if round % 2 == 0 { TEXT } else { BINARY }, &payload);
            round += 1;
            assert!(began.elapsed() < 3 * PATIENCE, "after {round} rounds");
        }
    });
    drop(client);
    server.finish();
}

/// Polls until the backend gives up, and returns why.
fn fault(mut backend: Frames<Queue>) -> String {
    let mut events = Events::with_limit(64);
    let began = Instant::now();
    loop {
        let now = Now::ZERO.after(began.elapsed());
        let wait = Wait::Until(Some(now.after(Duration::from_millis(20))));
        events.clear();
        match backend.poll(now, wait, &mut events) {
            Ok(()) => backend.flush(now),
            Err(error) => return error.to_string(),
        }
        assert!(began.elapsed() < PATIENCE, "it polls a device that is gone");
    }
}

fn ends_without_its_interface(driver: Driver) {
    let site = Site::new(driver, 1);
    let message = std::thread::scope(|scope| {
        let worker = scope.spawn(|| fault(site.backend(0)));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!worker.is_finished() && !site.device().is_removed());
        run(&["ip", "link", "delete", &site.interface()]);
        worker.join().expect("no panic")
    });
    assert!(message.contains("is gone"), "{message}");
    assert!(site.device().is_removed());
}

#[test]
fn a_deleted_interface_ends_an_af_packet_worker_with_a_message() {
    ends_without_its_interface(Driver::AfPacket);
}

#[test]
fn a_deleted_interface_ends_a_tap_worker_with_a_message() {
    ends_without_its_interface(Driver::Tap);
}

#[test]
fn a_deleted_interface_ends_an_af_xdp_worker_with_a_message() {
    ends_without_its_interface(Driver::AfXdp);
}

#[test]
fn a_device_is_opened_once_and_again_when_its_queues_are_gone() {
    let eal = common::dpdk::eal();
    let info = eal.attach("net_ring_once").expect("a ring");
    let first = Device::open(eal, &info.name, &DeviceConfig::default()).expect("it is free");
    let error = Device::open(eal, &info.name, &DeviceConfig::default()).expect_err("it is taken");
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(eal.detach(&info.name).is_err(), "it is open");
    drop(first);
    eal.detach(&info.name).expect("it is free");
    let error = eal.device(&info.name).expect_err("it is gone");
    assert!(error.to_string().contains("no device"), "{error}");
}

#[test]
fn a_ring_that_stays_full_costs_frames_and_holds_nobody_up() {
    let eal = common::dpdk::eal();
    let info = eal.attach("net_ring_full").expect("a ring");
    let (device, mut queues) =
        Device::open(eal, &info.name, &Site::config()).unwrap_or_else(|error| panic!("{error}"));
    let mut queue = queues.remove(0);
    let counters = queue.counters();
    let thread = eal.register_thread().expect("a number");
    let (rx, tx) = queue.split();
    // The ring comes back to this port, and nobody takes what is in it.
    let began = Instant::now();
    while counters.snapshot().tx_stuck_total == 0 {
        if tx.room() > 0
            && let Some(frame) = tx.next(60)
        {
            frame.fill(1);
            tx.commit(TxMeta::default());
        }
        tx.flush();
        assert!(began.elapsed() < PATIENCE, "it waits for room: {:?}", counters.snapshot());
    }
    assert!(tx.room() > 0);
    let lost = counters.snapshot().tx_stuck_total;
    while rx.receive(64) > 0 {}
    tx.next(100).expect("an mbuf").fill(2);
    tx.commit(TxMeta::default());
    tx.flush();
    assert_eq!(rx.receive(64), 1, "it goes on where the ring has room again");
    assert_eq!(rx.frame(0).bytes, [2; 100]);
    assert_eq!(counters.snapshot().tx_stuck_total, lost);
    assert_eq!(rx.receive(64), 0);
    drop((queue, device, thread));
    eal.detach("net_ring_full").expect("it is closed");
}

#[test]
fn a_link_without_a_kernel_carries_every_frame_both_ways() {
    if !common::dpdk::eal().has_hugepages() {
        // Plain memory can't be shown to the other side.
        return;
    }
    let eal = common::dpdk::eal();
    let path = std::env::temp_dir().join(format!("hioload-vhost-{}", std::process::id()));
    let path = path.to_str().expect("a plain name");
    let config = DeviceConfig { queues: 1, ..Site::config() };
    let mut ends = Vec::new();
    for device in [
        format!("net_vhost7,iface={path},queues=1"),
        format!("net_virtio_user7,path={path},queues=1"),
    ] {
        let info = eal.attach(&device).unwrap_or_else(|error| panic!("{error}"));
        let (device, mut queues) =
            Device::open(eal, &info.name, &config).unwrap_or_else(|error| panic!("{error}"));
        ends.push((device, queues.remove(0), 0usize));
    }
    let _thread = eal.register_thread().expect("a number");
    const FRAMES: usize = 1000;
    let (began, mut sent) = (Instant::now(), [0; 2]);
    while ends.iter().any(|(_, _, received)| *received < FRAMES) {
        for ((_, queue, received), sent) in ends.iter_mut().zip(&mut sent) {
            let (rx, tx) = queue.split();
            for _ in 0..16 {
                if *sent < FRAMES
                    && let Some(frame) = tx.next(100)
                {
                    frame.fill(*sent as u8);
                    tx.commit(TxMeta::default());
                    *sent += 1;
                }
            }
            tx.flush();
            for index in 0..rx.receive(64) {
                assert_eq!(rx.frame(index).bytes, [*received as u8; 100], "lost or out of order");
                *received += 1;
            }
        }
        assert!(began.elapsed() < PATIENCE, "{sent:?}");
    }
    assert!(ends.iter().all(|(device, ..)| device.link_state().up));
    drop(ends);
    eal.detach("net_virtio_user7").expect("it is closed");
    eal.detach("net_vhost7").expect("it is closed");
}

#[test]
fn a_driver_that_there_is_not_is_told() {
    let error = common::dpdk::eal().attach("net_nosuch0,iface=x").expect_err("no such driver");
    let text = error.to_string();
    assert!(text.contains("net_nosuch0") && text.contains("driver"), "{text}");
}

#[test]
fn work_on_an_lcore_is_done_there_and_its_panic_is_told() {
    let eal = common::dpdk::eal();
    let Some(&lcore) = eal.lcores().first() else { panic!("this test's EAL has a second lcore") };
    let here = eal.clone();
    let work = move || here.register_thread().expect("it has a number").lcore();
    assert_eq!(eal.launch(lcore, work).expect("it is idle").join().expect("no panic"), lcore.id);
    let panicked = eal.launch(lcore, || panic!("on purpose")).expect("it is idle again").join();
    assert!(panicked.is_err());
    assert_eq!(eal.launch(lcore, || 7).expect("it lives").join().expect("no panic"), 7);
}

/// In a process of its own: starts the EAL as the parent says, tells how that went, and waits where
/// it is to be killed.
#[test]
fn child() {
    let Ok(args) = std::env::var("HIOLOAD_EAL") else { return };
    let affinity = rustix::thread::sched_getaffinity(None).expect("a process has one");
    let started = Eal::start(&args.split_whitespace().collect::<Vec<_>>());
    match &started {
        Ok(eal) => println!("started with {} hugepages", eal.has_hugepages()),
        Err(error) => println!("refused: {error}"),
    }
    let now = rustix::thread::sched_getaffinity(None).expect("a process has one");
    assert!(affinity == now, "the main thread stayed pinned");
    if std::env::var_os("HIOLOAD_WAIT").is_some() {
        std::thread::sleep(PATIENCE);
    }
}

fn in_child(args: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test's program"));
    command.args(["--exact", "child", "--nocapture"]).env("HIOLOAD_EAL", args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn outcome(args: &str) -> String {
    let output = in_child(args).output().expect("a child");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const ALONE: &str = "--no-pci --no-telemetry --no-shconf --iova-mode=va";

#[test]
fn what_the_eal_refuses_is_told_with_its_remedy() {
    for (args, parts) in [
        ("-l 0 --nonsense", ["--nonsense", "DPDK's own"]),
        ("-l 999", ["999", "`-l` takes cores"]),
        ("-l 0 --no-huge -m 64 --vdev=net_nosuch0", ["net_nosuch0", "librte-net-"]),
        ("-l 0 --no-huge -m 64 stray", ["`stray`", "not an option"]),
        ("-l 0 --in-memory -m 100000000", ["hugepages", "sysctl vm.nr_hugepages"]),
    ] {
        let told = outcome(&format!("{ALONE} {args}"));
        let refused = told.lines().find(|line| line.starts_with("refused: ")).unwrap_or(&told);
        assert!(parts.iter().all(|part| refused.contains(part)), "{args}: {refused}");
    }
}

#[test]
fn without_hugepages_it_starts_in_plain_memory() {
    let told = outcome(&format!("{ALONE} -l 0 --no-huge -m 64"));
    assert!(told.contains("started with false hugepages"), "{told}");
}

#[test]
fn a_killed_process_leaves_nothing_that_stops_the_next() {
    if std::env::var("HIOLOAD_DPDK_HUGEPAGES").as_deref() == Ok("no") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("hioload-huge-{}", std::process::id()));
    let huge = folder.to_str().expect("a plain name");
    std::fs::create_dir_all(&folder).expect("a folder");
    run(&["mount", "-t", "hugetlbfs", "none", huge]);
    let args = format!("--no-pci --no-telemetry -l 0 -m 16 --huge-dir={huge} --file-prefix=killed");
    let mut first = in_child(&args).env("HIOLOAD_WAIT", "1").spawn().expect("a child");
    let files = || std::fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
    let began = Instant::now();
    while files() < 8 && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let rival = outcome(&args);
    first.kill().expect("it runs");
    let left = first.wait_with_output().map(|_| files()).expect("it ended");
    let told = outcome(&args);
    succeeds(&["umount", huge]);
    let _ = std::fs::remove_dir(&folder);
    assert!(left >= 8, "16 MiB are 8 pages: {left} files");
    assert!(rival.contains("--file-prefix"), "{rival}");
    assert!(told.contains("started with true hugepages"), "{told}");
}
