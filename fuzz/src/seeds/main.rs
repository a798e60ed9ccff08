//! Writes the corpus that each fuzz target starts with, one file a seed, into the folders of the one
//! that it is given: `seeds` here. What valid peers say, and the first step off that path, so that a
//! run of seconds doesn't spend them on finding the way in.

mod handshakes;
mod messages;
mod segments;

use std::path::Path;
use std::{env, fs, io};

/// A name, and what the target takes.
type Seeds = Vec<(&'static str, Vec<u8>)>;

fn main() -> io::Result<()> {
    let Some(folder) = env::args_os().nth(1) else {
        return Err(io::Error::other("usage: seeds FOLDER"));
    };
    let targets = [
        ("decode", messages::decode()),
        ("encode_roundtrip", messages::encode_roundtrip()),
        ("handshake", handshakes::requests()),
        ("client_handshake", handshakes::responses()),
        ("segments", segments::segments()),
    ];
    for (target, seeds) in targets {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
