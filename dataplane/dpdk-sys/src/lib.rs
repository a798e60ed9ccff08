//! Bindings to DPDK 22.11: the EAL, ethdev, mbufs and mempools, as far as `hioload-dataplane` uses
//! them. bindgen reads the headers when this is built; a C shim has what is static inline there. The
//! three things that are done a million times a second, receiving a burst, sending one and looking
//! into an mbuf, are written in Rust over DPDK's own fast-path table: a call through C costs half as
//! much again.
//!
//! Nothing is made safe here. The names are DPDK's, and so is their documentation. Without the
//! feature `libdpdk` the crate is empty, and builds anywhere.
#![cfg(feature = "libdpdk")]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::pedantic, unsafe_op_in_unsafe_fn)]

#[allow(missing_docs, clippy::undocumented_unsafe_blocks)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
mod burst;
mod layout;

pub use bindings::*;
pub use burst::{data, rx_burst, set_tx_lens, tx_burst, tx_prepare};
pub use layout::check_layout;
