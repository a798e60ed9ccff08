//! HTTP upgrades, from both ends. What begins with a zero byte is header lines for the target's own
//! valid handshake.

use crate::Seeds;

fn texts(seeds: &[(&'static str, &str)]) -> Seeds {
    seeds.iter().map(|&(name, text)| (name, text.as_bytes().to_vec())).collect()
}

pub fn requests() -> Seeds {
    texts(&[
        (
            "browser",
            "GET /chat?room=1 HTTP/1.1\r\nHost: example.org:9001\r\nConnection: keep-alive, Upgrade\r\n\
             Pragma: no-cache\r\nUpgrade: websocket\r\nOrigin: https://example.org\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
        ),
        ("subprotocols", "\0Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Protocol: v2"),
        (
            "extensions",
            "\0Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10, x",
        ),
        ("quoted", "\0Sec-WebSocket-Extensions: foo; a=\"b\", bar; c; d=\"\\e\""),
        ("twice", "\0Upgrade: websocket\r\nHost: b\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        ("folded", "\0X-A: b\r\n c\r\n\td"),
        ("body", "\0Content-Length: 5"),
        ("chunked", "\0Transfer-Encoding: chunked"),
        (
            "and_a_frame",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\u{1}\0",
        ),
        ("plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "old_version",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
            Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ),
        ("old_http", "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"),
        ("post", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        (
            "absolute",
            "GET http://a/b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: upgrade\r\n\r\n",
        ),
        ("bare_line_ends", "GET / HTTP/1.1\nHost: a\n\n"),
        ("no_http", "\u{16}\u{3}\u{1}\0tls"),
    ])
}

pub fn responses() -> Seeds {
    texts(&[
        (
            "switching",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        ),
        ("subprotocol", "\0Sec-WebSocket-Protocol: chat"),
        ("unasked_subprotocol", "\0Sec-WebSocket-Protocol: mail"),
        ("extensions", "\0Sec-WebSocket-Extensions: a; b=\"c\", chat; d"),
        ("extension_twice", "\0Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: a"),
        ("accept_twice", "\0Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (
            "wrong_accept",
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        ),
        (
            "and_a_frame",
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{2}hi",
        ),
        ("redirect", "HTTP/1.1 301 Moved\r\nLocation: wss://example.org/\r\n\r\n"),
        (
            "full",
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 9\r\n\r\nwe\tare\u{7}full",
        ),
        ("old_http", "HTTP/1.0 200 OK\r\n\r\n"),
        ("url", "ws://example.org/chat?room=1"),
        ("url_v6", "wss://[2001:db8::1]:9001/a%20b"),
        ("url_user", "ws://user@a:80/#fragment"),
    ])
}
