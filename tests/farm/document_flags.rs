//! All documents: the flags in their commands, the examples of the manual pages, and the list of
//! commands that no test runs.

use std::collections::BTreeSet;
use std::path::Path;

use peipkg_manager::Config;
use peipkg_manager::Recipe;
use regex_lite::Regex;

use crate::support::desk::{Desk, help_of};
use crate::support::follow::NOT_RUN;
use crate::support::pages::{self, fenced, page};
use crate::support::tools::Tools;

/// The commands of our programs in `text`, each as words from the program's name to the command's
/// end.
fn calls(text: &str) -> Vec<Vec<String>> {
    let call = Regex::new(
        r"(?:^|[\s`(]|bin/)(peipkg-(?:manager|build|repo))((?:[ \t]+|\\\n)[^|&;`)\n\\]*(?:\\\n[^|&;`)\n\\]*)*)",
    )
    .unwrap();
    call.captures_iter(text)
        .map(|found| {
            let words = found[2]
                .split_whitespace()
                .filter(|word| *word != "\\")
                .take_while(|word| !word.starts_with('#'));
            std::iter::once(&found[1]).chain(words).map(str::to_owned).collect()
        })
        .collect()
}

#[test]
fn pages_use_only_flags_that_exist() {
    let tools = Tools::get();
    // Check long flags, and the manager's with one dash; others may belong to a program that runs
    // ours.
    let flag = Regex::new(r"--?[a-z][a-z-]+").unwrap();
    let flags = |program: &str| -> BTreeSet<String> {
        let program = match program {
            "peipkg-manager" => &tools.manager,
            "peipkg-build" => &tools.build,
            _ => &tools.repo,
        };
        flag.find_iter(&help_of(program)).map(|found| found.as_str().to_owned()).collect()
    };
    let known = ["peipkg-manager", "peipkg-build", "peipkg-repo"].map(|program| (program, flags(program)));
    let mut checked = BTreeSet::new();
    let manuals = ["peipkg-manager.8", "peipkg-manager.toml.5", "peipkg-build.1", "peipkg-repo.1"]
        .map(|name| format!("docs/{name}"));
    for path in pages::all().into_iter().chain(manuals) {
        for call in calls(&page(&path)) {
            let (_, flags) = known.iter().find(|(program, _)| *program == call[0]).unwrap();
            for word in call[1..].iter().filter_map(|word| flag.find(word).filter(|found| found.start() == 0))
            {
                assert!(flags.contains(word.as_str()), "{path}: {call:?}: there is no {}", word.as_str());
                checked.insert(format!("{} {}", call[0], word.as_str()));
            }
        }
    }
    assert!(checked.len() > 20, "{checked:?}");
}

#[test]
fn commands_listed_as_not_run_are_still_in_a_page() {
    let scripts: Vec<String> =
        pages::all().iter().flat_map(|path| fenced(path)).filter_map(|block| block.script()).collect();
    for (start, _) in NOT_RUN {
        let is_it = |line: &str| line.strip_prefix("sudo ").unwrap_or(line).contains(start);
        assert!(scripts.iter().any(|script| script.lines().any(is_it)), "no page has {start:?} any more");
    }
    // Scripts that a page names exist.
    let name = Regex::new(r"contrib/[a-z-]+/[a-z_.-]+\.(sh|py)").unwrap();
    for found in scripts
        .iter()
        .flat_map(|script| name.find_iter(script).map(|found| found.as_str().to_owned()).collect::<Vec<_>>())
    {
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&found).exists(), "{found}");
    }
}

/// The literal examples of the manual page at `path`.
fn displays(path: &str) -> Vec<String> {
    let page = page(path);
    let displays = page.split("\n.Bd -literal").skip(1).map(|rest| {
        let (_, rest) = rest.split_once('\n').unwrap();
        rest.split("\n.Ed").next().unwrap().replace("\\&", "").replace("\\e", "\\")
    });
    displays.collect()
}

#[test]
fn manual_page_examples_work() {
    let [sweep, plan, cron, line] = displays("docs/peipkg-manager.8").try_into().unwrap();
    let desk = Desk::new();
    desk.key();
    desk.recipe();
    desk.version("1.0.0", &[]);
    // The plan that comes first is right.
    assert!(desk.run(&plan).contains("recipe=hello plan=build version=1.0.0-1 tag=v1.0.0"));
    let log = desk.run(&sweep);
    let built: Vec<&str> = log.lines().filter(|line| line.contains("msg=\"starting build\"")).collect();
    let after_time = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    assert_eq!(built.iter().map(|line| after_time(line)).collect::<Vec<_>>(), [after_time(&line)]);
    let (path, job) = cron.split_once('\n').unwrap();
    assert!(path.starts_with("PATH=/"), "{cron}");
    // Five fields of time and a user.
    let command = job.splitn(7, ' ').nth(6).unwrap();
    desk.run(command);

    let [config, recipe] = displays("docs/peipkg-manager.toml.5").try_into().unwrap();
    Config::parse(Path::new("config.toml"), &config).unwrap();
    let mut warnings = Vec::new();
    let recipe = Recipe::parse("libz", Path::new("libz"), &recipe, 0, &mut warnings).unwrap();
    assert!(warnings.is_empty() && recipe.github_webhook);
}

#[test]
fn examples_of_the_tools_manual_pages_work() {
    let desk = Desk::new();
    let prepare = "mkdir recipes hello-1.3.2\ncp -R contrib/recipes/hello recipes/\n\
        openssl genpkey -algorithm ed25519 -out farm.pem";
    desk.run(prepare);
    desk.write("hello-1.3.2/hello.sh", "#!/bin/sh\necho hello\n");
    let [build] = displays("docs/peipkg-build.1").try_into().unwrap();
    let printed = desk.run(&build);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let is_package = printed.starts_with('/') && printed.ends_with("/out/hello_1.3.2-1_noarch.peipkg\n");
    assert!(is_package, "{printed}");
    let [repo] = displays("docs/peipkg-repo.1").try_into().unwrap();
    assert!(desk.run(&repo).contains("1 in the archive"));
}

#[test]
fn example_of_each_key_is_right() {
    let page = page("docs/peipkg-manager.toml.5");
    let mut checked = 0;
    for section in page.split("\n.Ss [").skip(1) {
        let (header, body) = section.split_once('\n').unwrap();
        let header = format!("[{header}");
        let examples = body.split("\n.It Ic ").skip(1).map(|item| {
            let key = item.lines().next().unwrap();
            let example =
                item.split("\nExample").nth(1).unwrap_or_else(|| panic!("{header} {key} has no example"));
            let example = example.lines().nth(1).unwrap().trim_start_matches(".Li ");
            let example =
                example.replace("\\(dq", "\"").replace("\\(aq", "'").replace("\\e", "\\").replace("\\&", "");
            // Take the first of several values.
            let example =
                example.split_once("\" ,").map_or(example.clone(), |(first, _)| format!("{first}\""));
            assert!(example.starts_with(&format!("{key} = ")), "{header} {key}: {example}");
            checked += 1;
            format!("{example}\n")
        });
        let text = format!("{header}\n{}", examples.collect::<String>());
        let problems: Vec<String> = match header.as_str() {
            "[upstream]" | "[watch]" | "[[package]]" => {
                let result = Recipe::parse("r", Path::new("r"), &text, 0, &mut Vec::new());
                result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
            }
            _ => {
                let result = Config::parse(Path::new("c"), &text);
                result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
            }
        };
        // The rest of the configuration and the keys of a grant are missing.
        let is_expected = |problem: &&String| {
            problem.contains("missing section") || problem.contains("no [[signing_key]] is declared")
        };
        assert_eq!(problems.iter().find(|problem| !is_expected(problem)), None, "{text}");
    }
    assert!(checked > 20, "{checked}");
}
