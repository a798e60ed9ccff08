//! The system calls, one thin function each: arguments as Rust types, errors as `io::Error`.
//! It knows nothing of connections.
//!
//! Descriptors are plain numbers here. A wrong one gives `EBADF`, never undefined behaviour; who
//! owns which is the business of the connection table and of `OwnedFd`.

use std::io::{self, IoSlice};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// One event as the kernel reports it.
pub(super) type RawEvent = libc::epoll_event;

pub(super) const IN: u32 = libc::EPOLLIN as u32;
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;
pub(super) const ERR: u32 = libc::EPOLLERR as u32;
pub(super) const HUP: u32 = libc::EPOLLHUP as u32;
pub(super) const EDGE: u32 = libc::EPOLLET as u32;

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn check_len(rc: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes a descriptor that the caller owns and forgets.
pub(super) fn close(fd: RawFd) {
    // SAFETY: closing touches no memory. The caller owned the descriptor, which it replaced before.
    // Its error says nothing that can be acted on: the descriptor is gone either way.
    unsafe { libc::close(fd) };
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes flags only.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

fn epoll_ctl(ep: RawFd, op: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` lives through the call, which copies it.
    check(unsafe { libc::epoll_ctl(ep, op, fd, &mut event) }).map(drop)
}

pub(super) fn watch(ep: RawFd, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, events, data)
}

pub(super) fn rewatch(ep: RawFd, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    epoll_ctl(ep, libc::EPOLL_CTL_MOD, fd, events, data)
}

/// Fills the front of `events` and says how many there are.
pub(super) fn epoll_wait(ep: RawFd, events: &mut [RawEvent], timeout_ms: i32) -> io::Result<usize> {
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `room` events to the slice.
    let rc = unsafe { libc::epoll_wait(ep, events.as_mut_ptr(), room, timeout_ms) };
    check(rc).map(|count| count as usize)
}

pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// A timer of the monotonic clock that isn't set.
pub(super) fn timerfd() -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })
}

/// Sets a timer to go off once, `after` from now; what was set before is forgotten.
pub(super) fn timerfd_set(fd: RawFd, after: Duration) -> io::Result<()> {
    // SAFETY: all zeros is a valid value of this plain struct: no interval, and not set.
    let mut when: libc::itimerspec = unsafe { mem::zeroed() };
    when.it_value.tv_sec = libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX);
    when.it_value.tv_nsec = libc::c_long::from(after.subsec_nanos());
    // SAFETY: the kernel reads `when`, which lives, and writes nothing.
    check(unsafe { libc::timerfd_settime(fd, 0, &when, ptr::null_mut()) }).map(drop)
}

pub(super) fn eventfd_add(fd: RawFd) -> io::Result<()> {
    let one = 1u64;
    // SAFETY: reads the eight bytes of `one`.
    check_len(unsafe { libc::write(fd, ptr::from_ref(&one).cast(), mem::size_of::<u64>()) })
        .map(drop)
}

pub(super) fn eventfd_reset(fd: RawFd) -> io::Result<()> {
    let mut count = 0u64;
    // SAFETY: writes at most the eight bytes of `count`.
    check_len(unsafe { libc::read(fd, ptr::from_mut(&mut count).cast(), mem::size_of::<u64>()) })
        .map(drop)
}

/// A TCP socket that doesn't block and isn't inherited.
pub(super) fn tcp_socket(to: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::socket(family, kind, 0) })
}

fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which lives.
    check(unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), len) }).map(drop)
}

pub(super) fn set_reuse_address(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)
}

pub(super) fn set_reuse_port(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)
}

pub(super) fn set_v6_only(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)
}

pub(super) fn set_no_delay(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32)
}

/// Makes the coming `close` send RST and forget what is unsent.
pub(super) fn set_reset_on_close(fd: RawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// The error that waits on a socket, taken off it.
pub(super) fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    let mut error: libc::c_int = 0;
    let mut len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `error`; both live.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            ptr::from_mut(&mut error).cast(),
            &mut len,
        )
    })?;
    Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
}

/// A socket address in the kernel's form.
#[repr(C)]
union RawAddr {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    any: libc::sockaddr_storage,
}

fn to_raw(addr: &SocketAddr) -> (RawAddr, libc::socklen_t) {
    // SAFETY: all zeros is a valid value of these plain structs, and fills what is not set below.
    let mut raw: RawAddr = unsafe { mem::zeroed() };
    match addr {
        SocketAddr::V4(addr) => {
            raw.v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                sin_zero: [0; 8],
            };
            (raw, mem::size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(addr) => {
            raw.v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
            (raw, mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

fn from_raw(raw: &RawAddr) -> io::Result<SocketAddr> {
    // SAFETY: every part of the union is plain bytes, all of which were zeroed before the kernel
    // wrote; the family says which part it wrote.
    unsafe {
        match libc::c_int::from(raw.family) {
            libc::AF_INET => Ok(SocketAddrV4::new(
                Ipv4Addr::from(raw.v4.sin_addr.s_addr.to_ne_bytes()),
                u16::from_be(raw.v4.sin_port),
            )
            .into()),
            libc::AF_INET6 => Ok(SocketAddrV6::new(
                Ipv6Addr::from(raw.v6.sin6_addr.s6_addr),
                u16::from_be(raw.v6.sin6_port),
                raw.v6.sin6_flowinfo,
                raw.v6.sin6_scope_id,
            )
            .into()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

pub(super) fn bind(fd: RawFd, addr: &SocketAddr) -> io::Result<()> {
    let (raw, len) = to_raw(addr);
    // SAFETY: the kernel reads `len` bytes of `raw`, which lives.
    check(unsafe { libc::bind(fd, ptr::from_ref(&raw).cast(), len) }).map(drop)
}

pub(super) fn listen(fd: RawFd, backlog: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::listen(fd, i32::try_from(backlog).unwrap_or(i32::MAX)) }).map(drop)
}

/// Begins to connect; in progress is success.
pub(super) fn connect(fd: RawFd, to: &SocketAddr) -> io::Result<()> {
    let (raw, len) = to_raw(to);
    // SAFETY: the kernel reads `len` bytes of `raw`, which lives.
    match check(unsafe { libc::connect(fd, ptr::from_ref(&raw).cast(), len) }) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(()),
    }
}

type NameCall =
    unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(fd: RawFd, call: NameCall) -> io::Result<SocketAddr> {
    // SAFETY: all zeros is a valid value of these plain structs.
    let mut raw: RawAddr = unsafe { mem::zeroed() };
    let mut len = mem::size_of::<RawAddr>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `raw`; both live.
    check(unsafe { call(fd, ptr::from_mut(&mut raw).cast(), &mut len) })?;
    from_raw(&raw)
}

pub(super) fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    name(fd, libc::getsockname)
}

pub(super) fn peer_addr(fd: RawFd) -> io::Result<SocketAddr> {
    name(fd, libc::getpeername)
}

pub(super) fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: without a place for the address the kernel writes none.
    owned(unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) })
}

pub(super) fn recv(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the slice's length.
    check_len(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// Sends the pieces in order, as far as the kernel has room.
pub(super) fn send(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    const FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    if let [one] = pieces {
        // SAFETY: the kernel reads the slice, which is borrowed for the call.
        return check_len(unsafe { libc::send(fd, one.as_ptr().cast(), one.len(), FLAGS) });
    }
    // SAFETY: all zeros is a valid value: no name, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // `IoSlice` is guaranteed to have the layout of `iovec`.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    // SAFETY: the kernel reads the pieces, which are borrowed for the call, and writes none.
    check_len(unsafe { libc::sendmsg(fd, &message, FLAGS) })
}

/// Sends FIN behind all that was sent.
pub(super) fn shutdown_send(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::shutdown(fd, libc::SHUT_WR) }).map(drop)
}

/// How many descriptors the process may have open.
pub(super) fn descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes `limit`, which lives.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit.rlim_cur)
}

/// The number that the next descriptor would get, found by making and closing one.
pub(super) fn next_descriptor(any: RawFd) -> io::Result<RawFd> {
    // SAFETY: takes numbers only.
    let copy = owned(unsafe { libc::fcntl(any, libc::F_DUPFD_CLOEXEC, 0) })?;
    Ok(copy.as_raw_fd())
}
