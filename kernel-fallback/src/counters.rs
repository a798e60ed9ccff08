//! What a socket backend counts, one set a worker.

hioload_core::counters! {
    /// What a worker's socket backend counts.
    pub struct SocketCounters => SocketSnapshot {
        /// Calls that waited for or asked for events.
        counter wait_calls_total,
        /// Calls that received.
        counter recv_calls_total,
        /// Calls that sent.
        counter send_calls_total,
        /// Calls that accepted, or found nothing to accept.
        counter accept_calls_total,
        /// Calls that changed what is waited for.
        counter watch_calls_total,
        /// Bytes received.
        counter recv_bytes_total,
        /// Bytes that the kernel took for sending.
        counter sent_bytes_total,
        /// Sends of which the kernel took a part or nothing.
        counter partial_sends_total,
        /// Outputs joined to the one before them, so that both left as one piece.
        counter joined_outputs_total,
        /// Bytes that had to be copied because the kernel had no room for them.
        counter backlog_copied_bytes_total,
        /// Outputs refused because earlier ones had not left.
        counter refused_outputs_total,
        /// Turns in which the receive arena was used up with a connection still waiting.
        counter arena_full_total,
        /// Connections accepted.
        counter accepted_total,
        /// Connections opened from this side.
        counter connected_total,
        /// Errors of single connections while accepting them.
        counter accept_errors_total,
        /// Accepting that was interrupted because descriptors or kernel memory ran out.
        counter accept_paused_total,
        /// Connections that the peer reset.
        counter resets_total,
        /// Connections that failed otherwise.
        counter failures_total,
        /// Connections given up because there was no memory for their unsent output.
        counter memory_failures_total,
        /// Connections open now.
        gauge connections_open,
        /// Bytes that wait for the kernel to take them.
        gauge backlog_bytes,
    }
}
