//! Backends over the kernel's own TCP, for machines where no NIC queue is ours: today epoll on
//! Linux. They know sockets and the pipeline's seam ([`hioload_pipeline::backend`]), and nothing of
//! WebSocket.

pub mod counters;
#[cfg(target_os = "linux")]
pub mod epoll;

pub use counters::{SocketCounters, SocketSnapshot};
