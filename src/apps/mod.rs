//! What the appliance does with messages: one small handler a file.

mod broadcast;
mod echo;

pub use broadcast::Broadcast;
pub use echo::Echo;
