//! What a worker counts. Each worker has one cache-padded set that it alone writes; anybody reads.

hioload_core::counters! {
    /// Counters of one worker's pipeline.
    pub struct WorkerCounters => WorkerSnapshot {
        /// Turns of the worker's loop.
        counter turns_total,
        /// Transports accepted.
        counter connections_total,
        /// Transports open now.
        gauge connections_open,
        /// Opening handshakes that succeeded.
        counter sessions_total,
        /// Sessions whose handler state is alive now.
        gauge sessions_open,
        /// Sessions that this side could not open.
        counter connects_failed_total,
        /// Opening handshakes that were refused with an HTTP response.
        counter handshakes_refused_total,
        /// Opening handshakes that ran out of time.
        counter handshakes_timed_out_total,
        /// Connections refused because a connection limit was reached.
        counter refused_by_limit_total,
        /// Connections refused or closed because memory ran short.
        counter refused_by_memory_total,
        /// Batches handed to the handler.
        counter batches_total,
        /// Messages received.
        counter messages_in_total,
        /// Payload bytes of messages received.
        counter message_bytes_in_total,
        /// Messages accepted for sending, each receiver of a broadcast counted.
        counter messages_out_total,
        /// Payload bytes of messages accepted for sending.
        counter message_bytes_out_total,
        /// Messages that had to be assembled from parts.
        counter messages_assembled_total,
        /// Ping frames received.
        counter pings_in_total,
        /// Ping frames sent because a session was idle.
        counter pings_out_total,
        /// Sessions closed 1001 because nothing came from them for too long.
        counter idle_closed_total,
        /// Sessions ended by a violation of the protocol by the peer.
        counter protocol_errors_total,
        /// Sessions that ended without a closing handshake.
        counter abnormal_closed_total,
        /// Messages dropped because a session's output was at its limit.
        counter overflow_dropped_total,
        /// Sessions closed because their output was at its limit.
        counter overflow_closed_total,
        /// Times that receiving from a session was paused because its output waits.
        counter rx_paused_total,
        /// Bytes of output that wait in session queues now.
        gauge queued_bytes,
        /// Session queues that hold output now.
        gauge queues_open,
        /// Sessions with a message that is not whole yet, now.
        gauge assemblies_open,
        /// Broadcasts begun on this worker, from here or from elsewhere.
        counter broadcasts_total,
        /// Broadcasts that were dropped because too many were under way.
        counter broadcasts_dropped_total,
        /// Messages for another worker that were dropped because its inbox was full.
        counter inbox_full_total,
        /// Panics of the handler that were caught.
        counter handler_panics_total,
        /// Heap-free buffers lent from the pool now.
        gauge pool_buffers_lent,
        /// Bytes of the pool lent now.
        gauge pool_bytes_lent,
        /// Buffers served from memory that the worker already had.
        counter pool_hits_total,
        /// Buffers for which a page had to be fetched from the node.
        counter pool_misses_total,
        /// Buffers larger than the largest class.
        counter pool_fallbacks_total,
        /// Requests that the memory budget refused.
        counter pool_refused_total,
    }
}
