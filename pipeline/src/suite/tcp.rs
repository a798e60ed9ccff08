//! The kernel's TCP as the suite's client, for every lab that has it at the other end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::{PATIENCE, Stream};

/// A connection of the kernel's.
struct Socket(TcpStream);

/// A client that has connected and said nothing.
///
/// # Errors
/// Those of the kernel; a server that doesn't listen refuses.
pub fn dial(server: SocketAddr) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(Box::new(Socket(stream)))
}

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
        set_socket_linger(&self.0, Some(Duration::ZERO)).expect("an open socket");
    }

    fn another(&self) -> Box<dyn Stream> {
        Box::new(Socket(self.0.try_clone().expect("a descriptor")))
    }
}
