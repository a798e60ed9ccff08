//! Header values that are lists (RFC 9110 §5.6): tokens, subprotocols, extensions with their
//! parameters. Values are checked once, in [`parse_request`](super::parse_request); the iterators
//! walk them without copies and cannot fail.

use super::headers::Values;

/// RFC 9110 §5.6.2: the characters of a token.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Optional white space (RFC 9110 §5.6.3) off both ends.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Where the first `separator` is that does not stand inside a quoted string.
fn find_unquoted(text: &str, separator: u8) -> Option<usize> {
    let mut quoted = false;
    text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == separator && !quoted
    })
}

/// The elements of a list of tokens over all lines of a header; empty elements are skipped
/// (RFC 9110 §5.6.1.2).
pub(crate) fn elements<'b>(values: Values<'b>) -> impl Iterator<Item = &'b str> + Clone {
    values.text().flat_map(|line| line.split(',')).map(trim).filter(|element| !element.is_empty())
}

/// The subprotocols that the client offers, most wanted first.
#[derive(Debug, Clone)]
pub struct Subprotocols<'b> {
    lines: Values<'b>,
    line: &'b str,
}

impl<'b> Subprotocols<'b> {
    pub(crate) fn new(lines: Values<'b>) -> Self {
        Self { lines, line: "" }
    }
}

impl<'b> Iterator for Subprotocols<'b> {
    type Item = &'b str;

    fn next(&mut self) -> Option<&'b str> {
        next_element(&mut self.lines, &mut self.line, |line| line.find(','))
    }
}

/// The extensions that the client offers, in its order of preference.
#[derive(Debug, Clone)]
pub struct Extensions<'b> {
    lines: Values<'b>,
    line: &'b str,
}

impl<'b> Extensions<'b> {
    pub(crate) fn new(lines: Values<'b>) -> Self {
        Self { lines, line: "" }
    }
}

impl<'b> Iterator for Extensions<'b> {
    type Item = ExtensionOffer<'b>;

    fn next(&mut self) -> Option<ExtensionOffer<'b>> {
        let text = next_element(&mut self.lines, &mut self.line, |line| find_unquoted(line, b','))?;
        Some(ExtensionOffer { text })
    }
}

/// The next element that is not empty, over the lines of a header.
fn next_element<'b>(
    lines: &mut Values<'b>,
    line: &mut &'b str,
    find_comma: impl Fn(&str) -> Option<usize>,
) -> Option<&'b str> {
    loop {
        if line.is_empty() {
            *line = lines.next_text()?;
        }
        let (element, rest) = match find_comma(line) {
            Some(comma) => (&line[..comma], &line[comma + 1..]),
            None => (*line, ""),
        };
        *line = rest;
        let element = trim(element);
        if !element.is_empty() {
            return Some(element);
        }
    }
}

/// One offered extension: its name and parameters (RFC 6455 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtensionOffer<'b> {
    text: &'b str,
}

impl<'b> ExtensionOffer<'b> {
    /// Reads `name; param; param=value; param="value"`. `None`: it is not that. A quoted value
    /// must be a token once unquoted, as the RFC demands, and may hold no escapes, which only a
    /// character that needs none could be written with.
    pub fn parse(text: &'b str) -> Option<Self> {
        let offer = Self { text: trim(text) };
        let legal = is_token(offer.name())
            && offer.params().all(|(name, value)| is_token(name) && value.is_none_or(is_token));
        legal.then_some(offer)
    }

    /// The offer as it was sent.
    pub fn text(&self) -> &'b str {
        self.text
    }

    /// The registered name, such as `permessage-deflate`.
    pub fn name(&self) -> &'b str {
        trim(self.text.split(';').next().unwrap_or_default())
    }

    /// The parameters in their order, quoted values without their quotes.
    pub fn params(&self) -> Params<'b> {
        Params { rest: self.text.split_once(';').map(|(_, params)| params) }
    }
}

/// The parameters of an [`ExtensionOffer`]: name, and value if there is one.
#[derive(Debug, Clone)]
pub struct Params<'b> {
    rest: Option<&'b str>,
}

impl<'b> Iterator for Params<'b> {
    type Item = (&'b str, Option<&'b str>);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest?;
        // A `;` in quotes is cut here too: what is left of it is no token, and refused.
        let (param, rest) = match text.split_once(';') {
            Some((param, rest)) => (param, Some(rest)),
            None => (text, None),
        };
        self.rest = rest;
        Some(split_param(param))
    }
}

/// `name`, `name=value` or `name="value"`; a quote that does not pair stays and is no token.
fn split_param(param: &str) -> (&str, Option<&str>) {
    match param.split_once('=') {
        None => (trim(param), None),
        Some((name, value)) => {
            let value = trim(value);
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (trim(name), Some(unquoted.unwrap_or(value)))
        }
    }
}
