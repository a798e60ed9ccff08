//! What a person sees while it runs: one line a second on stderr, written over itself on a
//! terminal.

use std::io::{IsTerminal as _, Write as _};

use super::args::Mode;
use super::summary::{Micros, Second, Thousands};

/// See the module.
pub struct Progress {
    mode: Mode,
    terminal: bool,
}

impl Progress {
    pub fn new(mode: Mode) -> Self {
        Progress { mode, terminal: std::io::stderr().is_terminal() }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        // Whoever closed stderr wants none of it.
        let _ = writeln!(std::io::stderr(), "{clear}{text}");
    }

    fn update(&mut self, text: &str) {
        if self.terminal {
            let mut stderr = std::io::stderr();
            // As above.
            let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        } else {
            self.line(text);
        }
    }

    pub fn ramp(&mut self, opened: usize, failed: usize, wanted: usize) {
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.update(&format!("opening: {opened} of {wanted}{failed}"));
    }

    /// A second of the window is over.
    pub fn second(&mut self, second: &Second) {
        if self.mode == Mode::Idle {
            return self.update(&format!("{:4} s  holding", second.at + 1));
        }
        self.update(&format!(
            "{:4} s  {:>11} {}/s  p50 {}  p99 {}  p99.9 {}  max {}",
            second.at + 1,
            Thousands(second.messages as f64).to_string(),
            self.mode.unit(),
            Micros(second.p50),
            Micros(second.p99),
            Micros(second.p99_9),
            Micros(second.max),
        ));
    }
}
