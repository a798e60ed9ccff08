//! The pipeline's backend suite over TAP devices, with Linux's TCP as the client: a device a
//! worker, IPv4 and IPv6 in turn.
#![cfg(target_os = "linux")]

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Net, PORT};
use hioload_core::pool::Pool;
use hioload_dataplane::{Frames, Tap};
use hioload_pipeline::suite::{Lab, PATIENCE, Stream};

struct OnTap;

struct Site {
    nets: Vec<Net>,
    turn: AtomicUsize,
}

struct Socket(TcpStream);

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Socket {
    fn finish(&mut self) {
        // One that is gone has nothing to finish.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn reset(self: Box<Self>) {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(std::time::Duration::ZERO))
            .expect("an open socket");
    }

    fn another(&self) -> Box<dyn Stream> {
        Box::new(Socket(self.0.try_clone().expect("a descriptor")))
    }
}

impl Lab for OnTap {
    type Backend = Frames<Tap>;
    type Site = Site;

    fn site(workers: usize) -> Site {
        Site { nets: (0..workers).map(|_| Net::new()).collect(), turn: AtomicUsize::new(0) }
    }

    fn backend(site: &Site, worker: usize, _: &Pool) -> Frames<Tap> {
        Frames::new(site.nets[worker].stack()).expect("descriptors")
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        let turn = site.turn.fetch_add(1, Ordering::Relaxed);
        let (worker, v6) = (turn % site.nets.len(), turn / site.nets.len() % 2 == 1);
        let server = (site.nets[worker].ip(v6, 2), PORT).into();
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Box::new(Socket(stream)))
    }
}

hioload_pipeline::backend_suite!(OnTap);
