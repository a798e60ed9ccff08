//! The backend suite on the in-memory fake, in each of its modes, with a thread a worker.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hioload_core::pool::Pool;
use hioload_pipeline::fake::{End, Fake, Mode, Net, Peer};
use hioload_pipeline::suite::{Lab, PATIENCE, Stream};

/// What a socket's buffers hold, in bytes.
const SOCKET_BYTES: usize = 128 * 1024;

struct Site {
    nets: Vec<Net>,
    next: AtomicUsize,
}

struct FakeStream(Arc<Peer>);

impl Read for FakeStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf, PATIENCE)
    }
}

impl Write for FakeStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf, SOCKET_BYTES, PATIENCE)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for FakeStream {
    fn finish(&mut self) {
        self.0.finish();
    }

    fn reset(self: Box<Self>) {
        self.0.reset();
    }

    fn another(&self) -> Box<dyn Stream> {
        Box::new(FakeStream(self.0.clone()))
    }
}

fn site(workers: usize) -> Site {
    Site { nets: (0..workers).map(|_| Net::new()).collect(), next: AtomicUsize::new(0) }
}

fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
    let net = site.next.fetch_add(1, Ordering::Relaxed) % site.nets.len();
    let peer = site.nets[net].connect();
    if peer.end() == End::Reset {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    peer.set_window(SOCKET_BYTES);
    Ok(Box::new(FakeStream(Arc::new(peer))))
}

macro_rules! on_fake {
    ($name:ident, $mode:expr) => {
        mod $name {
            struct OnFake;

            impl super::Lab for OnFake {
                type Backend = super::Fake;
                type Site = super::Site;

                fn site(workers: usize) -> super::Site {
                    super::site(workers)
                }

                fn backend(site: &super::Site, worker: usize, _: &super::Pool) -> super::Fake {
                    super::Fake::on(site.nets[worker].clone(), $mode).blocking()
                }

                fn connect(site: &super::Site) -> std::io::Result<Box<dyn super::Stream>> {
                    super::connect(site)
                }
            }

            hioload_pipeline::backend_suite!(OnFake);
        }
    };
}

on_fake!(readiness, super::Mode::Readiness);
on_fake!(completion, super::Mode::Completion { buffers: 64, hold_turns: 2 });
on_fake!(ring, super::Mode::Ring { rx_bytes: 4096, tx_bytes: 4096 });
