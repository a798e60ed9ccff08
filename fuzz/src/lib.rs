//! What the structured fuzz targets take, and its way back into the bytes that they take it from: so
//! a seed is written as a value (`src/seeds`), not as bytes that nobody can read.

pub mod decode;
pub mod encode_roundtrip;
pub mod segments;

use std::fmt::Debug;

use arbitrary::{Arbitrary, Unstructured};

/// The inverse of `derive(Arbitrary)`: fields in their order, integers little-endian, a byte that says
/// `more` before each element of a list, 32 bits that choose a variant.
pub trait Bytes {
    /// Appends what this value is made from.
    fn put(&self, out: &mut Vec<u8>);
}

/// A target's input as the bytes that the target makes it from again.
///
/// # Panics
/// Where it doesn't: a type and its [`Bytes`] aren't of one mind.
pub fn seed<T: Bytes + for<'a> Arbitrary<'a> + PartialEq + Debug>(input: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    input.put(&mut bytes);
    let again = T::arbitrary_take_rest(Unstructured::new(&bytes));
    assert_eq!(again.as_ref(), Ok(input));
    bytes
}

/// Chooses a variant of an enum that has `count`.
pub(crate) fn variant(index: u64, count: u64, out: &mut Vec<u8>) {
    let least = (index << 32).div_ceil(count) as u32;
    out.extend(least.to_le_bytes());
}

impl Bytes for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
}

macro_rules! integers {
    ($($kind:ty)*) => { $(
        impl Bytes for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
        }
    )* };
}

integers!(u8 u16 u64 i16);

impl<T: Bytes> Bytes for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        for item in self {
            true.put(out);
            item.put(out);
        }
        false.put(out);
    }
}

impl<T: Bytes, const N: usize> Bytes for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.put(out));
    }
}

impl<T: Bytes> Bytes for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|item| item.put(out));
    }
}

impl<A: Bytes, B: Bytes> Bytes for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
}
