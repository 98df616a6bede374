//! Tables of configurations: the values of good ones, the problems of bad ones.

use super::keys::InjectedKey;
use std::time::Duration;

use super::*;
use crate::recipe::Recipe;

/// The required keys.
const MINIMAL: &str = r#"[manager]
id = "farm-1"
recipes_dir = "/etc/farm/recipes"
state_dir = "/var/lib/farm"
[repo]
name = "peios"
[signing]
key_file = "/etc/farm/key"
[poll]
default_interval = "1h"
"#;

/// The number of lines of [`MINIMAL`].
const LINES: usize = 10;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let problems = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
    Config::parse(Path::new("c.toml"), text).map_err(problems)
}

#[track_caller]
fn check_problems(text: &str, expected: &[&str]) {
    let found = parse(text).err().unwrap_or_default();
    let expected: Vec<String> = expected.iter().map(|problem| format!("c.toml:{problem}")).collect();
    assert_eq!(found, expected);
}

/// Checks the problems of the minimal configuration with `more` behind it. Counts lines in `more`.
#[track_caller]
fn check_more(more: &str, expected: &[&str]) {
    let found = parse(&format!("{MINIMAL}{more}")).err().unwrap_or_default();
    let number = |problem: &&str| {
        let (line, message) = problem.split_once(':').unwrap();
        format!("c.toml:{}:{message}", line.parse::<usize>().unwrap() + LINES)
    };
    assert_eq!(found, expected.iter().map(number).collect::<Vec<_>>());
}

/// Checks the problems of the minimal configuration with `line` instead of the line of `key`.
#[track_caller]
fn check_line(key: &str, line: &str, expected: &[&str]) {
    let old = MINIMAL.lines().find(|line| line.starts_with(key)).unwrap();
    check_problems(&MINIMAL.replace(old, line), expected);
}

#[test]
fn keys_missing_have_their_defaults() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(
        config,
        Config {
            path: "c.toml".into(),
            manager: Manager {
                id: "farm-1".into(),
                recipes_dir: "/etc/farm/recipes".into(),
                state_dir: "/var/lib/farm".into(),
            },
            repo: Repo { name: "peios".into(), description: String::new() },
            key_file: "/etc/farm/key".into(),
            upload: Upload::None,
            http: Http { addr: None, webhook_secret_file: None },
            poll: Poll { default_interval: Duration::from_hours(1), jobs: 8 },
            build: Build { timeout: Some(Duration::from_hours(24)), jobs: 1, reproduce: false },
            git: GitLimits { memory: Some(1 << 30), source: Some(4 << 30) },
            notify: Notify::default(),
            binary_keys: Vec::new(),
            grants: BTreeMap::new(),
        }
    );
    let empty = "[upload]\nbackend = \"\"\nremote = \"\"\n[http]\naddr = \"\"\nwebhook_secret_file = \"\"\n[build]\n\
         [git]\nmemory_limit = \"\"\n[notify]\n";
    assert_eq!(parse(&format!("{MINIMAL}{empty}")), Ok(config));
}

#[test]
fn config_with_every_key_is_read() {
    let more = r#"jobs = 2
[upload]
backend = "rclone"
remote = "r2:pkgs.peios.org"
[http]
addr = ":8080"
webhook_secret_file = "/etc/farm/secret"
[build]
timeout = "90m"
[[signing_key]]
name = "tcb"
private = "/etc/farm/tcb"
pubkey_env = "TCB_PUBKEY"
[[signing_key]]
name = "boot"
private = "/etc/farm/boot"
[[grant]]
recipe = "init"
inject_pubkey = ["tcb"]
sign = ["boot", "tcb"]
[[grant]]
recipe = "kernel"
"#;
    let text = format!("{MINIMAL}{more}").replace("[signing]", "description = \"All of it\"\n[signing]");
    let config = parse(&text).unwrap();
    assert_eq!(config.repo.description, "All of it");
    assert_eq!(config.upload, Upload::Rclone { remote: "r2:pkgs.peios.org".into() });
    assert_eq!(config.http.addr, Some(ListenAddr { host: None, port: 8080 }));
    assert_eq!(config.http.webhook_secret_file.as_deref(), Some(Path::new("/etc/farm/secret")));
    assert_eq!((config.poll.jobs, config.build.timeout), (2, Some(Duration::from_mins(90))));
    let (tcb, boot) = ("/etc/farm/tcb", "/etc/farm/boot");
    let key = |name: &str, private: &str, env: Option<&str>| BinaryKey {
        name: name.into(),
        private: private.into(),
        pubkey_env: env.map(str::to_owned),
    };
    let (tcb_key, boot_key) = (key("tcb", tcb, Some("TCB_PUBKEY")), key("boot", boot, None));
    assert_eq!(config.binary_keys, [boot_key.clone(), tcb_key.clone()]);
    let injected = InjectedKey { env: "TCB_PUBKEY".into(), private: tcb.into() };
    let grant = Grant { line: 29, inject_pubkey: vec![injected], sign: vec![boot_key, tcb_key] };
    assert_eq!(config.grant_of("init"), &grant);
    assert_eq!(config.grant_of("kernel"), &Grant { line: 33, ..Grant::default() });
    assert_eq!(config.grant_of("jq"), &Grant::default());
    let no_limit = parse(&format!("{MINIMAL}[build]\ntimeout = \"0s\"\n")).unwrap();
    assert_eq!(no_limit.build.timeout, None);
}

#[test]
fn git_limits_are_sizes_and_zero_is_none() {
    let read = |text: &str| {
        let limits = parse(&format!("{MINIMAL}[git]\n{text}\n")).unwrap().git;
        (limits.memory, limits.source)
    };
    assert_eq!(read("memory_limit = \"512MiB\""), (Some(512 << 20), Some(4 << 30)));
    assert_eq!(read("memory_limit = 16777216\nsource_limit = \"1TiB\""), (Some(16 << 20), Some(1 << 40)));
    assert_eq!(read("memory_limit = 0\nsource_limit = \"0\""), (None, None));
    assert_eq!(read("memory_limit = \"0GiB\""), (None, Some(4 << 30)));
    for (line, expected) in [
        (
            "memory_limit = \"1GB\"",
            "memory_limit: \"1GB\" is not a size: unknown unit \"GB\", use KiB, MiB, GiB or TiB",
        ),
        ("memory_limit = -1", "memory_limit must be at least 16MiB, or 0 for no limit, found -1"),
        ("memory_limit = 1.5", "memory_limit: expected a size such as \"1GiB\", found float"),
        ("memory_limit = \"15MiB\"", "memory_limit must be at least 16MiB, or 0 for no limit, found 15MiB"),
        ("source_limit = 1", "source_limit must be at least 1MiB, or 0 for no limit, found 1"),
    ] {
        check_more(&format!("[git]\n{line}\n"), &[&format!("2: [git] {expected}")]);
    }
    check_more(
        "[git]\nmemory = 1\n",
        &["2: unknown key \"memory\" in [git]; known here: memory_limit, source_limit"],
    );
}

#[test]
fn webhook_without_secret_is_a_problem() {
    let recipe = |text| Recipe::parse("jq", Path::new("/r/jq"), text, 0, &mut Vec::new()).unwrap();
    let recipes = [recipe(""), recipe("[watch]\ngithub_webhook = true\n")].map(std::sync::Arc::new);
    let check = |http: &str, recipes: &[std::sync::Arc<Recipe>]| {
        let config = parse(&format!("{MINIMAL}[http]\n{http}")).unwrap();
        let problem = config.http.check_secret(&config.path, recipes);
        problem.map(|problem| problem.to_string())
    };
    let expected =
        "c.toml: missing key \"webhook_secret_file\" in [http], recipe \"jq\" has github_webhook = true";
    assert_eq!(check("addr = \":80\"", &recipes).as_deref(), Some(expected));
    assert_eq!(check("addr = \":80\"", &recipes[..1]), None);
    assert_eq!(check("", &recipes), None);
    assert_eq!(check("addr = \":80\"\nwebhook_secret_file = \"/s\"", &recipes), None);
}

#[test]
fn keys_required_and_missing_are_named() {
    check_problems(
        "",
        &[
            "1: missing section [manager]",
            "1: missing section [repo]",
            "1: missing section [signing]",
            "1: missing section [poll]",
        ],
    );
    check_problems(
        "[manager]\n[repo]\n[signing]\n[poll]\n",
        &[
            "1: missing key \"id\" in [manager]",
            "1: missing key \"state_dir\" in [manager]",
            "1: missing key \"recipes_dir\" in [manager]",
            "2: missing key \"name\" in [repo]",
            "3: missing key \"key_file\" in [signing]",
            "4: missing key \"default_interval\" in [poll]",
        ],
    );
    check_line("id", "id = \"\"", &["2: [manager] id must not be empty"]);
    check_more(
        "[upload]\nbackend = \"rclone\"\n",
        &["2: missing key \"remote\" in [upload], backend \"rclone\" needs one"],
    );
    check_more(
        "[[signing_key]]\n[[grant]]\n",
        &[
            "1: missing key \"name\" in [[signing_key]]",
            "1: missing key \"private\" in [[signing_key]]",
            "2: missing key \"recipe\" in [[grant]]",
        ],
    );
}

#[test]
fn keys_unknown_are_named() {
    check_more(
        "job = 1\n[upload]\nx = 1\n[http]\nadr = 1\n[build]\ntime_out = 1\n[htp]\n",
        &[
            "1: unknown key \"job\" in [poll]; did you mean \"jobs\"?",
            "3: unknown key \"x\" in [upload]; known here: backend, remote",
            "5: unknown key \"adr\" in [http]; did you mean \"addr\"?",
            "7: unknown key \"time_out\" in [build]; did you mean \"timeout\"?",
            "8: unknown key \"htp\" at the top level; did you mean \"http\"?",
        ],
    );
    check_more(
        "[[signing_key]]\nname = \"a\"\nprivate = \"/a\"\npublic = 1\n[[grant]]\nrecipe = \"a\"\nsing = 1\n",
        &[
            "4: unknown key \"public\" in [[signing_key]]; known here: name, private, pubkey_env",
            "7: unknown key \"sing\" in [[grant]]; did you mean \"sign\"?",
        ],
    );
    check_line(
        "id",
        "id = \"x\"\nname = 1",
        &["3: unknown key \"name\" in [manager]; known here: id, state_dir, recipes_dir"],
    );
    check_line(
        "name",
        "name = \"x\"\nid = 1",
        &["7: unknown key \"id\" in [repo]; known here: name, description"],
    );
    check_line(
        "key_file",
        "key_file = \"/x\"\nkeyfile = 1",
        &["9: unknown key \"keyfile\" in [signing]; did you mean \"key_file\"?"],
    );
}

#[test]
fn values_wrong_are_named() {
    check_line("id", "id = 7", &["2: [manager] id: expected a string, found integer"]);
    check_line("id", "id = \"a\\nb\"", &["2: [manager] id: \"a\\nb\" has the control character '\\n'"]);
    check_line(
        "recipes_dir",
        "recipes_dir = \"recipes\"",
        &["3: [manager] recipes_dir must be an absolute path, found \"recipes\""],
    );
    check_line(
        "recipes_dir",
        "recipes_dir = \"/var/lib/farm//publish-set-aside/recipes\"",
        &[
            "3: [manager] recipes_dir must be outside the state_dir's \"publish-set-aside\", which the manager \
           fills itself, found \"/var/lib/farm//publish-set-aside/recipes\"",
        ],
    );
    check_line(
        "key_file",
        "key_file = \"/var/lib/farm/repo/key\"",
        &["8: [signing] key_file must be outside the state_dir's \"repo\", which the manager fills itself, \
           found \"/var/lib/farm/repo/key\""],
    );
    check_line(
        "default_interval",
        "default_interval = \"59s\"",
        &["10: [poll] default_interval must be at least 1m, found \"59s\""],
    );
    check_line(
        "default_interval",
        "default_interval = \"1 hour\"",
        &["10: [poll] default_interval: \"1 hour\" is not a duration: \
           unknown unit \" hour\", use ns, us, ms, s, m or h"],
    );
    check_line(
        "default_interval",
        "default_interval = 3600",
        &["10: [poll] default_interval: expected a string, found integer"],
    );
    for jobs in ["0", "-1", "257"] {
        let expected = format!("1: [poll] jobs must be from 1 to 256, found {jobs}");
        check_more(&format!("jobs = {jobs}\n"), &[&expected]);
    }
    check_more(
        "[build]\ntimeout = \"-1h\"\n",
        &["2: [build] timeout: \"-1h\" is not a duration: it must not be negative"],
    );
    check_more(
        "[http]\naddr = \"8080\"\nwebhook_secret_file = \"secret\"\n",
        &[
            "2: [http] addr: \"8080\" has no port, \
             expected HOST:PORT such as \":8080\", \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "3: [http] webhook_secret_file must be an absolute path, found \"secret\"",
        ],
    );
    check_more(
        "[upload]\nbackend = \"s3\"\n",
        &["2: [upload] backend must be \"none\" or \"rclone\", found \"s3\""],
    );
    let forms = "be \"name:path\", \":backend:path\" or an absolute path";
    let other = "; rename it in rclone's configuration, or write the parameters there";
    for (remote, wanted, advice) in [
        ("r2", forms, ""),
        ("-x:y", forms, ""),
        ("r2:a\\nb", forms, ""),
        ("./packages", forms, ""),
        ("r2/packages", forms, "; did you mean \"r2:packages\"?"),
        (":local:packages", forms, ""),
        ("größe,***:x", "have an ASCII name beside parameters", other),
    ] {
        let expected = format!("3: [upload] remote must {wanted}, found \"{remote}\"{advice}");
        check_more(&format!("[upload]\nbackend = \"rclone\"\nremote = \"{remote}\"\n"), &[&expected]);
    }
    let found = parse(&format!("{MINIMAL}a = b")).unwrap_err();
    assert!(matches!(&found[..], [one] if one.starts_with("c.toml:11: not valid TOML: ")), "{found:?}");
}

#[test]
fn keys_and_grants_are_checked() {
    check_more(
        r#"[[signing_key]]
name = "tcb"
private = "/k"
[[signing_key]]
name = "tcb"
private = "k"
pubkey_env = "PATH"
[[signing_key]]
name = "a=b"
private = "/k"
pubkey_env = "1X"
[[signing_key]]
name = "-k"
private = "/k"
[[signing_key]]
name = "v"
private = "/k"
pubkey_env = "PEIPKG_TAG"
"#,
        &[
            "5: [[signing_key]] name \"tcb\" is declared twice",
            "6: [[signing_key]] private must be an absolute path, found \"k\"",
            "7: [[signing_key]] pubkey_env \"PATH\" is a variable that every build has, choose another",
            "9: [[signing_key]] name must be ASCII letters, digits, '.', '_' or '-' \
             and start with a letter or digit, found \"a=b\"",
            "11: [[signing_key]] pubkey_env \"1X\" is not a variable's name, use ASCII letters, digits and '_'",
            "13: [[signing_key]] name must be ASCII letters, digits, '.', '_' or '-' \
             and start with a letter or digit, found \"-k\"",
            "18: [[signing_key]] pubkey_env \"PEIPKG_TAG\" is a variable of builds with export_version, choose another",
        ],
    );
    check_more(
        "[[grant]]\nrecipe = \"jq\"\nsign = [\"tcb\"]\n",
        &["3: [[grant]] sign: unknown signing key \"tcb\"; no [[signing_key]] is declared"],
    );
    check_more(
        r#"[[signing_key]]
name = "a"
private = "/a"
pubkey_env = "KEY"
[[signing_key]]
name = "b"
private = "/b"
pubkey_env = "KEY"
[[signing_key]]
name = "c"
private = "/c"
[[grant]]
recipe = "jq"
inject_pubkey = ["a", "b"]
sign = ["a", "a"]
[[grant]]
recipe = "jq"
inject_pubkey = ["c"]
sign = ["d"]
[[grant]]
recipe = "../x"
sign = "a"
"#,
        &[
            "14: [[grant]] inject_pubkey: two keys have the pubkey_env \"KEY\"",
            "15: [[grant]] sign names \"a\" twice",
            "17: [[grant]] recipe \"jq\" has two grants, one must list all",
            "18: [[grant]] inject_pubkey: signing key \"c\" has no pubkey_env to name the variable",
            "19: [[grant]] sign: unknown signing key \"d\"; declared are: a, b, c",
            "21: [[grant]] recipe \"../x\" does not start with an ASCII letter or digit",
            "22: [[grant]] sign: expected an array of strings, found string",
        ],
    );
}
