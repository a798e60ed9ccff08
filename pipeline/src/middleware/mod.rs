//! Handlers that wrap a handler. The first to be called is the outermost:
//! `Recover::new(Logging::new(Metrics::new(mine)))`.

mod logging;
mod metrics;
mod recover;

pub use logging::Logging;
pub use metrics::{HandlerCounters, HandlerSnapshot, Metrics};
pub use recover::Recover;
