//! The client's opening handshake, requirement by requirement of RFC 6455 §4.1: what is asked on
//! the wire, which answers are taken, which are refused and how that is told; and what holds for a
//! client afterwards.

use hioload_ws_proto::handshake::{
    ClientHandshake, ClientRequest, HandshakeError, HeaderError, HeaderSlots, MAX_HEADERS,
    RequestError, Response, ResponseHead, Scanner, WsUrl, parse_request,
};
use hioload_ws_proto::mask::MaskKeys;
use hioload_ws_proto::{Decoder, Item, Limits, Opcode, ProtocolError, Role, Rules, encode};
use proptest::prelude::*;

/// RFC 6455 §1.3.
const NONCE: [u8; 16] = *b"the sample nonce";
const LIMIT: usize = 8192;

/// RFC 6455 §1.2, as lines that a test changes.
const LINES: [&str; 5] = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    "Sec-WebSocket-Protocol: chat",
];

fn request() -> ClientRequest {
    let mut request = ClientRequest::new("server.example.com", "/chat").unwrap();
    request.header("Origin", "http://example.com").unwrap();
    request.subprotocol("chat").unwrap();
    request.subprotocol("superchat").unwrap();
    request
}

fn start() -> ClientHandshake {
    request().start(NONCE, &mut Vec::new())
}

fn head(lines: &[&str]) -> Vec<u8> {
    (lines.join("\r\n") + "\r\n\r\n").into_bytes()
}

/// The example with the line that begins like `line`, up to its colon, replaced by it.
fn with(line: &str) -> Vec<u8> {
    let name = line.split_once(':').map_or("HTTP/", |(name, _)| name);
    let mut lines = LINES;
    *lines.iter_mut().find(|other| other.starts_with(name)).expect("a line of the example") = line;
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

/// Feeds `stream` byte by byte and all at once; both must say the same.
fn feed(stream: &[u8], limit: usize) -> Result<Option<usize>, HandshakeError> {
    let whole = start().feed(stream, limit);
    let mut handshake = start();
    let mut steps = (0..=stream.len()).map(|end| handshake.feed(&stream[..end], limit));
    let bytewise = steps.find(|step| *step != Ok(None)).unwrap_or(Ok(None));
    assert_eq!(bytewise, whole);
    whole
}

fn accept<T>(head: &[u8], look: impl FnOnce(Response<'_>) -> T) -> T {
    let mut handshake = start();
    assert_eq!(handshake.feed(head, LIMIT), Ok(Some(head.len())));
    match handshake.check(head, &mut HeaderSlots::new()) {
        Ok(response) => look(response),
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(head)),
    }
}

fn refuse(head: &[u8]) -> HandshakeError {
    match start().check(head, &mut HeaderSlots::new()) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(head)),
        Err(error) => error,
    }
}

#[test]
fn the_request_is_the_one_of_the_rfc() {
    let mut out = b"kept".to_vec();
    request().start(NONCE, &mut out);
    let expected = "keptGET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nOrigin: http://example.com\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn our_server_understands_what_our_client_asks_and_the_other_way_round() {
    let url = WsUrl::parse("ws://[::1]:9001/a%20b?c=d&e").unwrap();
    let mut asked = ClientRequest::new(url.authority(), url.target()).unwrap();
    asked.subprotocol("v2.json").unwrap();
    asked.extension("foo; x=1; y=\"2\"").unwrap();
    asked.extension("foo").unwrap();
    asked.extension("bar").unwrap();
    asked.header("Authorization", "Bearer \u{fc}").unwrap();
    let mut out = Vec::new();
    let nonce = MaskKeys::seeded(5).nonce().unwrap();
    let mut handshake = asked.start(nonce, &mut out);

    assert_eq!(Scanner::new().feed(&out, LIMIT), Ok(Some(out.len())));
    let mut slots = HeaderSlots::new();
    let request = parse_request(&out, &mut slots).unwrap();
    assert_eq!((request.host(), request.path()), ("[::1]:9001", "/a%20b"));
    assert_eq!(request.query(), Some("c=d&e"));
    assert_eq!(request.header("authorization"), Some("Bearer \u{fc}".as_bytes()));
    assert!(request.subprotocols().eq(["v2.json"]));
    assert!(request.extensions().map(|offer| offer.name()).eq(["foo", "foo", "bar"]));

    let mut answer = ResponseHead::new(&request);
    answer.subprotocol("v2.json").unwrap();
    answer.extension("bar").unwrap();
    answer.extension("foo; y=2").unwrap();
    answer.header("Set-Cookie", "a=b").unwrap();
    let mut bytes = Vec::new();
    answer.write(&mut bytes);
    let len = handshake.feed(&bytes, LIMIT).unwrap().unwrap();
    let mut slots = HeaderSlots::new();
    let response = handshake.check(&bytes[..len], &mut slots).unwrap();
    assert_eq!((response.status(), response.subprotocol()), (101, Some("v2.json")));
    assert_eq!(response.header("set-cookie"), Some(&b"a=b"[..]));
    assert_eq!(response.headers().count(), 6);
    let extensions: Vec<_> = response.extensions().collect();
    assert_eq!((extensions[0].name(), extensions[1].name()), ("bar", "foo"));
    assert!(extensions[1].params().eq([("y", Some("2"))]));
}

#[test]
fn one_request_starts_many_handshakes_each_with_its_own_key() {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let request = request();
    request.start(NONCE, &mut one);
    let other = request.start([0; 16], &mut two);
    assert_eq!(one.len(), two.len());
    let answer = head(&LINES);
    let error = other.check(&answer, &mut HeaderSlots::new()).map(|_| ()).unwrap_err();
    assert_eq!(error, HandshakeError::AcceptWrong);
}

#[test]
fn a_request_holds_only_what_belongs_there() {
    for host in ["", "a b", "a/b", "user@a", "a\r\nX: y", "\u{e9}"] {
        let error = ClientRequest::new(host, "/").map(|_| ()).unwrap_err();
        assert_eq!(error, RequestError::Host, "{host}");
    }
    for target in ["", "chat", "*", "http://a/", "/a b", "/a#b", "/\r\nX: y", "/\u{e9}"] {
        let error = ClientRequest::new("a", target).map(|_| ()).unwrap_err();
        assert_eq!(error, RequestError::Target, "{target}");
    }
    let mut request = request();
    for (name, value, error) in [
        ("", "x", HeaderError::Name),
        ("a\r\nb", "x", HeaderError::Name),
        ("a", "x\r\ny", HeaderError::Value),
        ("a", " x", HeaderError::Value),
        ("HOST", "x", HeaderError::Reserved),
        ("sec-websocket-key", "x", HeaderError::Reserved),
        ("Sec-WebSocket-Version", "8", HeaderError::Reserved),
        ("Sec-WebSocket-Protocol", "x", HeaderError::Reserved),
        ("Sec-WebSocket-Extensions", "x", HeaderError::Reserved),
        ("Content-Length", "5", HeaderError::Reserved),
        ("Transfer-Encoding", "chunked", HeaderError::Reserved),
    ] {
        assert_eq!(request.header(name, value), Err(error.into()), "{name}: {value}");
    }
    for name in ["", "a b", "a,b", "chat", "superchat"] {
        assert_eq!(request.subprotocol(name), Err(RequestError::Subprotocol), "{name}");
    }
    assert_eq!(request.subprotocol("Chat"), Ok(()), "case counts");
    for offer in ["", "a;", "a b", "a, b", "a\r\nX: y", "a; b=\"c d\""] {
        assert_eq!(request.extension(offer), Err(RequestError::Extension), "{offer}");
    }
}

#[test]
fn the_example_of_the_rfc_opens_the_connection() {
    accept(&head(&LINES), |response| {
        assert_eq!((response.status(), response.subprotocol()), (101, Some("chat")));
        assert_eq!(response.header("UPGRADE"), Some(&b"websocket"[..]));
        assert_eq!(response.headers().count(), 4);
        assert_eq!(response.extensions().count(), 0);
    });
    accept(&with("HTTP/1.1 101 "), |_| ());
    accept(&with("HTTP/1.1 101"), |_| ());
}

#[test]
fn upgrade_is_websocket_in_any_case_and_alone() {
    accept(&with("Upgrade: WebSocket"), |_| ());
    for line in [
        "Upgrade: h2c",
        "Upgrade: websocket, h2c",
        "Upgrade: websockst",
        "Upgrade: websockets",
        "Upgrade:",
    ] {
        assert_eq!(refuse(&with(line)), HandshakeError::Upgrade, "{line}");
    }
    assert_eq!(refuse(&without("Upgrade")), HandshakeError::Upgrade);
    assert_eq!(refuse(&and(&["Upgrade: websocket"])), HandshakeError::Upgrade);
}

#[test]
fn connection_lists_upgrade_in_any_case_over_any_lines() {
    for line in ["Connection: upgrade", "Connection: keep-alive, UPGRADE", "Connection: ,upgrade,"]
    {
        accept(&with(line), |_| ());
    }
    accept(&and(&["connection: close"]), |_| ());
    for line in ["Connection: close", "Connection: upgraded", "Connection:"] {
        assert_eq!(refuse(&with(line)), HandshakeError::Connection, "{line}");
    }
    assert_eq!(refuse(&without("Connection")), HandshakeError::Connection);
}

#[test]
fn the_accept_value_answers_our_key_exactly_once() {
    accept(&with("Sec-WebSocket-Accept:   s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \t"), |_| ());
    for value in [
        "S3PPLMBITXAQ9KYGZZHZRBK+XOO=",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=",
        "dGhlIHNhbXBsZSBub25jZQ==",
        "\u{e9}",
    ] {
        let line = format!("Sec-WebSocket-Accept: {value}");
        assert_eq!(refuse(&with(&line)), HandshakeError::AcceptWrong, "{value}");
    }
    assert_eq!(refuse(&without("Sec-WebSocket-Accept")), HandshakeError::AcceptCount);
    assert_eq!(refuse(&with("Sec-WebSocket-Accept:")), HandshakeError::AcceptCount);
    assert_eq!(refuse(&and(&[LINES[3]])), HandshakeError::AcceptCount);
}

#[test]
fn a_subprotocol_is_one_that_was_offered_or_none() {
    accept(&without("Sec-WebSocket-Protocol"), |response| {
        assert!(response.subprotocol().is_none())
    });
    accept(&with("Sec-WebSocket-Protocol: superchat"), |response| {
        assert_eq!(response.subprotocol(), Some("superchat"));
    });
    for name in ["other", "Chat", "chat, superchat", "chat,superchat", "", "\u{e9}"] {
        let line = format!("Sec-WebSocket-Protocol: {name}");
        let error = HandshakeError::SubprotocolNotOffered(name.into());
        assert_eq!(refuse(&with(&line)), error, "{name}");
    }
    for second in ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol:"] {
        assert_eq!(refuse(&and(&[second])), HandshakeError::SubprotocolCount);
    }
    let bare = ClientRequest::new("a", "/").unwrap().start(NONCE, &mut Vec::new());
    for line in ["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol:"] {
        let answer = with(line);
        let error = bare.check(&answer, &mut HeaderSlots::new()).map(|_| ()).unwrap_err();
        assert!(matches!(error, HandshakeError::SubprotocolNotOffered(_)), "{error}");
    }
}

#[test]
fn extensions_are_some_that_were_offered_each_once() {
    let refused = |list: &str, offers: &[&str]| {
        let mut request = request();
        offers.iter().for_each(|offer| request.extension(offer).unwrap());
        let answer = and(&[&format!("Sec-WebSocket-Extensions: {list}")]);
        let handshake = request.start(NONCE, &mut Vec::new());
        handshake.check(&answer, &mut HeaderSlots::new()).map(|response| {
            let names = response.extensions().map(|extension| extension.name().to_owned());
            names.collect::<Vec<_>>().join(" ")
        })
    };
    let not_offered = |name: &str| Err(HandshakeError::ExtensionNotOffered(name.into()));
    assert_eq!(refused("foo", &[]), not_offered("foo"));
    assert_eq!(refused("", &[]), Ok(String::new()));
    let offers = ["foo; x=1", "foo", "bar"];
    assert_eq!(refused("foo; x=2", &offers), Ok("foo".into()));
    assert_eq!(refused("bar, foo", &offers), Ok("bar foo".into()));
    assert_eq!(refused("baz", &offers), not_offered("baz"));
    assert_eq!(refused("Foo", &offers), not_offered("Foo"));
    assert_eq!(refused("foo, x", &offers), not_offered("x"));
    assert_eq!(refused("foo; a, foo", &offers), Err(HandshakeError::ExtensionTwice("foo".into())));
    for list in ["foo;", "foo; x=", "foo bar", "foo; x=\"a;b\"", "\u{e9}", "foo; x=\"y"] {
        assert_eq!(refused(list, &offers), Err(HandshakeError::ExtensionMalformed), "{list}");
    }
}

#[test]
fn a_second_line_of_extensions_and_one_that_is_not_text_are_seen() {
    let mut request = request();
    request.extension("foo").unwrap();
    let handshake = request.start(NONCE, &mut Vec::new());
    let check = |lines: &[u8]| {
        let answer = [&head(&LINES)[..head(&LINES).len() - 2], lines, b"\r\n\r\n"].concat();
        handshake.check(&answer, &mut HeaderSlots::new()).map(|_| ()).unwrap_err()
    };
    let two = b"Sec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: bar";
    assert_eq!(check(two), HandshakeError::ExtensionNotOffered("bar".into()));
    let latin = b"Sec-WebSocket-Extensions: foo\r\nSec-WebSocket-Extensions: \xfc";
    assert_eq!(check(latin), HandshakeError::ExtensionMalformed);
}

#[test]
fn a_refusal_is_told_with_status_phrase_and_reason() {
    let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 16\r\n\r\nnot your origin\n";
    let len = feed(answer, LIMIT).unwrap().unwrap();
    assert_eq!(len, answer.len() - 16);
    let error = refuse(&answer[..len]).with_body(&answer[len..]);
    assert_eq!(error.to_string(), "the server refused with 403 Forbidden: \"not your origin\"");
    let (status, phrase, body) = (403, "Forbidden".into(), "not your origin".into());
    assert_eq!(error, HandshakeError::Refused { status, phrase, body });
    // An older HTTP may refuse as well, and that is what matters.
    let old = refuse(b"HTTP/1.0 404 File not found\r\n\r\n").to_string();
    assert_eq!(old, "the server refused with 404 File not found");
    // A status other than 101 is none, however much of a handshake follows it.
    assert!(matches!(refuse(&with("HTTP/1.1 200 OK")), HandshakeError::Refused { .. }));
}

#[test]
fn a_redirect_is_told_and_not_followed() {
    let error = refuse(b"HTTP/1.1 301 Moved\r\nLocation: wss://b.example/x\r\n\r\n");
    let (status, phrase, location) = (301, "Moved".into(), "wss://b.example/x".into());
    assert_eq!(error, HandshakeError::Redirected { status, phrase, location });
}

#[test]
fn only_http_1_1_switches() {
    assert_eq!(refuse(&with("HTTP/1.0 101 Switching Protocols")), HandshakeError::OldHttp);
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"] {
        let answer = with(&format!("{version} 101 Switching Protocols"));
        assert_eq!(refuse(&answer), HandshakeError::OtherHttp, "{version}");
    }
}

#[test]
fn malformed_http_is_refused() {
    for answer in [
        and(&["No colon"]),
        and(&[" folded: x"]),
        and(&["a b: c"]),
        and(&["x : y"]),
        and(&["x: a\u{1}b"]),
        and(&["x: a\rb"]),
        with("HTTP/1.1 1O1 Switching"),
        with("HTTP/1.1 1010 Switching"),
        with("HTTP/1.1  101"),
        with("HTTP/1.1 10"),
        with("HTTP/1.1 101 \u{1}"),
        [head(&LINES), b"x".to_vec()].concat(),
        Vec::new(),
        b"\r\n\r\n".to_vec(),
    ] {
        let error = refuse(&answer);
        let shown = String::from_utf8_lossy(&answer);
        assert!(matches!(error, HandshakeError::Malformed(_)), "{error:?}: {shown}");
    }
}

#[test]
fn the_number_of_header_lines_is_bounded() {
    let most = vec!["X: y"; MAX_HEADERS + 1 - LINES.len()];
    accept(&and(&most), |response| assert_eq!(response.headers().count(), MAX_HEADERS));
    let more = vec!["X: y"; MAX_HEADERS + 2 - LINES.len()];
    assert_eq!(refuse(&and(&more)), HandshakeError::TooManyHeaders);
}

#[test]
fn what_is_not_http_is_refused_on_its_first_bytes() {
    for stream in [&b"\x15\x03\x01"[..], b"\0", b"\r\n", b"S", b"HTTX", b"http/", b"\x81\x05Hello"]
    {
        assert_eq!(feed(stream, LIMIT), Err(HandshakeError::NotHttp), "{stream:x?}");
    }
    assert_eq!(feed(b"HTTP/1.1 101 X\nUpgrade", LIMIT), Err(HandshakeError::BareLf));
    for end in 0..=5 {
        assert_eq!(feed(&b"HTTP/"[..end], LIMIT), Ok(None));
    }
}

#[test]
fn a_head_above_the_limit_is_refused() {
    let answer = head(&LINES);
    assert_eq!(feed(&answer, answer.len()), Ok(Some(answer.len())));
    for limit_bytes in 0..answer.len() {
        let error = HandshakeError::TooLong { limit_bytes };
        assert_eq!(feed(&answer, limit_bytes), Err(error));
    }
    // What lies behind the limit is not looked at, whether it is there already or not.
    assert_eq!(feed(b"HX", 1), Err(HandshakeError::TooLong { limit_bytes: 1 }));
}

#[test]
fn interim_responses_are_passed_over_within_the_limit() {
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100\r\n\r\n";
    let stream = [&interim[..], &head(&LINES), b"\x81\0"].concat();
    let len = feed(&stream, LIMIT).unwrap().unwrap();
    assert_eq!(len, stream.len() - 2);
    let mut handshake = start();
    assert_eq!(handshake.feed(&stream, LIMIT), Ok(Some(len)));
    let mut slots = HeaderSlots::new();
    let response = handshake.check(&stream[..len], &mut slots).unwrap();
    assert_eq!((response.headers().count(), response.header("link")), (4, None));
    assert_eq!(feed(&stream, len), Ok(Some(len)));
    assert_eq!(feed(&stream, len - 1), Err(HandshakeError::TooLong { limit_bytes: len - 1 }));
    for cut in 0..stream.len() {
        let mut handshake = start();
        let _ = handshake.feed(&stream[..cut], LIMIT);
        assert_eq!(handshake.feed(&stream, LIMIT), Ok(Some(len)), "cut at {cut}");
    }
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(400);
    assert_eq!(feed(&endless, LIMIT), Err(HandshakeError::TooLong { limit_bytes: LIMIT }));
    assert_eq!(feed(b"HTTP/1.1 100\r\n\r\nSSH", LIMIT), Err(HandshakeError::NotHttp));
}

#[test]
fn frames_behind_the_101_are_kept_wherever_the_stream_is_cut() {
    let answer = head(&LINES);
    let frames = b"\x81\x05Hello\x89\x00";
    let stream = [&answer[..], frames].concat();
    let rules = Rules::new(Role::Client, Limits::default());
    for cut in 0..=stream.len() {
        let mut handshake = start();
        let mut arrived = cut;
        let len = match handshake.feed(&stream[..cut], LIMIT).unwrap() {
            Some(len) => len,
            None => {
                arrived = stream.len();
                handshake.feed(&stream, LIMIT).unwrap().unwrap()
            }
        };
        assert_eq!(len, answer.len(), "cut at {cut}");
        assert!(handshake.check(&stream[..len], &mut HeaderSlots::new()).is_ok());
        if arrived == stream.len() {
            let mut bytes = stream[len..].to_vec();
            let (mut window, mut decoder) = (&mut bytes[..], Decoder::new());
            let first = decoder.next(&rules, &mut window);
            assert!(matches!(first, Ok(Some(Item::Message { opcode: Opcode::Text, .. }))));
            assert!(matches!(decoder.next(&rules, &mut window), Ok(Some(Item::Ping(_)))));
        }
    }
}

/// What a client makes of one frame of the server's.
fn decode(frame: &[u8]) -> Result<(), ProtocolError> {
    let rules = Rules::new(Role::Client, Limits { max_frame: 100_000, max_message: 100_000 });
    let mut bytes = frame.to_vec();
    let mut window = &mut bytes[..];
    Decoder::new().next(&rules, &mut window).map(|_| ())
}

#[test]
fn a_client_is_as_strict_about_frames_as_a_server_is() {
    let mut masked = [0; 20];
    for opcode in [Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong] {
        let key = MaskKeys::seeded(1).next_key().unwrap();
        let len = encode::encode_into(&mut masked, opcode, b"", Some(key)).unwrap();
        assert_eq!(decode(&masked[..len]), Err(ProtocolError::MaskForbidden), "{opcode:?}");
        let len = encode::encode_into(&mut masked, opcode, b"", None).unwrap();
        assert_eq!(decode(&masked[..len]), Ok(()), "{opcode:?}");
    }
    for (frame, error) in [
        (&b"\x81\x80"[..], ProtocolError::MaskForbidden),
        (b"\xc1\x00", ProtocolError::ReservedBit),
        (b"\xa1\x00", ProtocolError::ReservedBit),
        (b"\x91\x00", ProtocolError::ReservedBit),
        (b"\x83\x00", ProtocolError::ReservedOpcode(3)),
        (b"\x8b\x00", ProtocolError::ReservedOpcode(11)),
        (b"\x09\x00", ProtocolError::FragmentedControl),
        (b"\x89\x7e\x00\x7e", ProtocolError::ControlTooLong),
        (b"\x80\x00", ProtocolError::UnexpectedContinuation),
        (b"\x82\x7e\x00\x7d", ProtocolError::LengthNotMinimal),
        (b"\x82\x7f\0\0\0\0\0\0\xff\xff", ProtocolError::LengthNotMinimal),
        (b"\x82\x7f\x80\0\0\0\0\0\0\0", ProtocolError::LengthTopBit),
        (b"\x82\x7f\0\0\0\0\0\x01\x86\xa1", ProtocolError::FrameTooBig),
        (b"\x81\x01\xff", ProtocolError::InvalidUtf8),
        (b"\x88\x01\x03", ProtocolError::CloseTooShort),
        (b"\x88\x02\x03\xed", ProtocolError::BadCloseCode(1005)),
    ] {
        assert_eq!(decode(frame), Err(error), "{frame:x?}");
    }
}

/// Lines that are near enough to a handshake to get past its first checks.
fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::sample::select(&LINES[1..]).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::sample::select(&[
            "Sec-WebSocket-Extensions: foo; x=\"",
            "Sec-WebSocket-Extensions: ,foo;a=b, foo",
            "Sec-WebSocket-Protocol: superchat",
            "HTTP/1.1 100",
            "",
        ][..]).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #[test]
    fn nothing_that_a_server_sends_does_harm(
        code in proptest::sample::select(&["101", "101 X", "403 No", "302", "\u{e9}"][..]),
        lines in proptest::collection::vec(line(), 0..8),
        flip in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        let mut stream = format!("HTTP/1.1 {code}\r\n").into_bytes();
        stream.extend([lines.join(&b"\r\n"[..]), b"\r\n\r\n".to_vec()].concat());
        if let Some((index, byte)) = flip {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        if let Ok(Some(len)) = feed(&stream, LIMIT) {
            let mut handshake = start();
            let _ = handshake.feed(&stream, LIMIT);
            let _ = handshake.check(&stream[..len], &mut HeaderSlots::new()).map(|_| ());
        }
        let _ = start().check(&stream, &mut HeaderSlots::new()).map(|_| ());
    }

    #[test]
    fn random_bytes_open_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = feed(&bytes, 300);
        prop_assert!(start().check(&bytes, &mut HeaderSlots::new()).is_err());
        let text = String::from_utf8_lossy(&bytes);
        let _ = WsUrl::parse(&text);
        let _ = WsUrl::parse(&format!("ws://{text}"));
    }

    #[test]
    fn what_a_url_says_can_always_be_asked_for(url in "wss?://[a-z0-9.:\\[\\]]{1,12}[/?#a-z%]{0,8}") {
        if let Ok(url) = WsUrl::parse(&url) {
            prop_assert!(ClientRequest::new(url.authority(), url.target()).is_ok());
            prop_assert_eq!(WsUrl::parse(&url.to_string()), Ok(url));
        }
    }
}
