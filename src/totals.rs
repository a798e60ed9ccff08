//! What a server tells at its end: what it counted in all.

use std::fmt;

use hioload_ws::Monitor;

/// The totals, for a person: a line for the sessions, and where the server had a TCP/IP of its own,
/// one for each of its layers, with what isn't 0.
pub struct Totals<'a>(pub &'a Monitor);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.total();
        write!(
            f,
            "{} sessions, {} messages in, {} out, {} handshakes refused, {} protocol errors",
            total.sessions_total,
            total.messages_in_total,
            total.messages_out_total,
            total.handshakes_refused_total,
            total.protocol_errors_total
        )?;
        if total.connections_open > 0 {
            write!(f, ", {} connections cut off", total.connections_open)?;
        }
        #[cfg(target_os = "linux")]
        self.write_network(f)?;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Totals<'_> {
    fn write_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let monitor = self.0;
        if let Some(stack) = monitor.stack() {
            line(f, "tcp/ip", |add| stack.for_each(|name, _, _, value| add(name, value)))?;
        }
        if let Some(link) = monitor.link() {
            line(f, "link", |add| link.for_each(|name, _, _, value| add(name, value)))?;
        }
        if let Some(turns) = monitor.turns() {
            line(f, "loop", |add| turns.for_each(|name, _, _, value| add(name, value)))?;
        }
        #[cfg(feature = "dpdk")]
        self.write_dpdk(f)?;
        Ok(())
    }

    #[cfg(feature = "dpdk")]
    fn write_dpdk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(queues) = self.0.queues() {
            line(f, "queues", |add| queues.for_each(|name, _, _, value| add(name, value)))?;
        }
        let Some(device) = self.0.device() else { return Ok(()) };
        line(f, "device", |add| {
            add("rx_frames", device.rx_frames);
            add("tx_frames", device.tx_frames);
            add("rx_missed", device.rx_missed);
            add("rx_no_mbuf", device.rx_no_mbuf);
            add("rx_errors", device.rx_errors);
            add("tx_errors", device.tx_errors);
        })
    }
}

/// Takes a counter's name and value.
type Add<'a> = dyn FnMut(&str, u64) + 'a;

fn line(f: &mut fmt::Formatter<'_>, layer: &str, each: impl FnOnce(&mut Add<'_>)) -> fmt::Result {
    let mut parts = Vec::new();
    each(&mut |name, value| {
        if value > 0 {
            let name = name.strip_suffix("_total").unwrap_or(name).replace('_', " ");
            parts.push(format!("{name} {value}"));
        }
    });
    match parts.is_empty() {
        true => Ok(()),
        false => write!(f, "\n  {layer:<12} {}", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line(&'static [(&'static str, u64)]);

    impl fmt::Display for Line {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            line(f, "tcp/ip", |add| self.0.iter().for_each(|(name, value)| add(name, *value)))
        }
    }

    #[test]
    fn a_layer_tells_what_it_counted_and_nothing_of_what_it_did_not() {
        let counted = Line(&[("frames_in_total", 3), ("drop_checksum_total", 0), ("frozen", 1)]);
        assert_eq!(counted.to_string(), "\n  tcp/ip       frames in 3, frozen 1");
        assert_eq!(Line(&[("frozen", 0)]).to_string(), "");
    }
}
