//! Turns a client's frames into a server's, in place, and checks nothing: each header loses its
//! mask, each payload is unmasked, opcode and FIN stay as they were. Any split of the stream will
//! do; no frame is ever assembled. Knows no socket.

use std::ops::Range;

/// What must be free in front of received bytes: the longest header that a server writes is 10
/// bytes, and all of the client's may have come with an earlier read.
pub const HEADROOM: usize = 16;

/// 2 bytes, a 64-bit length, the mask.
const MAX_CLIENT_HEADER: usize = 14;

/// One connection's place in its stream of frames.
#[derive(Default)]
pub struct Reheader {
    /// Bytes of the current frame's payload that are still to come.
    left: u64,
    /// Its mask, turned so that it fits the next payload byte.
    mask: [u8; 4],
    /// A header of which only the first `held` bytes have come.
    header: [u8; MAX_CLIENT_HEADER],
    held: u8,
}

struct Header {
    first: u8,
    payload: u64,
    mask: [u8; 4],
    bytes: usize,
}

impl Reheader {
    /// Rewrites what was received into `buf[HEADROOM..filled]` and says where in `buf` the answer
    /// is: one range, however many frames it holds.
    pub fn rewrite(&mut self, buf: &mut [u8], filled: usize) -> Range<usize> {
        let mut at = HEADROOM;
        let mut out = at..at;
        while at < filled {
            if self.left == 0 {
                let Some((header, taken)) = self.header(&buf[at..filled]) else { break };
                at += taken;
                self.left = header.payload;
                self.mask = header.mask;
                let (bytes, len) = server_header(&header);
                // The first answer's header goes right in front of its payload, which so stays
                // where it is; every later one moves back by what the headers before it lost.
                if out.is_empty() {
                    out = at - len..at - len;
                }
                buf[out.end..out.end + len].copy_from_slice(&bytes[..len]);
                out.end += len;
            }
            let here = (filled - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let payload = at..at + here;
            unmask(&mut buf[payload.clone()], self.mask);
            if payload.start != out.end {
                buf.copy_within(payload, out.end);
            }
            out.end += here;
            at += here;
            self.left -= here as u64;
            self.mask.rotate_left(here % 4);
        }
        out
    }

    /// The next header and how many bytes of `input` it took; `None` keeps what there is of it.
    fn header(&mut self, input: &[u8]) -> Option<(Header, usize)> {
        if self.held == 0
            && let Some(header) = parse(input)
        {
            let taken = header.bytes;
            return Some((header, taken));
        }
        let held = usize::from(self.held);
        let more = input.len().min(MAX_CLIENT_HEADER - held);
        self.header[held..held + more].copy_from_slice(&input[..more]);
        match parse(&self.header[..held + more]) {
            Some(header) => {
                self.held = 0;
                let taken = header.bytes - held;
                Some((header, taken))
            }
            None => {
                self.held += more as u8;
                None
            }
        }
    }
}

/// RFC 6455 section 5.2, of a frame that is taken to be masked.
fn parse(input: &[u8]) -> Option<Header> {
    let &[first, second, ref rest @ ..] = input else { return None };
    let (payload, rest, length_bytes) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), rest, 2)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), rest, 8)
        }
        short => (u64::from(short), rest, 0),
    };
    let mask = *rest.first_chunk()?;
    Some(Header { first, payload, mask, bytes: 2 + length_bytes + 4 })
}

fn server_header(header: &Header) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    bytes[0] = header.first;
    let len = match header.payload {
        short @ 0..=125 => {
            bytes[1] = short as u8;
            2
        }
        medium @ 126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
            4
        }
        long => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&long.to_be_bytes());
            10
        }
    };
    (bytes, len)
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0xa2, 0x33, 0xc4];
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            medium @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    fn server(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(short as u8),
            medium @ 126..=0xffff => {
                frame.push(126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_all_lengths_are_answered_however_the_stream_is_split() {
        let payload: Vec<u8> = (0..70_000_u32).map(|i| (i * 7) as u8).collect();
        let (mut sent, mut wanted) = (Vec::new(), Vec::new());
        for (first, len) in [
            (0x82, 0),
            (0x81, 3),
            (0x02, 125),
            (0x80, 126),
            (0x82, 65_535),
            (0x82, 65_536),
            (0x88, 2),
        ] {
            sent.extend(client(first, &payload[..len]));
            wanted.extend(server(first, &payload[..len]));
        }
        for step in [1, 2, 3, 5, 7, 13, 14, 64, 1_000, 65_549, sent.len()] {
            let mut reheader = Reheader::default();
            let mut got: Vec<u8> = Vec::new();
            for piece in sent.chunks(step) {
                let mut buf = vec![0; HEADROOM];
                buf.extend(piece);
                let filled = buf.len();
                let out = reheader.rewrite(&mut buf, filled);
                got.extend(&buf[out]);
            }
            assert!(got == wanted, "pieces of {step} bytes");
        }
    }
}
