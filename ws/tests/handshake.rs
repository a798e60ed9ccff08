//! The opening handshake, requirement by requirement: what is accepted, what is refused, with
//! which status, and what the answers look like on the wire.

use hioload_ws_proto::handshake::{
    HeaderError, HeaderSlots, MAX_HEADERS, Refusal, Request, ResponseHead, Scanner, Status,
    parse_request,
};

/// RFC 6455 §1.2, as lines that a test changes.
const LINES: [&str; 8] = [
    "GET /chat HTTP/1.1",
    "Host: server.example.com",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Origin: http://example.com",
    "Sec-WebSocket-Protocol: chat, superchat",
    "Sec-WebSocket-Version: 13",
];

fn head(lines: &[&str]) -> Vec<u8> {
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// The example with the line that begins like `line` (up to its colon, or the request line)
/// replaced by it.
fn with(line: &str) -> Vec<u8> {
    let name = match line.split_once(':') {
        Some((name, _)) if !line.starts_with("GET ") => name,
        _ => "GET",
    };
    let mut lines = LINES;
    match lines.iter_mut().find(|other| other.starts_with(name)) {
        Some(other) => *other = line,
        None => return head(&[&lines[..], &[line]].concat()),
    }
    head(&lines)
}

fn without(name: &str) -> Vec<u8> {
    let lines: Vec<_> = LINES.into_iter().filter(|line| !line.starts_with(name)).collect();
    assert!(lines.len() < LINES.len());
    head(&lines)
}

fn and(lines: &[&str]) -> Vec<u8> {
    head(&[&LINES[..], lines].concat())
}

fn accept<T>(head: &[u8], look: impl FnOnce(Request<'_>) -> T) -> T {
    match parse_request(head, &mut HeaderSlots::new()) {
        Ok(request) => look(request),
        Err(refusal) => panic!("{refusal}: {}", String::from_utf8_lossy(head)),
    }
}

fn refuse(head: &[u8]) -> u16 {
    match parse_request(head, &mut HeaderSlots::new()) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(head)),
        Err(refusal) => refusal.status().get(),
    }
}

#[test]
fn the_example_of_the_rfc_is_accepted_and_answered_as_there() {
    accept(&head(&LINES), |request| {
        assert_eq!((request.method(), request.target()), ("GET", "/chat"));
        assert_eq!((request.path(), request.query()), ("/chat", None));
        assert_eq!(request.host(), "server.example.com");
        assert_eq!(request.origin(), Some("http://example.com"));
        assert_eq!(request.key(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(request.subprotocols().eq(["chat", "superchat"]));
        assert_eq!(request.extensions().next(), None);
        assert_eq!(request.headers().count(), 7);
        assert_eq!(request.header("SEC-websocket-version"), Some(&b"13"[..]));
        assert_eq!(request.header("cookie"), None);

        let mut response = ResponseHead::new(&request);
        response.subprotocol("chat").unwrap();
        response.header("X-Node", "7").unwrap();
        let mut out = Vec::new();
        response.write(&mut out);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
            Sec-WebSocket-Protocol: chat\r\nX-Node: 7\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);

        let mut window = [0; 512];
        let len = response.write_into(&mut window).unwrap();
        assert_eq!(window[..len], out);
        assert_eq!(response.write_into(&mut window[..len - 1]), None);
    });
}

#[test]
fn targets_in_origin_and_absolute_form_are_taken_apart() {
    for (target, path, query, host) in [
        ("/", "/", None, "server.example.com"),
        ("/a%20b?x=1&y=?", "/a%20b", Some("x=1&y=?"), "server.example.com"),
        ("/?", "/", Some(""), "server.example.com"),
        ("//a/b", "//a/b", None, "server.example.com"),
        ("ws://other:81/p?q", "/p", Some("q"), "other:81"),
        ("HTTP://[::1]:9001", "/", None, "[::1]:9001"),
        ("wss://other?q", "/", Some("q"), "other"),
    ] {
        accept(&with(&format!("GET {target} HTTP/1.1")), |request| {
            assert_eq!((request.path(), request.query()), (path, query), "{target}");
            assert_eq!((request.host(), request.target()), (host, target));
        });
    }
    for target in ["*", "chat", "host:80", "/a#b", "ftp://host/", "http:///", "http://u@h/", "/é"]
    {
        assert_eq!(refuse(&with(&format!("GET {target} HTTP/1.1"))), 400, "{target}");
    }
}

#[test]
fn only_get_over_http_1_1_opens_a_websocket() {
    for method in ["POST", "HEAD", "OPTIONS", "get", "CONNECT"] {
        assert_eq!(refuse(&with("GET /chat HTTP/1.1").replace_method(method)), 405, "{method}");
    }
    assert_eq!(refuse(&with("GET /chat HTTP/1.0")), 400);
    assert_eq!(refuse(&with("GET /chat HTTP/2.0")), 505);
    assert_eq!(refuse(&with("GET /chat HTTP/0.9")), 505);
    assert_eq!(refuse(&with("GET /chat HTTX/1.1")), 400);
    assert_eq!(refuse(&with("GET /chat")), 400);
    assert_eq!(refuse(b"PRI * HTTP/2.0\r\n\r\n"), 505);
}

trait ReplaceMethod {
    fn replace_method(&self, method: &str) -> Vec<u8>;
}

impl ReplaceMethod for Vec<u8> {
    fn replace_method(&self, method: &str) -> Vec<u8> {
        [method.as_bytes(), &self[3..]].concat()
    }
}

#[test]
fn exactly_one_host_is_needed() {
    assert_eq!(refuse(&without("Host")), 400);
    assert_eq!(refuse(&and(&["Host: server.example.com"])), 400);
    for host in ["", "a b", "a/b", "user@a", "a,\tb", "é"] {
        assert_eq!(refuse(&with(&format!("Host: {host}"))), 400, "{host}");
    }
    accept(&with("Host: [::1]:9001"), |request| assert_eq!(request.host(), "[::1]:9001"));
}

#[test]
fn upgrade_and_connection_are_lists_in_any_case_over_any_lines() {
    for line in ["Upgrade: WebSocket", "Upgrade: h2c, websocket", "Upgrade: ,,websocket ,"] {
        accept(&with(line), |_| ());
    }
    for line in ["Connection: keep-alive, Upgrade", "Connection: UPGRADE", "Connection:upgrade"] {
        accept(&with(line), |_| ());
    }
    let mut split = with("Connection: keep-alive");
    split.truncate(split.len() - 2);
    split.extend_from_slice(b"connection: x,upgrade\r\n\r\n");
    accept(&split, |_| ());
    for line in ["Upgrade: websockets", "Upgrade: web socket", "Upgrade: websocket/13"] {
        assert_eq!(refuse(&with(line)), 426, "{line}");
    }
    assert_eq!(refuse(&with("Connection: keep-alive")), 400);
    assert_eq!(refuse(&without("Connection")), 400);
}

#[test]
fn a_plain_get_is_told_to_upgrade() {
    let plain = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let refusal = parse_request(plain, &mut HeaderSlots::new()).map(|_| ()).unwrap_err();
    let mut out = Vec::new();
    refusal.write(&mut out);
    let expected = "HTTP/1.1 426 Upgrade Required\r\nConnection: close, Upgrade\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Length: 27\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\n\r\nthis is a WebSocket server\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn only_version_13_is_spoken() {
    for line in ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 8"] {
        assert_eq!(refuse(&with(line)), 426);
    }
    assert_eq!(refuse(&without("Sec-WebSocket-Version")), 426);
    assert_eq!(refuse(&and(&["Sec-WebSocket-Version: 13"])), 426);
}

#[test]
fn the_key_is_16_bytes_in_base64_exactly_once() {
    assert_eq!(refuse(&without("Sec-WebSocket-Key")), 400);
    assert_eq!(refuse(&and(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])), 400);
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZSEh",
        "dGhlIHNhbXBsZSBub25j!Q==",
        "dGhlIHNhbXBsZSBub25jZQ==, x",
        "dGhlIHNhbXBsZSBub25jZWRnaGxoZ2tqaGdramhna2pnaGtqZ2hrZ2hrag==",
    ] {
        assert_eq!(refuse(&with(&format!("Sec-WebSocket-Key: {key}"))), 400, "{key}");
    }
    accept(&with("Sec-WebSocket-Key:   AAAAAAAAAAAAAAAAAAAAAA==  "), |request| {
        assert_eq!(request.key(), "AAAAAAAAAAAAAAAAAAAAAA==");
    });
    // Bits that do not count may be set.
    accept(&with("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB=="), |_| ());
}

#[test]
fn a_handshake_has_no_body() {
    accept(&and(&["Content-Length: 0"]), |_| ());
    for line in
        ["Content-Length: 1", "Content-Length: -0", "Content-Length:", "Transfer-Encoding: chunked"]
    {
        assert_eq!(refuse(&and(&[line])), 400, "{line}");
    }
}

#[test]
fn subprotocols_are_different_tokens() {
    for list in ["a b", "a, a", "a/b", "\"a\""] {
        let line = format!("Sec-WebSocket-Protocol: {list}");
        assert_eq!(refuse(&with(&line)), 400, "{list}");
    }
    assert_eq!(refuse(&and(&["Sec-WebSocket-Protocol: chat"])), 400, "again on another line");
    accept(&and(&["Sec-WebSocket-Protocol: ,v2.json ,, x"]), |request| {
        assert!(request.subprotocols().eq(["chat", "superchat", "v2.json", "x"]));
    });
}

#[test]
fn extensions_come_with_their_parameters() {
    let lines = [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; a=\"10\" ;b = 3, foo",
        "Sec-WebSocket-Extensions: bar;x=\"y\"",
    ];
    accept(&and(&lines), |request| {
        let offers: Vec<_> = request.extensions().collect();
        let names: Vec<_> = offers.iter().map(|offer| offer.name()).collect();
        assert_eq!(names, ["permessage-deflate", "foo", "bar"]);
        let expected = [("client_max_window_bits", None), ("a", Some("10")), ("b", Some("3"))];
        assert!(offers[0].params().eq(expected));
        assert_eq!(offers[1].params().count(), 0);
        assert!(offers[2].params().eq([("x", Some("y"))]));
    });
    for list in
        ["a;", "a;=1", "a b", "a; b=", "a; b=\"x", "a; b=\"x;y\"", "a; b=\"x,y\"", "a; \"b\"", "é"]
    {
        let line = format!("Sec-WebSocket-Extensions: {list}");
        assert_eq!(refuse(&and(&[&line])), 400, "{list}");
    }
}

#[test]
fn at_most_one_origin_is_told() {
    accept(&without("Origin"), |request| assert_eq!(request.origin(), None));
    assert_eq!(refuse(&and(&["Origin: http://evil.example"])), 400);
}

#[test]
fn malformed_http_is_refused() {
    for line in ["No colon", " folded: x", "a b: c", "x : y", "é: x", "x: a\u{1}b", "x: a\rb"] {
        assert_eq!(refuse(&and(&[line])), 400, "{line}");
    }
    assert_eq!(refuse(b""), 400);
    assert_eq!(refuse(b"\r\n\r\n"), 400);
    assert_eq!(refuse(&[head(&LINES), b"x".to_vec()].concat()), 400);
    let other = and(&["X-Latin: \u{fc}"]);
    accept(&other, |request| assert_eq!(request.header("x-latin"), Some("ü".as_bytes())));
}

#[test]
fn the_number_of_header_lines_is_bounded() {
    let most = vec!["X: y"; MAX_HEADERS - LINES.len() + 1];
    accept(&and(&most), |request| assert_eq!(request.headers().count(), MAX_HEADERS));
    let more = vec!["X: y"; MAX_HEADERS - LINES.len() + 2];
    assert_eq!(refuse(&and(&more)), 431);
}

#[test]
fn slots_serve_one_request_after_another() {
    let mut slots = HeaderSlots::new();
    assert_eq!(parse_request(&head(&LINES), &mut slots).unwrap().headers().count(), 7);
    let bare = without("Origin");
    let request = parse_request(&bare, &mut slots).unwrap();
    assert_eq!((request.headers().count(), request.origin()), (6, None));
}

/// Feeds `stream` byte by byte and all at once; both must say the same.
fn scan(stream: &[u8], limit: usize) -> Result<Option<usize>, Refusal> {
    let whole = Scanner::new().feed(stream, limit);
    let mut scanner = Scanner::new();
    let mut steps = (0..=stream.len()).map(|end| scanner.feed(&stream[..end], limit));
    let bytewise = steps.find(|step| *step != Ok(None)).unwrap_or(Ok(None));
    assert_eq!(bytewise, whole);
    whole
}

#[test]
fn the_scanner_finds_the_end_with_frames_behind_it() {
    let head = head(&LINES);
    let stream = [&head[..], b"\x81\x85\r\n\r\nxxxxx"].concat();
    assert_eq!(scan(&stream, 8192), Ok(Some(head.len())));
    assert_eq!(scan(&head[..head.len() - 1], 8192), Ok(None));
    assert_eq!(scan(&stream, head.len()), Ok(Some(head.len())));
    assert!(size_of::<Scanner>() <= 4);
}

#[test]
fn a_head_above_the_limit_is_refused_with_431() {
    let head = head(&LINES);
    let refusal = scan(&head, head.len() - 1).unwrap_err();
    assert_eq!(refusal.status(), Status::HEADERS_TOO_LARGE);
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 9000]].concat();
    assert_eq!(scan(&endless, 8192).unwrap_err().status().get(), 431);
}

#[test]
fn what_is_not_http_is_refused_on_its_first_bytes() {
    let long_method = "A".repeat(21);
    for stream in [
        &b"\x16\x03\x01"[..],
        b"\0",
        b" GET",
        b"\r\n",
        b"GE\tT",
        b"GET\r",
        b"\x81\x85",
        long_method.as_bytes(),
    ] {
        let refusal = scan(stream, 8192).unwrap_err();
        assert_eq!(refusal.status(), Status::BAD_REQUEST, "{stream:x?}");
    }
    assert_eq!(scan(b"GET / HTTP/1.1\nHost: a", 8192).unwrap_err().status().get(), 400);
    assert_eq!(scan(&[b'A'; 20], 8192), Ok(None));
}

#[test]
fn a_response_holds_only_what_was_offered_and_what_is_a_header() {
    let head = and(&["Sec-WebSocket-Extensions: foo; x"]);
    let mut response = accept(&head, |request| ResponseHead::new(&request));
    for name in ["other", "", "chat,superchat", "chat\r\nX: y"] {
        assert_eq!(response.subprotocol(name), Err(HeaderError::NotOffered), "{name}");
    }
    assert_eq!(response.extension("bar"), Err(HeaderError::NotOffered));
    assert_eq!(response.extension("foo; x\r\nSet-Cookie: y"), Err(HeaderError::Value));
    assert_eq!(response.extension("foo, foo"), Err(HeaderError::Value));
    assert_eq!(response.extension("foo; x=1"), Ok(()));
    for (name, value, error) in [
        ("", "x", HeaderError::Name),
        ("a b", "x", HeaderError::Name),
        ("a:", "x", HeaderError::Name),
        ("a\r\nb", "x", HeaderError::Name),
        ("a", "x\r\ny", HeaderError::Value),
        ("a", "x\0", HeaderError::Value),
        ("a", " x", HeaderError::Value),
        ("sec-websocket-accept", "x", HeaderError::Reserved),
        ("CONNECTION", "close", HeaderError::Reserved),
    ] {
        assert_eq!(response.header(name, value), Err(error), "{name}: {value}");
    }
    assert_eq!(response.header("Set-Cookie", "a=b; c=\u{fc}"), Ok(()));
    assert_eq!(response.header("Set-Cookie", "d=e"), Ok(()));
    let mut out = Vec::new();
    response.write(&mut out);
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with(
        "=\r\nSec-WebSocket-Extensions: foo; x=1\r\nSet-Cookie: a=b; c=ü\r\nSet-Cookie: d=e\r\n\r\n"
    ));
}

#[test]
fn every_refusal_is_a_whole_response() {
    for status in 300..=599 {
        let mut refusal = Refusal::new(Status::new(status).unwrap(), "why not");
        refusal.header("Retry-After", "5").unwrap();
        assert_eq!(refusal.header("Content-Length", "0"), Err(HeaderError::Reserved));
        let mut out = Vec::new();
        refusal.write(&mut out);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(&out).unwrap().unwrap();
        assert_eq!(response.code, Some(status));
        assert!(!response.reason.unwrap().is_empty());
        let value = |name| {
            let header = response.headers.iter().find(|header| header.name == name);
            header.map(|header| str::from_utf8(header.value).unwrap())
        };
        assert_eq!(value("Content-Length"), Some(&*(out.len() - head).to_string()));
        assert_eq!(&out[head..], b"why not\n");
        assert_eq!(value("Retry-After"), Some("5"));
        assert_eq!(value("Allow").is_some(), status == 405);
        assert_eq!(value("Upgrade").is_some(), status == 426);
    }
    assert_eq!(Status::new(200), None);
    assert_eq!(Status::new(600), None);
}
