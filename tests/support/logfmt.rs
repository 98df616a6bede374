//! A strict reader of the manager's log lines. Operators' tools may rely on the form that it
//! accepts.

use std::collections::BTreeMap;

/// One log line: its fields, `time`, `level` and `msg` included.
pub type Event = BTreeMap<String, String>;

/// Reads one line, without its line end.
///
/// # Errors
/// When the line has another form, the keys do not begin with `time level msg`, a key repeats, or a level or time is malformed.
pub fn parse_line(line: &str) -> Result<Event, String> {
    let pairs = parse_pairs(line)?;
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).take(3).collect();
    if keys != ["time", "level", "msg"] {
        return Err(format!("starts with the keys {keys:?}"));
    }
    if !is_time(&pairs[0].1) {
        return Err(format!("{:?} is not a time like 2026-05-07T14:32:11.123Z", pairs[0].1));
    }
    if !["debug", "info", "warn", "error"].contains(&pairs[1].1.as_str()) {
        return Err(format!("unknown level {:?}", pairs[1].1));
    }
    let mut event = Event::new();
    for (key, value) in pairs {
        if event.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key:?} stands twice"));
        }
    }
    Ok(event)
}

/// Reads the lines of `text` that start with `time=`. Skips an unfinished last line, and other
/// lines, such as a start-up error; [`plain_lines`] returns those.
#[track_caller]
pub fn events(text: &str) -> Vec<Event> {
    finished_lines(text)
        .filter(|line| line.starts_with("time="))
        .map(|line| parse_line(line).unwrap_or_else(|error| panic!("bad log line: {error}\n{line}")))
        .collect()
}

/// The finished lines of `text` that are not log lines.
pub fn plain_lines(text: &str) -> Vec<&str> {
    finished_lines(text).filter(|line| !line.starts_with("time=")).collect()
}

fn finished_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// `key=value` pairs with exactly one space between them, in order.
fn parse_pairs(line: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = line;
    loop {
        let (key, after) = rest.split_once('=').ok_or_else(|| format!("no '=' in {rest:?}"))?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if key.is_empty() || !key.bytes().all(allowed) {
            return Err(format!("{key:?} is not a key"));
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => bare_value(after)?,
        };
        pairs.push((key.to_owned(), value));
        if after.is_empty() {
            return Ok(pairs);
        }
        rest = after.strip_prefix(' ').ok_or_else(|| format!("no space before {after:?}"))?;
    }
}

/// Reads a value without quotes: not empty, and without characters that need quotes.
fn bare_value(text: &str) -> Result<(String, &str), String> {
    let (value, after) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let needs_quotes = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '=' | '\\');
    if value.is_empty() || value.contains(needs_quotes) {
        return Err(format!("{value:?} needs quotes"));
    }
    Ok((value.to_owned(), after))
}

/// Reads the value after an opening quote, and returns it with the text after the closing one.
fn quoted_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return Ok((value, rest.as_str())),
            '\\' => value.push(escaped(&mut rest)?),
            c if c.is_control() => return Err(format!("bare control character {c:?}")),
            c => value.push(c),
        }
    }
    Err("the closing quote is missing".to_owned())
}

/// The character after a backslash: `\" \\ \n \r \t`, `\xHH` (ASCII only), `\uHHHH` and `\u{H…}`.
fn escaped(rest: &mut std::str::Chars<'_>) -> Result<char, String> {
    let hex = |digits: &str| {
        let good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| good);
        code.and_then(char::from_u32).ok_or_else(|| format!("{digits:?} is not a character's number"))
    };
    match rest.next() {
        Some(c @ ('"' | '\\')) => Ok(c),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('x') => hex(&rest.by_ref().take(2).collect::<String>()).and_then(|c| {
            if c.is_ascii() { Ok(c) } else { Err(format!("\\x escape of {c:?}, which is not ASCII")) }
        }),
        Some('u') if rest.as_str().starts_with('{') => {
            rest.next();
            hex(&rest.by_ref().take_while(|&c| c != '}').collect::<String>())
        }
        Some('u') => hex(&rest.by_ref().take(4).collect::<String>()),
        other => Err(format!("unknown escape {other:?}")),
    }
}

/// Whether `text` has the form `2026-05-07T14:32:11.123Z`.
fn is_time(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == form.len()
        && text.chars().zip(form.chars()).all(|(c, f)| if f == 'd' { c.is_ascii_digit() } else { c == f })
}
