//! The chat's page, over the least HTTP that a browser needs: one page, one thread, one request a
//! connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PAGE: &str = include_str!("page.html");
/// A browser that says nothing for longer holds nobody else up.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 16 * 1024;

/// Serves the page beside the chat on `chat`, on a port that the system chooses.
pub fn serve(chat: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((chat.ip(), 0))?;
    let address = listener.local_addr()?;
    let page = PAGE.replace("CHAT_PORT", &chat.port().to_string());
    std::thread::Builder::new().name("page".into()).spawn(move || {
        for browser in listener.incoming() {
            let answered = browser.and_then(|browser| answer(browser, &page));
            if let Err(error) = answered {
                // Descriptors may have run out; trying at once again would only spin.
                eprintln!("page: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(address)
}

fn answer(mut browser: TcpStream, page: &str) -> io::Result<()> {
    browser.set_read_timeout(Some(PATIENCE))?;
    browser.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut bytes = [0; 2048];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
        match browser.read(&mut bytes)? {
            0 => return Ok(()),
            n => head.extend_from_slice(&bytes[..n]),
        }
    }
    let (status, body) = match head.starts_with(b"GET / ") {
        true => ("200 OK", page),
        false => ("404 Not Found", "There is only /"),
    };
    write!(
        browser,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
