//! Listing natively and by git: the same tags, within the same limits.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peipkg_manager::Git;
use peipkg_manager::Interrupt;
use peipkg_manager::PollFault;
use peipkg_manager::smart_http::{self, NativeError};
use peipkg_manager::{LISTING_DEADLINE, ListedTag, Lister, Tags, ref_name};

use crate::support::executable;
use crate::support::farm::Farm;
use crate::support::git_repo::{GitRepo, git_command, run};
use crate::support::optional::find_program;
use crate::support::recipes::Recipe;
use crate::support::smart_http::{Fault, RESULT, SmartHttp};
use crate::support::static_files::StaticFiles;

/// A git that records its arguments in `git.log` beside its directory, and then becomes the real
/// one.
const NOTING_GIT: &str = "#!/bin/sh\necho \"$*\" >> \"$(dirname \"$0\")/../git.log\"\nexec {real} \"$@\"\n";

/// A pattern that matches no tag, so that nothing is built.
const NOTHING: &str = "^nothing-(.*)$";

/// Returns each tag as `<name> <object id>[ <peeled id>]`, as git shows it.
fn by_git(url: &str) -> Vec<String> {
    let git = |options: &[&str]| {
        let listing = run(git_command(Path::new("/")).arg("ls-remote").args(options).args(["--", url]));
        let of_line = |line: &str| {
            let (id, name) = line.split_once("\trefs/tags/").expect("a tag");
            (name.to_owned(), id.to_owned())
        };
        listing.lines().map(of_line).collect::<Vec<_>>()
    };
    let all: HashMap<String, String> = git(&["--tags"]).into_iter().collect();
    let show = |(name, id): (String, String)| match all.get(&format!("{name}^{{}}")) {
        Some(peeled) => format!("{name} {id} {peeled}"),
        None => format!("{name} {id}"),
    };
    git(&["--tags", "--refs"]).into_iter().map(show).collect()
}

/// Returns each tag as [`by_git`] does.
fn show(tags: &Tags) -> Vec<String> {
    let show = |(name, tag): (&str, ListedTag)| {
        let ids = [Some(tag.object), tag.peeled];
        ids.iter().flatten().fold(name.to_owned(), |text, id| format!("{text} {id}"))
    };
    tags.listed().map(show).collect()
}

fn natively(url: &str) -> Result<Vec<String>, NativeError> {
    let client = smart_http::SmartHttp::new(1, LISTING_DEADLINE);
    let url = url.parse().unwrap();
    let tags = client.list_tags(&url, Instant::now(), |_| Ok(()), &Interrupt::new().unwrap())?;
    Ok(show(&tags))
}

/// Lists by our `git ls-remote`.
fn by_our_git(url: &str) -> Vec<String> {
    let git = Git::new(find_program("git").expect("git is on the PATH"), std::env::temp_dir());
    show(&git.list_tags(&url.parse().unwrap(), LISTING_DEADLINE, &Interrupt::new().unwrap()).unwrap())
}

#[track_caller]
fn check_same(url: &str, count: usize) {
    let tags = natively(url).unwrap();
    assert!(tags == by_git(url) && tags == by_our_git(url), "{url}");
    assert_eq!(tags.len(), count, "{url}");
}

#[test]
fn listing_shows_the_commits_of_tags_on_every_way() {
    for repo in [GitRepo::new(), GitRepo::sha256()] {
        let first = repo.commit(&[("a", "1")], "2026-01-01T00:00:00Z");
        repo.tag_light("v1");
        repo.tag_annotated("v2", "2026-01-02T00:00:00Z");
        repo.git(&["tag", "--annotate", "--message", "a tag of a tag", "v3", "v2"]);
        let object = |tag: &str| repo.git(&["rev-parse", &format!("refs/tags/{tag}")]);
        let (second, third) = (object("v2"), object("v3"));
        let expected = [format!("v1 {first}"), format!("v2 {second} {first}"), format!("v3 {third} {first}")];
        repo.git(&["update-server-info"]);
        let (http, files) = (SmartHttp::new(), StaticFiles::serve(&repo.git_dir(), "/a.git/"));
        let smart = http.serve("a.git", &repo);
        assert_eq!(natively(&smart).unwrap(), expected);
        let dumb = files.url();
        for url in [&smart, &repo.file_url(), dumb.trim_end_matches('/')] {
            assert_eq!(by_our_git(url), expected, "{url}");
        }
    }
}

#[test]
fn listing_of_250_000_annotated_tags_fits_both_ways() {
    let repo = GitRepo::program(&[]);
    repo.commit(&[], "2026-01-01T00:00:00Z");
    repo.tag_annotated("a", "2026-01-02T00:00:00Z");
    let (object, commit) = (repo.git(&["rev-parse", "refs/tags/a"]), repo.head());
    let lines = (0..250_000).map(|n| format!("{object} refs/tags/release-{n:06}.0\n^{commit}\n"));
    let text = format!("# pack-refs with: peeled fully-peeled sorted \n{}", lines.collect::<String>());
    fs::write(repo.git_dir().join("packed-refs"), text).unwrap();
    let natively = natively(&SmartHttp::new().serve("many.git", &repo)).unwrap();
    assert_eq!(natively.len(), 250_001);
    assert_eq!(natively[0], format!("a {object} {commit}"));
    assert!(natively == by_our_git(&repo.file_url()));
}

#[test]
fn listing_both_ways_gives_the_same_tags() {
    let http = SmartHttp::new();
    let repo = GitRepo::new();
    check_same(&http.serve("empty.git", &repo), 0);
    repo.commit(&[("a", "1")], "2026-01-01T00:00:00Z");
    let url = http.serve("all.git", &repo);
    check_same(&url, 0);
    for name in ["v1", "--help", "a/b/c", "v1.0-rc1+x", "é", "@", "refs/tags/v1", "heads/main", "v2.lockx"] {
        repo.tag_light(name);
    }
    repo.tag_annotated("annotated", "2026-01-02T00:00:00Z");
    repo.branch("v3");
    check_same(&url, 10);
    repo.git(&["pack-refs", "--all"]);
    repo.tag_light("after");
    check_same(&url, 11);
    check_same(&format!("{url}/"), 11);
    let repo = GitRepo::sha256();
    repo.commit(&[], "2026-01-01T00:00:00Z");
    repo.tag_light("v1");
    repo.tag_annotated("v2", "2026-01-02T00:00:00Z");
    check_same(&http.serve("sha256.git", &repo), 2);
}

#[test]
fn listing_of_a_hundred_thousand_tags_works() {
    let repo = GitRepo::program(&["1"]);
    repo.tag_many((0..100_000).map(|number| format!("n{number}")));
    check_same(&SmartHttp::new().serve("many.git", &repo), 100_001);
}

#[test]
fn listing_drops_names_that_git_refuses_both_ways() {
    let http = SmartHttp::new();
    let url = http.serve("odd.git", &GitRepo::program(&["1"]));
    let mut body = String::new();
    let names =
        ["tags/v1", "tags/a..b", "tags/x.lock", "tags/v1^{}", "tags/.a", "tags/", "tags/\u{7f}", "tags/b:c"];
    for name in
        names.into_iter().chain(["tags/a/b", "heads/v2", "tags//c", "tags/d.", "tags/e@{0}", "tags/f@"])
    {
        let line = format!("{:040x} refs/{name}\n", 1);
        write!(body, "{:04x}{line}", line.len() + 4).unwrap();
    }
    body.push_str("0000");
    http.fault_second("odd.git", Fault::Answer { content_type: RESULT.to_owned(), body: body.into_bytes() });
    // A ref named like a second line is one to git, and none to us.
    let names = |tags: Vec<String>| tags.iter().map(|tag| tag[..tag.find(' ').unwrap()].to_owned()).collect();
    let natively: Vec<String> = names(natively(&url).unwrap());
    assert_eq!(natively, ["v1", "a/b", "f@"]);
    assert_eq!((names(by_git(&url)), names(by_our_git(&url))), (natively.clone(), natively));
}

#[test]
fn ref_names_are_judged_as_git_does() {
    let pieces = [
        "a", ".", "..", "/", "@", "@{", ".lock", "-", "é", " ", "~", "^", ":", "?", "*", "[", "\\", "\t",
        "\u{7f}", "]", "{",
    ];
    let mut names: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    for first in pieces {
        for second in ["", "a", ".", "/", ".lock", "@"] {
            names.push(format!("{first}{second}b"));
            names.push(format!("b{first}{second}"));
        }
    }
    for name in names {
        let output = git_command(Path::new("/"))
            .args(["check-ref-format", &format!("refs/tags/{name}")])
            .output()
            .unwrap();
        assert_eq!(
            ref_name::is_valid(format!("tags/{name}").as_bytes()),
            output.status.success(),
            "{name:?}"
        );
    }
}

#[test]
fn listing_has_one_deadline_for_all_its_steps() {
    let home = tempfile::tempdir().unwrap();
    let git = home.path().join("bin/git");
    // Reading the settings takes long: the file below git's own prefix has some, so git must be
    // asked.
    fs::create_dir(home.path().join("bin")).unwrap();
    fs::create_dir(home.path().join("etc")).unwrap();
    fs::write(home.path().join("etc/gitconfig"), "[credential]\n").unwrap();
    let slow = b"#!/bin/sh\ncase \"$*\" in *--list*) : >\"$0.asked\"; exec sleep 2; esac\nexit 9\n";
    executable::write(&git, slow);
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"]));
    let limit = Duration::from_secs(1);
    let lister = Lister::new(Arc::new(Git::new(git.clone(), home.path().to_owned())), 1, limit);
    let begun = Instant::now();
    let error = lister.list_tags(&url.parse().unwrap(), &Interrupt::new().unwrap()).unwrap_err().reason;
    let took = begun.elapsed();
    assert!(git.with_extension("asked").exists(), "{error}");
    assert!(error.starts_with("no complete answer within "), "{error}");
    assert!(took >= limit, "{took:?}");
    // With a deadline for each step, the server would be asked, and answer.
    assert_eq!(http.requests(), []);
}

#[test]
fn listing_host_is_busy_git_leaves_it_alone_too() {
    let http = SmartHttp::new();
    let url = http.serve("a.git", &GitRepo::program(&["1"])).replace("//", "//user@");
    let git = Git::new(find_program("git").expect("git is on the PATH"), std::env::temp_dir());
    let lister = Lister::new(Arc::new(git), 1, LISTING_DEADLINE);
    // A broken repository must not make the host count as down.
    let pause = PollFault::Busy { pause: Duration::from_mins(1), redirected_to: None };
    for (code, expected) in
        [(429, pause), (503, PollFault::Other), (404, PollFault::Other), (500, PollFault::Other)]
    {
        http.fault("a.git", Fault::Status { code, retry_after: None });
        let error = lister.list_tags(&url.parse().unwrap(), &Interrupt::new().unwrap()).unwrap_err();
        assert_eq!(error.fault, expected, "{}", error.reason);
    }
}

#[test]
fn sweep_nothing_new_starts_no_git_and_few_connections() {
    let http = SmartHttp::new();
    let repo = GitRepo::program(&["1", "2"]);
    let mut farm = Farm::builder().program("git", NOTING_GIT).config_extra("");
    for number in 0..50 {
        let url = http.serve(&format!("r{number}.git"), &repo);
        farm = farm.with(&Recipe::program(&format!("r{number:02}"), &url).tag_pattern(NOTHING));
    }
    let farm = farm.build();
    let output = farm.run(&["--once", "--log-level", "debug"]);
    assert_eq!(output.assert_success().events("poll complete").len(), 50, "{output}");
    assert!(output.events("listing upstream").iter().all(|event| event["way"] == "native"), "{output}");
    assert!(!farm.path("git.log").exists(), "{}", fs::read_to_string(farm.path("git.log")).unwrap());
    assert_eq!(http.requests().len(), 50);
    assert!(http.connections() <= 8, "{} connections", http.connections());
    // Check that the stand-in records at all: git lists a file URL.
    farm.add(&Recipe::program("r00", &repo.file_url()).tag_pattern(NOTHING));
    farm.once().assert_success();
    assert!(fs::read_to_string(farm.path("git.log")).unwrap().contains("ls-remote"));
}
