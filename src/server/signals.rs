//! SIGINT and SIGTERM, as an operator means them: the first one drains, the second one stops, the
//! third one ends the process however stuck it is.

pub(crate) use sys::Watch;

#[cfg(unix)]
mod sys {
    use std::thread::{self, JoinHandle};

    use hioload_pipeline::Remote;
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::iterator::{Handle, Signals};
    use signal_hook::low_level::emulate_default_handler;

    use crate::server::Error;

    /// Takes the signals until it is dropped.
    pub(crate) struct Watch {
        handle: Handle,
        thread: Option<JoinHandle<()>>,
    }

    impl Watch {
        pub(crate) fn start(remote: Remote) -> Result<Watch, Error> {
            let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Error::Signals)?;
            let handle = signals.handle();
            let watch = move || {
                for (count, signal) in signals.forever().enumerate() {
                    answer(count, signal, &remote);
                }
            };
            let thread = thread::Builder::new().name("signals".into()).spawn(watch);
            Ok(Watch { handle, thread: Some(thread.map_err(Error::Signals)?) })
        }
    }

    fn answer(count: usize, signal: i32, remote: &Remote) {
        let remote = remote.clone();
        // A worker that is stuck makes these wait; the next signal must be heard even so.
        let (name, tell): (_, fn(&Remote)) = match count {
            0 => ("drain", Remote::drain),
            1 => ("stop", Remote::stop),
            _ => {
                // It fails only for signals that have no default.
                let _ = emulate_default_handler(signal);
                return;
            }
        };
        tracing::info!(signal, "{name}");
        let told = thread::Builder::new().name(name.into()).spawn(move || tell(&remote));
        if let Err(error) = told {
            tracing::error!(%error, "no thread to {name} with");
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            self.handle.close();
            if let Some(thread) = self.thread.take() {
                // It can't panic, and if it did there'd be nothing to save.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(not(unix))]
mod sys {
    use hioload_pipeline::Remote;

    use crate::server::Error;

    /// Signals aren't taken on this operating system yet.
    pub(crate) struct Watch;

    impl Watch {
        pub(crate) fn start(_remote: Remote) -> Result<Watch, Error> {
            Err(Error::Signals(std::io::ErrorKind::Unsupported.into()))
        }
    }
}
