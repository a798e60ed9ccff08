//! The system calls of the links that no safe library has: TAP's ioctl, questions about an
//! interface, and packet sockets with bursts and auxiliary data.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use hioload_stack::BURST;

/// linux/if_packet.h: don't show what this host sends.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// What the kernel says about an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface {
    pub(super) index: i32,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    /// It carries Ethernet frames.
    pub(super) ethernet: bool,
}

/// What the kernel says beside a received frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// Bytes of the frame, also of those that found no room.
    pub(super) len: usize,
    /// The kernel verified the checksum, or the frame never left this host.
    pub(super) checksum_good: bool,
    /// The VLAN tag that was taken out of the frame: its TPID and TCI.
    pub(super) tag: Option<(u16, u16)>,
}

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// An `ifreq` that names an interface.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero bytes are a valid ifreq: it is made of integers and arrays of them.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() || bytes.contains(&0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name has 1 to 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

/// Makes the descriptor of /dev/net/tun that of TAP device `name`, made where there is none.
pub(super) fn attach_tap(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is what the pointer is to.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    Ok(())
}

/// Asks about an interface.
pub(super) fn interface(name: &str) -> io::Result<Interface> {
    // SAFETY: takes no pointers.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was made a line above and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let ask = |what: libc::c_ulong| -> io::Result<libc::ifreq> {
        let mut request = request(name)?;
        // SAFETY: these three requests read and write one ifreq, which is what the pointer is to.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), what as _, &raw mut request) })?;
        Ok(request)
    };
    // SAFETY: SIOCGIFINDEX filled in this field of the union.
    let index = unsafe { ask(libc::SIOCGIFINDEX as _)?.ifr_ifru.ifru_ifindex };
    // SAFETY: SIOCGIFMTU filled in this field of the union.
    let mtu = unsafe { ask(libc::SIOCGIFMTU as _)?.ifr_ifru.ifru_mtu };
    // SAFETY: SIOCGIFHWADDR filled in this field of the union.
    let hardware = unsafe { ask(libc::SIOCGIFHWADDR as _)?.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(hardware.sa_data) {
        *to = from as u8;
    }
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    Ok(Interface { index, mac, mtu, ethernet: hardware.sa_family == libc::ARPHRD_ETHER })
}

/// A packet socket that receives all frames that come to the interface `index`, and none that this
/// host sends there.
pub(super) fn packet_socket(index: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Without a protocol it receives nothing before it is bound.
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor was made a line above and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1i32)?;
    let bytes: libc::c_int = 4 << 20;
    for (forced, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set(&fd, libc::SOL_SOCKET, forced, &bytes).is_err() {
            set(&fd, libc::SOL_SOCKET, plain, &bytes)?;
        }
    }
    // SAFETY: all-zero bytes are a valid sockaddr_ll: it is made of integers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    // SAFETY: the kernel reads `address`, which lives, in its full length.
    check(unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length::<libc::sockaddr_ll>())
    })?;
    Ok(fd)
}

/// Lets the interface receive frames for other station addresses as well, for as long as the
/// socket lives.
pub(super) fn be_promiscuous(fd: &OwnedFd, index: i32) -> io::Result<()> {
    join(fd, index, libc::PACKET_MR_PROMISC)
}

/// Lets frames for any group through: neighbour discovery uses them.
pub(super) fn hear_all_groups(fd: &OwnedFd, index: i32) -> io::Result<()> {
    join(fd, index, libc::PACKET_MR_ALLMULTI)
}

fn join(fd: &OwnedFd, index: i32, membership: libc::c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid packet_mreq: it is made of integers.
    let mut request: libc::packet_mreq = unsafe { mem::zeroed() };
    request.mr_ifindex = index;
    request.mr_type = membership as u16;
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

fn set<T>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `value`, which lives, in its full length.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length::<T>(),
        )
    })?;
    Ok(())
}

/// Room for what the kernel says beside a frame.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Receives a burst: frame n into the n-th `stride` bytes of `memory`, from `head` on. Returns how
/// many; `received` says what each is.
pub(super) fn receive(
    fd: &OwnedFd,
    memory: &mut [u8],
    stride: usize,
    head: usize,
    received: &mut [Received],
) -> io::Result<usize> {
    let mut control = [Control([0; 64]); BURST];
    // SAFETY: all-zero bytes are valid for both: they are made of integers and null pointers.
    let mut vectors: [libc::iovec; BURST] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
    let mut count = 0;
    let places = memory.chunks_exact_mut(stride).zip(&mut control).zip(&mut vectors);
    for (((place, control), vector), message) in places.zip(&mut messages).take(received.len()) {
        let room = &mut place[head..];
        vector.iov_base = room.as_mut_ptr().cast();
        vector.iov_len = room.len();
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = control.0.len();
        count += 1;
    }
    // MSG_TRUNC: lengths are those of the whole frames.
    // SAFETY: the first `count` headers point to memory that is borrowed until the call is over,
    // each with its true length; the kernel writes there and into the headers.
    let taken = check(unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            std::ptr::null_mut(),
        )
    })?;
    let taken = taken as usize;
    for (message, received) in messages.iter().zip(&mut *received).take(taken) {
        *received = Received { len: message.msg_len as usize, ..auxiliary(&message.msg_hdr) };
    }
    Ok(taken)
}

/// Reads what the kernel said beside a frame.
fn auxiliary(header: &libc::msghdr) -> Received {
    let mut received = Received::default();
    // SAFETY: the kernel filled in the header and its control memory, which is as aligned as a
    // cmsghdr must be and still lives.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: where it isn't null it points to a cmsghdr in that memory.
    let Some(message) = (unsafe { first.as_ref() }) else { return received };
    if message.cmsg_level != libc::SOL_PACKET || message.cmsg_type != libc::PACKET_AUXDATA {
        return received;
    }
    let mut data = MaybeUninit::<libc::tpacket_auxdata>::uninit();
    // SAFETY: a PACKET_AUXDATA message holds one tpacket_auxdata, perhaps not aligned; all bytes
    // are a valid one.
    let data = unsafe {
        std::ptr::copy_nonoverlapping(
            libc::CMSG_DATA(first),
            data.as_mut_ptr().cast(),
            size_of::<libc::tpacket_auxdata>(),
        );
        data.assume_init()
    };
    let has = |flag: u32| data.tp_status & flag != 0;
    received.checksum_good = has(libc::TP_STATUS_CSUM_VALID) || has(libc::TP_STATUS_CSUMNOTREADY);
    if has(libc::TP_STATUS_VLAN_VALID) {
        let tpid = match has(libc::TP_STATUS_VLAN_TPID_VALID) {
            true => data.tp_vlan_tpid,
            false => 0x8100,
        };
        received.tag = Some((tpid, data.tp_vlan_tci));
    }
    received
}

/// Sends frames of these lengths, each at its multiple of `stride` in `memory`, from `first` on.
/// Returns how many the kernel took.
pub(super) fn send(
    fd: &OwnedFd,
    memory: &mut [u8],
    stride: usize,
    lengths: &[usize],
    first: usize,
) -> io::Result<usize> {
    // SAFETY: all-zero bytes are valid for both: they are made of integers and null pointers.
    let mut vectors: [libc::iovec; BURST] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut messages: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
    let mut count = 0;
    let frames = memory.chunks_exact_mut(stride).zip(lengths).skip(first);
    for ((frame, len), (vector, message)) in frames.zip(vectors.iter_mut().zip(&mut messages)) {
        let frame = &mut frame[..*len];
        vector.iov_base = frame.as_mut_ptr().cast();
        vector.iov_len = frame.len();
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    // SAFETY: the first `count` headers point to memory that is borrowed until the call is over,
    // each with its true length; the kernel reads there and writes into the headers.
    let taken = check(unsafe {
        libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT)
    })?;
    Ok(taken as usize)
}
