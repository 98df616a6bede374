//! Lists the processes of the machine. Must not change any.

use std::fs;

use rustix::process::Pid;

/// A process that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) pid: Pid,
    /// The number of its parent; 0 if it has none.
    pub(super) parent: i32,
    pub(super) group: Pid,
    /// The name of its program, cut by the system.
    pub(super) name: String,
}

/// Returns the processes that have not ended; none if `/proc` cannot be read.
pub(super) fn all() -> impl Iterator<Item = Live> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = number(entry.file_name().to_str()?)?;
        // A name may be any bytes.
        let stat = fs::read(entry.path().join("stat")).ok()?;
        parse(&String::from_utf8_lossy(&stat), pid)
    })
}

/// Reads the `stat` of the process `pid`. Returns nothing if it has ended.
fn parse(stat: &str, pid: Pid) -> Option<Live> {
    // The name is in parentheses, and may contain parentheses and spaces.
    let (head, tail) = stat.rsplit_once(") ")?;
    let mut fields = tail.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = number(fields.next()?)?;
    let name = head.split_once('(')?.1.to_owned();
    (!matches!(state, "Z" | "X")).then_some(Live { pid, parent, group, name })
}

/// Reads the number of a process or group. Returns nothing for -1, the group of a process that is
/// just ending, and for 0, the group of one of the kernel's.
fn number(text: &str) -> Option<Pid> {
    let raw = text.parse().ok().filter(|raw| *raw > 0)?;
    Pid::from_raw(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_any_name_is_read() {
        let pid = Pid::from_raw(7).unwrap();
        let read = |stat: &str| {
            let Live { parent, group, name, .. } = parse(stat, pid)?;
            Some((parent, group.as_raw_nonzero().get(), name))
        };
        assert_eq!(read("7 (a) b (c) S 3 5 5 0"), Some((3, 5, "a) b (c".into())));
        assert_eq!(read("7 (sh) Z 3 5 5 0"), None);
        assert_eq!(read("7 (sh) S 3 0 0 0"), None);
        assert_eq!(read("7 (sh) R 0 -1 -1 0"), None);
        assert_eq!(read(""), None);
    }
}
