//! Says which answers the bytes of one connection must get, by the plainest reading of RFC 9112.

/// The body that the signature of a request signs.
pub(super) const SIGNED: &[u8] = b"{\"zen\":\"Keep it logically awesome.\"}";

const MAX_HEAD: usize = 8192;
const MAX_BODY: u128 = 25 * 1024 * 1024;

/// One answer.
#[derive(Debug)]
pub(super) struct Expected {
    /// The statuses that are right: a request with several faults may be refused for each.
    pub(super) statuses: Vec<u16>,
    /// Empty if the request is refused.
    pub(super) path: String,
    /// Whether the answer has no body.
    pub(super) is_head: bool,
    /// Whether it is the last one, and says so.
    pub(super) closes: bool,
    /// Whether the end of the stream may come first: a fault in a head that is not complete.
    pub(super) may_be_missing: bool,
}

impl Expected {
    fn refusal(statuses: &[u16], may_be_missing: bool) -> Self {
        let (statuses, path) = (statuses.to_vec(), String::new());
        Self { statuses, path, is_head: false, closes: true, may_be_missing }
    }
}

/// The lines of a head, and the bytes behind it.
struct Head<'a> {
    lines: Vec<&'a [u8]>,
    rest: &'a [u8],
    length: usize,
    /// The bytes after the last line's end, if the head is not complete.
    cut: Option<&'a [u8]>,
}

/// Returns the answers to all requests in `stream`, which then ends.
pub(super) fn expected(stream: &[u8], signature: &str) -> Vec<Expected> {
    let (mut rest, mut answers) = (stream, Vec::new());
    while !rest.is_empty() {
        let head = split(rest);
        let mut faults = faults_of_form(&head);
        if let Some(cut) = head.cut {
            if head.length >= MAX_HEAD {
                faults.push(431);
                answers.push(Expected::refusal(&faults, false));
            } else if !faults.is_empty() || !is_harmless(&head.lines, cut) {
                answers.push(Expected::refusal(&[400, 431, 505], true));
            }
            return answers;
        }
        if head.length > MAX_HEAD {
            faults.push(431);
        }
        if !faults.is_empty() {
            answers.push(Expected::refusal(&faults, false));
            return answers;
        }
        let Some((answer, body)) = answer(&head, signature) else { return answers };
        let closes = answer.closes;
        answers.push(answer);
        if closes {
            return answers;
        }
        rest = &head.rest[body..];
    }
    answers
}

/// Splits at line ends, which may lack the carriage return. Skips empty lines before the head.
fn split(stream: &[u8]) -> Head<'_> {
    let (mut rest, mut lines) = (stream, Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if !line.is_empty() {
            lines.push(line);
        } else if !lines.is_empty() {
            return Head { lines, rest, length: stream.len() - rest.len(), cut: None };
        }
    }
    Head { lines, rest: &[], length: stream.len(), cut: Some(rest) }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Splits a request line; nothing if it is none.
fn request_line(line: &[u8]) -> Option<(&str, &str, u8)> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii())?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_whole = words.next().is_none() && is_token(method.as_bytes());
    let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return None,
    };
    (is_whole && is_target).then_some((method, target, minor))
}

/// Splits a header line; nothing if it is none.
fn header(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let is_value = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 128..);
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    (is_token(name) && value.iter().all(is_value))
        .then(|| (String::from_utf8_lossy(name).to_lowercase(), value.trim_ascii()))
}

/// The statuses for faults that are no matter of meaning.
fn faults_of_form(head: &Head<'_>) -> Vec<u16> {
    let mut faults = Vec::new();
    if let Some((first, headers)) = head.lines.split_first() {
        if request_line(first).is_none() {
            faults.extend([400, 505]);
        }
        if headers.iter().any(|line| header(line).is_none()) {
            faults.push(400);
        }
        if headers.len() > 64 {
            faults.push(431);
        }
    }
    faults
}

/// Whether the beginning of a line could still become a right one.
fn is_harmless(lines: &[&[u8]], cut: &[u8]) -> bool {
    if let Some(line) = cut.strip_suffix(b"\r") {
        // Only the line feed is missing.
        let is_right = if lines.is_empty() { request_line(line).is_some() } else { header(line).is_some() };
        return line.is_empty() || is_right;
    }
    if cut.is_empty() {
        return true;
    }
    if lines.is_empty() {
        let mut words = cut.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        return method.is_some_and(is_token)
            && target.is_none_or(|target| {
                target.iter().all(u8::is_ascii_graphic) && (version.is_none() || !target.is_empty())
            })
            && version.is_none_or(|version| b"HTTP/1.1".starts_with(version) || version == b"HTTP/1.0")
            && words.next().is_none();
    }
    if cut.contains(&b':') { header(cut).is_some() } else { is_token(cut) }
}

/// Returns the answer to a well-formed head and the length of its body; nothing if the body is not
/// complete.
fn answer(head: &Head<'_>, signature: &str) -> Option<(Expected, usize)> {
    let (method, target, minor) = request_line(head.lines[0])?;
    let headers: Vec<_> = head.lines[1..].iter().filter_map(|line| header(line)).collect();
    let all = |wanted: &'static str| {
        headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| *value)
    };
    let mut faults = Vec::new();
    let mut lengths = Vec::new();
    for value in all("content-length") {
        match std::str::from_utf8(value) {
            Ok(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                lengths.push(digits.parse().unwrap_or(u128::MAX));
            }
            _ => faults.push(400),
        }
    }
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        faults.push(400);
    }
    if lengths.iter().any(|length| *length > MAX_BODY) {
        faults.push(413);
    }
    if all("transfer-encoding").next().is_some() {
        faults.push(411);
    }
    if all("expect").any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        faults.push(417);
    }
    let kept = ["content-type", "x-github-event", "x-hub-signature-256"].into_iter().flat_map(all);
    if kept.flatten().any(|byte| !byte.is_ascii_graphic() && *byte != b' ') {
        faults.push(400);
    }
    if !faults.is_empty() {
        return Some((Expected::refusal(&faults, false), 0));
    }
    let length = usize::try_from(lengths.first().copied().unwrap_or(0)).ok()?;
    let body = head.rest.get(..length)?;
    let mut closes = minor == 0;
    for option in all("connection").flat_map(|value| value.split(|byte| *byte == b',')) {
        match option.trim_ascii().to_ascii_lowercase().as_slice() {
            b"close" => closes = true,
            b"keep-alive" => closes = false,
            _ => {}
        }
    }
    let path = path_of(target);
    let status = match (path, method) {
        ("/" | "/healthz" | "/status" | "/metrics", "GET" | "HEAD") => 200,
        ("/webhooks/github", "POST") => {
            let is_signed = all("x-hub-signature-256").next() == Some(signature.as_bytes()) && body == SIGNED;
            // The signed payload has no repository, so it polls nothing, whatever its event is.
            if is_signed { 200 } else { 401 }
        }
        ("/" | "/healthz" | "/status" | "/metrics" | "/webhooks/github", _) => 405,
        _ => 404,
    };
    let (path, is_head) = (path.to_owned(), method == "HEAD");
    Some((Expected { statuses: vec![status], path, is_head, closes, may_be_missing: false }, length))
}

/// The path of a target, without scheme, host and query.
fn path_of(target: &str) -> &str {
    let lower = target.to_lowercase();
    let scheme = ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let target = match scheme {
        Some(scheme) => target[scheme.len()..].find('/').map_or("/", |start| &target[scheme.len() + start..]),
        None => target,
    };
    target.split('?').next().unwrap_or_default()
}
