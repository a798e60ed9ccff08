//! The backend suite over epoll: real sockets on loopback, a thread a worker.
#![cfg(target_os = "linux")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use hioload_core::pool::Pool;
use hioload_pipeline::suite::{Lab, PATIENCE, Stream};
use hioload_sockets::epoll::{Epoll, EpollConfig, Listener, Listeners};

struct OnEpoll;

struct Site {
    addr: SocketAddr,
    listeners: Mutex<Vec<Vec<Listener>>>,
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
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: the kernel reads `linger`, which lives, in its full length.
        let rc = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                std::ptr::from_ref(&linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        assert_eq!(rc, 0);
    }

    fn another(&self) -> Box<dyn Stream> {
        Box::new(Socket(self.0.try_clone().expect("a descriptor")))
    }
}

impl Lab for OnEpoll {
    type Backend = Epoll;
    type Site = Site;

    fn site(workers: usize) -> Site {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(&[any], workers, 1024).expect("loopback");
        let addr = listeners.local_addrs()[0];
        let listeners = listeners.into_workers();
        Site { addr, listeners: Mutex::new(listeners) }
    }

    fn backend(site: &Site, worker: usize, pool: &Pool) -> Epoll {
        let listeners = std::mem::take(&mut site.listeners.lock().expect("no panic")[worker]);
        let config = EpollConfig::new(listeners, pool.clone(), Arc::default());
        Epoll::new(config).expect("descriptors and memory")
    }

    fn connect(site: &Site) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect_timeout(&site.addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Box::new(Socket(stream)))
    }
}

hioload_pipeline::backend_suite!(OnEpoll);
