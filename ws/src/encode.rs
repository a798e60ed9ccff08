//! Frames out (RFC 6455 §5.2): a header in front of a payload that already lies where it shall
//! leave from, or a whole frame into a send window. What the caller says is written as said: it
//! knows its role and passes a mask exactly when it is a client.

use crate::frame::Opcode;
use crate::mask;

/// The longest header, in bytes: two, a 64-bit length, a mask.
pub const MAX_HEADER: usize = 14;

/// Bytes that the header of a frame takes.
#[inline]
pub const fn header_len(payload_len: u64, masked: bool) -> usize {
    let length = match payload_len {
        0..=125 => 0,
        126..=0xFFFF => 2,
        _ => 8,
    };
    2 + length + if masked { 4 } else { 0 }
}

/// Writes a header to the front of `out` and says how many bytes it took.
///
/// # Panics
/// When `out` is shorter than [`header_len`]; [`MAX_HEADER`] bytes always do.
#[inline]
pub fn write_header(
    out: &mut [u8],
    fin: bool,
    rsv1: bool,
    opcode: Opcode,
    payload_len: u64,
    mask: Option<[u8; 4]>,
) -> usize {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let first = u8::from(fin) << 7 | u8::from(rsv1) << 6 | opcode as u8;
    let mut at = match payload_len {
        0..=125 => {
            out[..2].copy_from_slice(&[first, mask_bit | payload_len as u8]);
            2
        }
        126..=0xFFFF => {
            let [high, low] = (payload_len as u16).to_be_bytes();
            out[..4].copy_from_slice(&[first, mask_bit | 126, high, low]);
            4
        }
        _ => {
            out[..2].copy_from_slice(&[first, mask_bit | 127]);
            out[2..10].copy_from_slice(&payload_len.to_be_bytes());
            10
        }
    };
    if let Some(key) = mask {
        out[at..at + 4].copy_from_slice(&key);
        at += 4;
    }
    at
}

/// Writes a header so that it ends where the payload begins, at `room[payload_at..]`, and says
/// where it starts: `room[start..]` is the frame. The payload is taken as it lies there; with a
/// mask it must have been masked before.
///
/// # Panics
/// When there is less than [`header_len`] before `payload_at`.
#[inline]
pub fn write_header_before(
    room: &mut [u8],
    payload_at: usize,
    fin: bool,
    rsv1: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
) -> usize {
    let payload_len = (room.len() - payload_at) as u64;
    let start = payload_at - header_len(payload_len, mask.is_some());
    write_header(&mut room[start..], fin, rsv1, opcode, payload_len, mask);
    start
}

/// Writes a whole unfragmented frame into a send window, masking the payload on the way if a key
/// is given. `None`: it does not fit, and nothing was written.
#[inline]
pub fn encode_into(
    out: &mut [u8],
    opcode: Opcode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> Option<usize> {
    let head = header_len(payload.len() as u64, mask.is_some());
    let frame = out.get_mut(..head + payload.len())?;
    write_header(frame, true, false, opcode, payload.len() as u64, mask);
    let body = &mut frame[head..];
    body.copy_from_slice(payload);
    if let Some(key) = mask {
        mask::apply(key, 0, body);
    }
    Some(head + payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Limits, Role, Rules, parse_header};

    const KEY: [u8; 4] = [1, 2, 3, 4];
    const ANY: Limits = Limits { max_frame: u64::MAX, max_message: u64::MAX };

    #[test]
    fn every_header_is_read_back_as_it_was_written() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, u64::from(u32::MAX), i64::MAX as u64];
        for payload_len in lengths {
            for (role, mask) in [(Role::Server, Some(KEY)), (Role::Client, None)] {
                for (fin, rsv1) in [(true, false), (false, false), (true, true)] {
                    let mut out = [0; MAX_HEADER];
                    let len = write_header(&mut out, fin, rsv1, Opcode::Text, payload_len, mask);
                    assert_eq!(len, header_len(payload_len, mask.is_some()));
                    let rules = Rules { rsv1: true, ..Rules::new(role, ANY) };
                    let header = parse_header(&out[..len], &rules).unwrap().unwrap();
                    assert_eq!((header.fin(), header.rsv1()), (fin, rsv1));
                    assert_eq!((header.payload_len(), header.mask()), (payload_len, mask));
                    assert_eq!((header.header_len(), header.opcode()), (len, Opcode::Text));
                }
            }
        }
    }

    #[test]
    fn a_header_ends_where_its_payload_begins() {
        let mut room = [0xEE; 300];
        let start = write_header_before(&mut room, 100, true, false, Opcode::Binary, None);
        assert_eq!((start, &room[94..100]), (96, &[0xEE, 0xEE, 0x82, 126, 0, 200][..]));
    }

    #[test]
    fn a_frame_that_does_not_fit_leaves_the_window_alone() {
        let mut window = [0xEE; 10];
        assert_eq!(encode_into(&mut window[..6], Opcode::Text, b"Hello", None), None);
        assert_eq!(window, [0xEE; 10]);
        assert_eq!(encode_into(&mut window, Opcode::Text, b"Hello", None), Some(7));
        assert_eq!(window[..7], *b"\x81\x05Hello");
    }

    #[test]
    fn a_masked_frame_is_the_one_of_the_rfc() {
        let mut window = [0; 11];
        let key = [0x37, 0xFA, 0x21, 0x3D];
        assert_eq!(encode_into(&mut window, Opcode::Text, b"Hello", Some(key)), Some(11));
        assert_eq!(window, *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }
}
