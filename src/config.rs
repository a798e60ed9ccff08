//! The configuration file: TOML with the names of the command line. What is wrong in it is told
//! with its place and with what is allowed.

use std::fmt::Display;
use std::path::Path;

use crate::cli::Options;

/// Reads a file; the error is for the operator.
pub fn read(path: &Path) -> Result<Options, String> {
    let text = std::fs::read_to_string(path).map_err(|error| blame(path, &error))?;
    // The parser's message names line, column, key, and what it expected there.
    toml::from_str(&text).map_err(|error| blame(path, &error))
}

/// Says which file it is that has a fault.
pub fn blame(path: &Path, fault: &dyn Display) -> String {
    format!("{}: {fault}", path.display())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::cli::{App, Log, Options, OverflowPolicy};
    use crate::dpdk_options::{DpdkOptions, Idle};
    use crate::units::{Size, Span};
    use hioload_ws::BackendChoice;

    #[test]
    fn a_file_may_set_everything() {
        let text = r#"
            listen = ["127.0.0.1:9001", "[::1]:9001"]
            workers = 2
            app = "broadcast"
            backend = "tap"
            interface = "tap0"
            address = ["10.9.0.2/24", "fd00::2/64"]
            gateway = ["10.9.0.1"]
            mac = "02:00:00:00:00:01"
            vlan = 7
            freeze-after = "10s"
            tcp-ring = "2KiB"
            half-open = 100
            trace-connection = "10.9.0.1"
            trace-file = "client.pcap"
            batch = 16
            ring = 512
            max-connections = 1000
            max-per-ip = 10
            max-frame = "64KiB"
            max-message = 131072
            max-unsent = "1MiB"
            overflow = "drop-oldest"
            handshake-timeout = "2s"
            ping-after = "500ms"
            dead-after = "1m"
            drain-spread = 0
            drain-limit = "10s"
            memory = "1GiB"
            spin = "50us"
            log = "info"
            [dpdk]
            eal = ["-l", "1-2", "-a", "0000:03:00.0"]
            port = 0
            idle = "busy"
            rx-descriptors = 1024
            tx-descriptors = 512
            mbufs = 8191
            capture = true
        "#;
        let ms = |ms| Some(Span(Duration::from_millis(ms)));
        let expected = Options {
            listen: vec!["127.0.0.1:9001".into(), "[::1]:9001".into()],
            workers: Some(2),
            app: Some(App::Broadcast),
            backend: Some(BackendChoice::Tap),
            interface: Some("tap0".into()),
            address: vec!["10.9.0.2/24".into(), "fd00::2/64".into()],
            gateway: vec!["10.9.0.1".into()],
            mac: Some("02:00:00:00:00:01".into()),
            vlan: Some(7),
            freeze_after: ms(10_000),
            tcp_ring: Some(Size(2 << 10)),
            half_open: Some(100),
            trace_connection: Some("10.9.0.1".into()),
            trace_file: Some("client.pcap".into()),
            batch: Some(16),
            ring: Some(512),
            max_connections: Some(1000),
            max_per_ip: Some(10),
            max_frame: Some(Size(64 << 10)),
            max_message: Some(Size(128 << 10)),
            max_unsent: Some(Size(1 << 20)),
            overflow: Some(OverflowPolicy::DropOldest),
            handshake_timeout: ms(2_000),
            ping_after: ms(500),
            dead_after: ms(60_000),
            drain_spread: ms(0),
            drain_limit: ms(10_000),
            memory: Some(Size(1 << 30)),
            spin: Some(Span(Duration::from_micros(50))),
            log: Some(Log::Info),
            dpdk: DpdkOptions {
                port: Some("0".into()),
                idle: Some(Idle::Busy),
                rx_descriptors: Some(1024),
                tx_descriptors: Some(512),
                mbufs: Some(8191),
                capture: Some(true),
                eal: ["-l", "1-2", "-a", "0000:03:00.0"].map(String::from).into(),
            },
        };
        assert_eq!(toml::from_str::<Options>(text).unwrap(), expected);
    }

    #[test]
    fn a_fault_names_its_line_its_key_and_what_is_allowed() {
        for (text, parts) in [
            ("workers = 1\nworker = 2", ["line 2", "`worker`", "`workers`"]),
            ("app = \"chat\"", ["line 1", "`chat`", "`broadcast`"]),
            ("\nmax-frame = \"1MB\"", ["line 2", "`1MB`", "64KiB"]),
            ("ping-after = 5", ["line 1", "`5`", "500ms"]),
            ("backend = \"netmap\"", ["line 1", "`netmap`", "built in"]),
            ("[dpdk]\nidle = \"lazy\"", ["line 2", "`lazy`", "`adaptive`"]),
            ("[dpdk]\nport = true", ["line 2", "port's number", "device's name"]),
            ("listen = \"0.0.0.0:1\"", ["line 1", "string", "sequence"]),
        ] {
            let message = toml::from_str::<Options>(text).unwrap_err().to_string();
            for part in parts {
                assert!(message.contains(part), "{part} is missing in:\n{message}");
            }
        }
    }
}
