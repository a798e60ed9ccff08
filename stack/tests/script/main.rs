//! Segment by segment, in the manner of packetdrill: what the stack says to exactly this. The table
//! in `docs/tcp.md` names these tests.

#[path = "../common/mod.rs"]
mod common;
mod peer;

mod below_tcp;
mod discovery;
mod fast;
mod freezing;
mod opening;
mod options;
mod rfc4987;
mod rfc5681;
mod rfc5961;
mod rfc6298;
mod rfc6528;
mod rfc9293;
