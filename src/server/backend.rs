//! Which backend a server runs on, and why: what was asked for, of what is built in and works here.

use std::fmt;
use std::str::FromStr;

use super::error::Error;

/// A backend by name, or the choice of the best.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BackendChoice {
    /// The best kernel backend that is built in and works here.
    #[default]
    Auto,
    /// Linux epoll.
    Epoll,
}

/// The names that this build knows, for messages.
pub(crate) fn built_in() -> &'static str {
    if cfg!(target_os = "linux") { "auto, epoll" } else { "none on this operating system" }
}

/// What was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

impl BackendChoice {
    pub(crate) fn choose(self) -> Result<Chosen, Error> {
        if !cfg!(target_os = "linux") {
            return Err(Error::Backend { asked: self.to_string() });
        }
        let why = match self {
            BackendChoice::Auto => "auto: the one kernel backend that this build has for Linux",
            BackendChoice::Epoll => "as asked for",
        };
        Ok(Chosen { name: "epoll", why })
    }
}

impl FromStr for BackendChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(BackendChoice::Auto),
            "epoll" => Ok(BackendChoice::Epoll),
            _ => Err(Error::Backend { asked: name.into() }),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackendChoice::Auto => "auto",
            BackendChoice::Epoll => "epoll",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_backend_is_told_which_there_are() {
        let message = "io_uring".parse::<BackendChoice>().unwrap_err().to_string();
        assert!(message.contains("`io_uring`") && message.contains(built_in()), "{message}");
    }

    #[test]
    fn names_read_back_as_they_are_written() {
        for choice in [BackendChoice::Auto, BackendChoice::Epoll] {
            assert_eq!(choice.to_string().parse::<BackendChoice>().unwrap(), choice);
        }
    }
}
