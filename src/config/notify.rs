//! `[notify]`: the program that is told of each change of state. Pure.

use peipkg_format::strict_toml::Section;

/// `[notify]`: whom to tell of each change of state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notify {
    /// The program, a name on `PATH` or an absolute path, and its arguments; empty tells nobody.
    pub command: Vec<String>,
}

impl Notify {
    /// Reads `[notify]`; returns `None` if the key is wrong.
    pub(super) fn read(mut section: Section<'_, '_>) -> Option<Self> {
        let found = section.optional::<Vec<String>>("command");
        let problem = found.as_ref().and_then(|found| {
            let program = found.value.first()?;
            if let Some(argument) = found.value.iter().find(|argument| argument.contains('\0')) {
                return Some(format!("{argument:?} has a NUL character, which no argument may have"));
            }
            let is_name = !program.is_empty() && !program.contains('/');
            (!is_name && !program.starts_with('/'))
                .then(|| format!("the program must be a name on PATH or an absolute path, found {program:?}"))
        });
        if let (Some(found), Some(problem)) = (&found, &problem) {
            section.report(&found.span, format!("[notify] command: {problem}"));
        }
        section.deny_unknown_keys();
        let command = found.map(|found| found.value).unwrap_or_default();
        problem.is_none().then_some(Self { command })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Draft;

    #[track_caller]
    fn check(command: &str, expected: Result<&[&str], &str>) {
        let draft = Draft::read(Path::new("c.toml"), &format!("[notify]\ncommand = {command}\n"));
        let problem = draft.problems.iter().find(|problem| problem.line == Some(2));
        let found = draft.notify.as_ref().map(|notify| notify.command.iter().map(String::as_str).collect());
        match expected {
            Ok(expected) => {
                assert_eq!((found, problem), (Some(expected.to_vec()), None));
            }
            Err(expected) => {
                assert_eq!(problem.map(|problem| problem.message.as_str()), Some(expected));
            }
        }
    }

    #[test]
    fn command_is_a_program_and_its_arguments() {
        check(r#"["/usr/local/bin/tell", "a b", "", "-x"]"#, Ok(&["/usr/local/bin/tell", "a b", "", "-x"]));
        check(r#"["mail"]"#, Ok(&["mail"]));
        check("[]", Ok(&[]));
        let wrong = |found: &str| {
            format!("[notify] command: the program must be a name on PATH or an absolute path, found {found}")
        };
        check(r#"["./tell"]"#, Err(&wrong(r#""./tell""#)));
        check(r#"["bin/tell", "x"]"#, Err(&wrong(r#""bin/tell""#)));
        check(r#"["", "x"]"#, Err(&wrong(r#""""#)));
        let nul = r#"[notify] command: "a\0b" has a NUL character, which no argument may have"#;
        check(r#"["tell", "a\u0000b"]"#, Err(nul));
        for other in [r#""tell""#, "1", "[1]"] {
            let draft = Draft::read(Path::new("c.toml"), &format!("[notify]\ncommand = {other}\n"));
            assert!(draft.problems.iter().any(|problem| problem.line == Some(2)), "{other}");
        }
    }
}
