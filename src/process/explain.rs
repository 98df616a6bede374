//! Finds the cause of a child's failure in its last output. Pure.

use peipkg_format::problem::{excerpt, shortened};

/// How much of a command that a program advises is shown, in characters: a command cut short is of
/// no use, and it has a path of the operator's.
const MAX_ADVICE: usize = 4096;

/// Words of lines that name an error.
const TELLING: [&str; 4] = ["error", "fatal", "***", "not found"];

/// Parts of lines that name an error but not its cause: they sum up earlier lines, or a build goes
/// on after them.
const SUMMING_UP: [&str; 6] = [
    "ld returned",
    "could not compile",
    "previous error",
    "subcommand failed",
    "subprocess-exited-with-error",
    // A build script may ask git for a missing history and go on.
    "not a git repository",
];

/// git's line if ssh or the server has ended the connection. Its advice about access follows, and
/// what ssh or the server has said goes before.
const NO_ANSWER: &str = "fatal: Could not read from remote repository.";

/// git-lfs's last line if the server lacks a file's content. An earlier line names the file's object.
const NO_CONTENT: &str = "error: failed to fetch some objects from ";

/// The end of git's last line if no credential helper has answered. One that failed has said why before.
const NO_CREDENTIALS: &str = ": terminal prompts disabled";

/// What rclone's last words begin with, after the time. Those of some stores go over several lines, the
/// further ones indented.
const RCLONE_FAILED: &str = " Failed to ";

/// Finds the cause of a failure in the last output: mostly its last line. A companion tool's own
/// line (`peipkg-build: …`) mostly reports that another program failed: then an earlier line has the
/// cause. git prints the cause first, and a remedy after it.
pub(crate) fn explain(tail: &str) -> String {
    let lines = || tail.lines().map(str::trim).filter(|line| !line.is_empty());
    let last = last_line(tail);
    let own = last.split_once(": ").map(|(tool, _)| tool).filter(|tool| tool.starts_with("peipkg-"));
    if let Some(tool) = own {
        let cause = cause(&lines().filter(|line| !line.starts_with(tool)).collect::<Vec<_>>());
        let last = excerpt(last);
        return cause
            .map_or_else(|| last.to_string(), |cause| format!("{last}; before that: {}", excerpt(cause)));
    }
    let is_git = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    if let Some(first) = lines().find(is_git) {
        if let Some(remedy) = lines().find(|line| line.starts_with("git config ")) {
            let remedy = shortened(remedy, MAX_ADVICE);
            return format!("{}; git advises, for the manager's user: {remedy}", excerpt(first));
        }
        if lines().any(|line| line == NO_ANSWER) {
            return excerpt(before_no_answer(lines()).unwrap_or(NO_ANSWER)).into_owned();
        }
        let is_cause = |line: &&str| {
            if first.starts_with(NO_CONTENT) { names_object(line) } else { first.ends_with(NO_CREDENTIALS) }
        };
        if let Some(cause) = lines().take_while(|line| *line != first).filter(is_cause).last() {
            return format!("{}; then: {}", excerpt(cause), excerpt(first));
        }
        if first != last {
            return format!("{}; then: {}", excerpt(first), excerpt(last));
        }
    }
    if let Some(words) = last_words_of_rclone(tail) {
        return excerpt(&words).into_owned();
    }
    let line = if is_make(last) { cause(&lines().collect::<Vec<_>>()).unwrap_or(last) } else { last };
    excerpt(line).into_owned()
}

/// Whether git-lfs names the object of a file in the line.
fn names_object(line: &str) -> bool {
    line.split(|c: char| !c.is_ascii_hexdigit()).any(|word| word.len() == 64)
}

/// Returns the last line with words before git's [`NO_ANSWER`]. Some servers draw frames.
fn before_no_answer<'t>(lines: impl Iterator<Item = &'t str>) -> Option<&'t str> {
    let has_words = |line: &&str| line.trim_start_matches("remote:").contains(char::is_alphanumeric);
    lines.take_while(|line| *line != NO_ANSWER).filter(has_words).last()
}

/// Returns rclone's last words in one line, if they go over several.
fn last_words_of_rclone(tail: &str) -> Option<String> {
    let start = tail.rfind(RCLONE_FAILED)? + 1;
    let (first, further) = tail[start..].trim_end().split_once('\n')?;
    let is_one = further.lines().all(|line| line.starts_with(char::is_whitespace));
    let lines =
        || further.lines().map(str::trim).fold(first.trim().to_owned(), |words, line| words + " " + line);
    is_one.then(lines)
}

/// Returns the last line that is not empty.
pub(super) fn last_line(tail: &str) -> &str {
    tail.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("(no output)")
}

/// Chooses the line of a build's output that most likely names the cause: the last that names an
/// error. A line of make's, which only says that a command failed, comes after those of commands.
fn cause<'t>(lines: &[&'t str]) -> Option<&'t str> {
    let last = |is_wanted: &dyn Fn(&str) -> bool| lines.iter().rev().copied().find(|line| is_wanted(line));
    let sums_up = |line: &str| SUMMING_UP.iter().any(|part| line.contains(part));
    last(&|line| !is_make(line) && !sums_up(line) && is_telling(line))
        // Such as `make: *** No rule to make target …`, but not `make: *** [Makefile:2: all] Error 1`.
        .or_else(|| last(&|line| is_make(line) && line.contains("*** ") && !line.contains("*** [")))
        .or_else(|| last(&|line| !is_make(line) && !sums_up(line)))
        .or_else(|| last(&|line| line.contains("***")))
        .or_else(|| lines.last().copied())
}

/// Whether make itself wrote the line.
fn is_make(line: &str) -> bool {
    let name = line.split([':', '[']).next().unwrap_or_default();
    let rest = &line[name.len()..];
    matches!(name, "make" | "gmake") && (rest.starts_with(':') || rest.contains("]: "))
}

/// Whether the line has one of [`TELLING`] as a word, in capitals or not. An option such as
/// `-Werror`, or a file such as `error.c`, does not count; an exception such as `ImportError` does.
fn is_telling(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    TELLING.iter().any(|word| {
        lower.match_indices(word).any(|(place, _)| {
            let (before, after) = (&line[..place], &line[place + word.len()..]);
            let is_exception = line[place..].starts_with('E') && before.ends_with(|c: char| c.is_lowercase());
            let begins =
                is_exception || !before.ends_with(|c: char| c.is_alphanumeric() || "-_/.".contains(c));
            let mut after = after.chars();
            let ends = match after.next() {
                Some('.') => after.next().is_none_or(|c| c == ' '),
                Some(c) => !c.is_alphanumeric() && !"-_/".contains(c),
                None => true,
            };
            begins && ends
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the cause in the output of a build script, to which the tool adds a line.
    #[track_caller]
    fn check_build(output: &[&str], expected: &str) {
        let own = "peipkg-build: build script x failed: exit status: 2";
        let tail = format!("{}\n{own}\n", output.join("\n"));
        assert_eq!(explain(&tail), format!("{own}; before that: {expected}"));
    }

    #[test]
    fn cause_of_a_build_is_the_compilers_error() {
        let error = "main.c:3:5: error: expected ';' before 'return'";
        check_build(&[error, "make: *** [Makefile:2: all] Error 1", "make: Leaving directory '/x'"], error);
        check_build(&[error, "  3 | int x", "    |      ^", "make[2]: Leaving directory '/x'"], error);
        check_build(
            &[error, "cc -Werror -o error.o error.c", "5 errors generated.", "gmake[1]: *** [x] Error 2"],
            error,
        );
        check_build(
            &["x.c:1:10: fatal error: zlib.h: No such file or directory", "compilation terminated."],
            "x.c:1:10: fatal error: zlib.h: No such file or directory",
        );
        check_build(&["/x/build.sh: 3: cmake: not found"], "/x/build.sh: 3: cmake: not found");
        check_build(
            &[
                "main.o: undefined reference to `foo'",
                "collect2: error: ld returned 1 exit status",
                "make: *** [all] Error 1",
            ],
            "main.o: undefined reference to `foo'",
        );
        check_build(
            &[
                "error[E0425]: cannot find value `x`",
                " --> src/main.rs:1",
                "error: could not compile `x` due to 1 previous error",
            ],
            "error[E0425]: cannot find value `x`",
        );
        check_build(
            &["ModuleNotFoundError: No module named 'x'", "running build"],
            "ModuleNotFoundError: No module named 'x'",
        );
        check_build(
            &["CMake Error at CMakeLists.txt:3 (message):", "-- Configuring incomplete, errors occurred!"],
            "CMake Error at CMakeLists.txt:3 (message):",
        );
        check_build(&["ERROR: no disk.", "cleaning up"], "ERROR: no disk.");
    }

    #[test]
    fn cause_of_a_build_without_an_error_is_makes_or_the_last_line() {
        check_build(
            &["cc -o x x.c", "make: *** No rule to make target 'y', needed by 'x'.  Stop."],
            "make: *** No rule to make target 'y', needed by 'x'.  Stop.",
        );
        check_build(
            &["cc x.c", "it breaks", "make[1]: *** [Makefile:1: x] Error 1", "make: Leaving directory '/x'"],
            "it breaks",
        );
        check_build(
            &["make: *** [Makefile:1: x] Killed", "make: Leaving directory '/x'"],
            "make: *** [Makefile:1: x] Killed",
        );
        check_build(&["make: Entering directory '/x'"], "make: Entering directory '/x'");
        check_build(&["fatal: not a git repository", "make: no rule"], "make: no rule");
        check_build(&["makeinfo: warning: x", "make[1: y"], "make[1: y");
        assert_eq!(explain("peipkg-build: no\n"), "peipkg-build: no");
        assert_eq!(explain("x.c:1: error: y\nmake: Leaving directory '/x'\n"), "x.c:1: error: y");
        assert_eq!(explain(""), "(no output)");
    }

    #[test]
    fn remedy_of_git_is_kept() {
        let path = format!("/srv/{}/x.git", "a".repeat(300));
        let fatal = "fatal: detected dubious ownership in repository at '/srv/x.git'";
        let tail = format!(
            "{fatal}\nTo add an exception for this directory, call:\n\n\tgit config --global --add safe.directory {path}\n\
             fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n\
             and the repository exists.\n"
        );
        let expected = format!(
            "{fatal}; git advises, for the manager's user: git config --global --add safe.directory {path}"
        );
        assert_eq!(explain(&tail), expected);
    }

    #[test]
    fn words_of_ssh_and_servers_are_kept() {
        let check = |before: &str, expected: &str| {
            let advice = "Please make sure you have the correct access rights\nand the repository exists.";
            assert_eq!(explain(&format!("{before}{NO_ANSWER}\n\n{advice}\n")), expected);
        };
        let refused = "git@git.example.org: Permission denied (publickey).";
        check(&format!("a banner\n{refused}\r\n"), refused);
        check("Host key verification failed.\n", "Host key verification failed.");
        let no_repository = "fatal: '/srv/x' does not appear to be a git repository";
        check(&format!("{no_repository}\n"), no_repository);
        let framed = "remote: \nremote: ====\nremote: ERROR: no such project\nremote: ====\nremote: \n";
        check(framed, "remote: ERROR: no such project");
        check("", NO_ANSWER);
    }

    #[test]
    fn object_that_git_lfs_misses_is_named() {
        let id = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let failed = "error: failed to fetch some objects from 'https://h/a.git/info/lfs'";
        let missing = format!("[{id}] Object does not exist on the server: [404] gone");
        let tail = format!("fetch: Fetching reference refs/tags/v1\n{missing}\n{failed}\n");
        assert_eq!(explain(&tail), format!("{missing}; then: {failed}"));
        assert_eq!(explain(&format!("a line\n{failed}\n")), failed);
    }

    #[test]
    fn words_of_a_credential_helper_that_fails_are_kept() {
        let fatal = "fatal: could not read Username for 'https://h': terminal prompts disabled";
        let words = "the vault is sealed";
        assert_eq!(explain(&format!("a line\n{words}\n{fatal}\n")), format!("{words}; then: {fatal}"));
        assert_eq!(explain(&format!("{fatal}\n")), fatal);
    }

    #[test]
    fn words_of_a_store_that_go_over_two_lines_are_kept() {
        let failed = "Failed to copy: SignatureDoesNotMatch: The signatures differ.";
        let status = "status code: 403, request id: , host id:";
        let tail = format!(
            "2026/11/27 13:26:33 ERROR : Attempt 1/1 failed with 1 errors and: x\n\t{status} \n\
             2026/11/27 13:26:33 {failed}\n\t{status} \n"
        );
        assert_eq!(explain(&tail), format!("{failed} {status}"));
        // What is not indented is of another message.
        assert_eq!(explain(&format!("x {failed}\nkilled\n")), "killed");
        assert_eq!(explain(&format!("x {failed}\n")), format!("x {failed}"));
    }

    #[test]
    fn line_of_the_log_is_cut_to_200_characters() {
        check_build(&[&"ü".repeat(500)], &format!("{}…{}", "ü".repeat(100), "ü".repeat(99)));
        assert_eq!(
            explain(&format!("fatal: {}\nlast", "x".repeat(500))).chars().count(),
            200 + "; then: last".len()
        );
    }

    #[test]
    fn words_of_errors_are_told_from_options_and_files() {
        for telling in
            ["Error", "x: FATAL: y", "a ***", "foo: not found.", "(error)", "ImportError: x", "error"]
        {
            assert!(is_telling(telling), "{telling}");
        }
        for silent in [
            "-Werror",
            "errors",
            "error.c",
            "src/error/x",
            "--error-limit=1",
            "terror",
            "my_error",
            "not founded",
        ] {
            assert!(!is_telling(silent), "{silent}");
        }
    }
}
