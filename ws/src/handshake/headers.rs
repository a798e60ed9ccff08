//! The header lines of an HTTP head, as views of the bytes they arrived in: what reading a request
//! and reading a response have in common.

use super::lists;

/// Header lines that a head may have. A request with more is refused with 431.
pub const MAX_HEADERS: usize = 64;

/// Where the header lines lie in a head: room for [`parse_request`](super::parse_request) and
/// its like to note it.
#[derive(Debug, Clone)]
pub struct HeaderSlots([Slot; MAX_HEADERS]);

impl HeaderSlots {
    /// Empty slots, to be used for one head after another.
    pub const fn new() -> Self {
        Self([Slot { name: Span { at: 0, len: 0 }, value: Span { at: 0, len: 0 } }; MAX_HEADERS])
    }

    /// Notes where the lines lie that were parsed from `head`.
    pub(super) fn note<'b>(
        &'b mut self,
        head: &'b [u8],
        lines: &[httparse::Header<'b>],
    ) -> Headers<'b> {
        for (slot, line) in self.0.iter_mut().zip(lines) {
            let name = Span::of(line.name.as_bytes(), head);
            *slot = Slot { name, value: Span::of(line.value, head) };
        }
        Headers { head, slots: &self.0[..lines.len().min(MAX_HEADERS)] }
    }
}

impl Default for HeaderSlots {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    name: Span,
    value: Span,
}

/// A piece of the head. Spans, not slices, so that the slots carry no lifetime.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// `part` is a slice of `head`.
    fn of(part: &[u8], head: &[u8]) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        Self { at: at as u32, len: part.len() as u32 }
    }

    fn in_head(self, head: &[u8]) -> &[u8] {
        head.get(self.at as usize..).and_then(|s| s.get(..self.len as usize)).unwrap_or_default()
    }
}

/// The header lines of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers<'b> {
    head: &'b [u8],
    slots: &'b [Slot],
}

impl<'b> Headers<'b> {
    pub(super) fn lines(self) -> impl Iterator<Item = (&'b str, &'b [u8])> + Clone + use<'b> {
        self.slots.iter().map(move |slot| {
            // Names are tokens: httparse accepts nothing else.
            let name = str::from_utf8(slot.name.in_head(self.head)).unwrap_or_default();
            (name, slot.value.in_head(self.head))
        })
    }

    pub(super) fn values(self, name: &'static str) -> Values<'b> {
        Values { headers: self, name }
    }

    /// The first value of this name, in any case.
    pub(super) fn first(self, name: &str) -> Option<&'b [u8]> {
        self.lines().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether each value of this name is UTF-8: what the list iterators read, they read whole.
    pub(super) fn is_text(self, name: &'static str) -> bool {
        let mut values = self.values(name);
        std::iter::from_fn(|| values.next_bytes()).all(|value| str::from_utf8(value).is_ok())
    }

    pub(super) fn contains_token(self, name: &'static str, token: &str) -> bool {
        lists::elements(self.values(name)).any(|element| element.eq_ignore_ascii_case(token))
    }
}

/// The values of all lines of one name.
#[derive(Debug, Clone)]
pub(crate) struct Values<'b> {
    headers: Headers<'b>,
    name: &'static str,
}

impl<'b> Values<'b> {
    /// The next value, of any bytes.
    pub(super) fn next_bytes(&mut self) -> Option<&'b [u8]> {
        while let Some((slot, rest)) = self.headers.slots.split_first() {
            self.headers.slots = rest;
            let head = self.headers.head;
            if slot.name.in_head(head).eq_ignore_ascii_case(self.name.as_bytes()) {
                return Some(slot.value.in_head(head));
            }
        }
        None
    }

    /// The next value as text; one that is not UTF-8 reads as empty, which no check passes.
    pub(crate) fn next_text(&mut self) -> Option<&'b str> {
        self.next_bytes().map(|value| str::from_utf8(value).unwrap_or_default())
    }

    pub(crate) fn text(mut self) -> impl Iterator<Item = &'b str> + Clone {
        std::iter::from_fn(move || self.next_text())
    }

    /// The value of a header that must come exactly once and not be empty.
    pub(super) fn single(mut self) -> Option<&'b str> {
        match (self.next_text(), self.next_bytes()) {
            (Some(value), None) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}
