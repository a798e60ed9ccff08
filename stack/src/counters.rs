//! What a stack counts. One writer: the worker that owns the stack.

hioload_core::counters! {
    /// Counters of one stack.
    pub struct StackCounters => StackSnapshot {
        /// Frames received.
        counter frames_in_total,
        /// Frames sent.
        counter frames_out_total,
        /// TCP segments received for an address of ours.
        counter segments_in_total,
        /// TCP segments sent.
        counter segments_out_total,
        /// TCP segments that were sent again.
        counter retransmits_total,
        /// Frames dropped: too short, a bad length, a bad version, impossible flags.
        counter drop_malformed_total,
        /// Frames dropped: bad checksum.
        counter drop_checksum_total,
        /// Frames dropped: for another station, VLAN or address.
        counter drop_not_ours_total,
        /// Frames dropped: an IP fragment.
        counter drop_fragment_total,
        /// Frames dropped: a protocol or extension header that is not spoken here.
        counter drop_protocol_total,
        /// Packets dropped: no route to their destination.
        counter drop_no_route_total,
        /// Packets dropped: the next hop's address isn't known and its queue is full.
        counter drop_neighbor_total,
        /// Questions for an unknown neighbour not asked: strangers had packets sent to too many.
        counter asks_withheld_total,
        /// Frames not sent: the link had no room.
        counter drop_link_full_total,
        /// Times that a connection's output had to wait: the link had no room.
        counter link_full_total,
        /// Connections refused: the table or the memory is full.
        counter drop_no_memory_total,
        /// SYNs not answered, and SYN cookies not taken: connections are at a limit.
        counter drop_at_limit_total,
        /// Replies withheld by a rate limit.
        counter drop_rate_limited_total,
        /// Resets dropped because they were not exactly at the window's edge (RFC 5961).
        counter drop_blind_rst_total,
        /// Segments dropped because they acknowledge what was never sent (RFC 5961).
        counter drop_blind_ack_total,
        /// ICMP errors dropped because they quote nothing of ours that is in flight.
        counter drop_icmp_total,
        /// Challenge ACKs sent (RFC 5961).
        counter challenge_acks_total,
        /// Resets sent to segments of no connection.
        counter resets_out_total,
        /// SYN cookies sent.
        counter cookies_out_total,
        /// Connections made from a SYN cookie.
        counter cookies_good_total,
        /// ACKs that carried no valid cookie while cookies were out.
        counter cookies_bad_total,
        /// Connections accepted.
        counter accepted_total,
        /// Connections opened by us and established.
        counter connected_total,
        /// Half-open connections given up.
        counter half_open_reaped_total,
        /// Connections given up: the peer acknowledged nothing for too long.
        counter user_timeouts_total,
        /// Connections reset by the peer.
        counter resets_in_total,
        /// Segments with data that the fast path took.
        counter fast_segments_total,
        /// Times that a connection left the fast path.
        counter fast_left_total,
        /// Connections frozen.
        counter freezes_total,
        /// Connections thawed.
        counter thaws_total,
        /// TIME_WAIT records that a new SYN took over.
        counter time_wait_reused_total,
        /// Lower path MTUs learned.
        counter path_mtu_lowered_total,
        /// Stations that claim an address of ours: their ARP and neighbour discovery messages.
        counter address_conflicts_total,
        /// Connections, of any state.
        gauge connections,
        /// Connections that wait for the handshake's end.
        gauge half_open,
        /// Connections that are frozen.
        gauge frozen,
        /// TIME_WAIT records.
        gauge time_wait,
        /// Buckets of the flow table.
        gauge flow_buckets,
        /// Bytes mapped for sockets and rings.
        gauge slab_bytes,
    }
}
