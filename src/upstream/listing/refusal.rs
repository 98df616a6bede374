//! Says why a server that is busy or broken gives no listing, with the server's own words.

use std::io::{self, Read};
use std::time::Duration;

use peipkg_format::duration;
use ureq::Body;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use ureq::http::{HeaderMap, StatusCode};

use crate::upstream::listing::pkt_line;

/// A page for people has no line that says why.
const PLAIN: &str = "text/plain";

/// The longest text that is read, in bytes: a longer one does not begin with the reason.
const MAX_TEXT: u64 = 4096;

/// Returns the reason of a poll's failure: the status, the pause that the server has `asked` for, and
/// the first line of its text.
pub(super) fn reason(
    status: StatusCode,
    asked: Option<Duration>,
    headers: &HeaderMap,
    body: Option<Body>,
) -> String {
    let asked = asked.map(|asked| format!(" and asks for a pause of {}", duration::format(asked)));
    let words = body.and_then(|body| words(headers, body)).map(|words| format!(": {words}"));
    let (asked, words) = (asked.unwrap_or_default(), words.unwrap_or_default());
    format!("the server answered with status {}{asked}{words}", status.as_u16())
}

/// Reads an answer to its end.
// Not inline: the buffer would take two pages of the stack of every listing.
#[inline(never)]
pub(super) fn discard(answer: &mut dyn Read) -> io::Result<()> {
    io::copy(answer, &mut io::sink()).map(drop)
}

/// Returns the first line of a short plain text.
fn words(headers: &HeaderMap, body: Body) -> Option<String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok())?;
    let is_plain = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PLAIN));
    let is_short = body.content_length().is_some_and(|length| length <= MAX_TEXT);
    if !is_plain || !is_short || headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    let mut text = Vec::new();
    // The reason stands at the beginning: a text that is cut off may have it.
    let _ = body.into_reader().take(MAX_TEXT).read_to_end(&mut text);
    text.split(|byte| *byte == b'\n').map(pkt_line::one_line).find(|line| !line.is_empty())
}
