//! The files of the browse site that peipkg-repo writes beside the indexes: which, when, and that
//! they are never in the way. `tests/browser` looks at them in a browser.

mod repo_support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use repo_support::{Farm, SEED, TIME, check};

const FILES: [&str; 5] =
    ["assets/browse.css", "assets/browse.js", "assets/browse.svg", "feed.xml", "index.html"];

fn read(farm: &Farm, name: &str) -> String {
    fs::read_to_string(farm.repo().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn site_is_written_by_init_and_by_each_publish() {
    let farm = Farm::new();
    let fingerprint = names(&farm.repo().join("keys"))[0].replace(".pub", "");
    let page = read(&farm, "index.html");
    assert!(page.contains(&format!("peipkg repo add farm ADDRESS \\\n    --anchor {fingerprint}")), "{page}");
    assert!(page.contains("Index version <span id=\"index-version\">1</span>"), "{page}");
    farm.publish_all(&["aa 1-1 noarch", "bb 2-1 x86_64"]);
    let (page, feed) = (read(&farm, "index.html"), read(&farm, "feed.xml"));
    for name in ["aa", "bb"] {
        assert!(page.contains(&format!("<bdi class=\"name\">{name}</bdi>")), "{page}");
    }
    assert!(feed.contains("index.html#/p/aa/1-1/noarch") && feed.contains("#/p/bb/2-1/x86_64"), "{feed}");
    assert!(page.contains("<span id=\"index-version\">2</span>"), "{page}");
    assert!(page.contains("href=\"p/bb/2-1/bb_2-1_x86_64.peipkg\""), "{page}");
    for name in FILES {
        assert!(
            fs::metadata(farm.repo().join(name)).unwrap().permissions().mode() & 0o444 == 0o444,
            "{name}"
        );
    }
    assert_eq!(
        names(&farm.repo()),
        ["assets", "feed.xml", "index", "index.html", "keys", "p", "repo.json", "repo.json.sig"]
    );
    check(&farm.verify(), 0, "");
}

#[test]
fn site_of_the_same_publish_has_the_same_bytes() {
    let files = || {
        let farm = Farm::new();
        farm.publish_all(&["aa 1-1 noarch", "bb 2-1 x86_64"]);
        FILES.map(|name| read(&farm, name))
    };
    assert_eq!(files(), files());
}

/// A mirror that compares times would copy it again.
#[test]
fn unchanged_file_of_the_site_is_not_written_anew() {
    let farm = Farm::new();
    let written = |name: &str| {
        let metadata = fs::metadata(farm.repo().join(name)).unwrap();
        (metadata.ino(), metadata.modified().unwrap())
    };
    let before = FILES.map(written);
    fs::write(farm.repo().join("assets/browse.svg"), "<svg/>").unwrap();
    farm.publish_all(&["aa 1-1 noarch"]);
    for (name, before) in FILES.into_iter().zip(before) {
        let is_fixed = ["assets/browse.css", "assets/browse.js"].contains(&name);
        assert_eq!(written(name) == before, is_fixed, "{name}");
    }
    assert!(read(&farm, "assets/browse.svg").len() > 10, "an icon of another program is replaced");
}

#[test]
fn site_is_left_out_and_left_alone_if_asked() {
    let farm = Farm::new();
    let init =
        ["init", "--name", "n", "--sign-key", "KEY", "--timestamp", TIME, "--out", "bare", "--no-site"];
    check(&farm.run(&init), 0, "");
    assert_eq!(names(&farm.path("bare")), ["index", "keys", "repo.json", "repo.json.sig"]);
    fs::write(farm.repo().join("index.html"), "of others").unwrap();
    fs::remove_file(farm.repo().join("feed.xml")).unwrap();
    farm.add("aa", "1-1", "noarch");
    check(&farm.run(&[&Farm::PUBLISH[..], &["--no-site"]].concat()), 0, "");
    assert_eq!(read(&farm, "index.html"), "of others");
    assert!(!farm.repo().join("feed.xml").exists());
    // Without the flag, the site replaces that page.
    farm.publish_all(&["aa 2-1 noarch"]);
    assert!(read(&farm, "index.html").contains("2-1"));
    check(&farm.run(&["verify", "--repo", "REPO", "--no-site"]), 2, "unknown flag --no-site");
}

/// Something else in the place of a file or directory of the site.
enum Odd {
    Directory,
    File,
    Link,
}

#[test]
fn site_that_cannot_be_written_does_not_fail_the_publish() {
    let farm = Farm::new();
    let in_the_way = [
        ("index.html", Odd::Directory),
        ("index.html", Odd::Link),
        ("feed.xml", Odd::Link),
        ("assets/browse.js", Odd::Link),
        ("assets", Odd::File),
        ("assets", Odd::Link),
    ];
    for (number, (path, odd)) in in_the_way.into_iter().enumerate() {
        let elsewhere = farm.path(&format!("elsewhere-{number}"));
        if path == "assets" {
            fs::create_dir(&elsewhere).unwrap();
        } else {
            fs::write(&elsewhere, "of others").unwrap();
        }
        let path = farm.repo().join(path);
        let kept = farm.path("kept");
        fs::rename(&path, &kept).unwrap();
        match odd {
            Odd::Directory => fs::create_dir(&path).unwrap(),
            Odd::File => fs::write(&path, "of others").unwrap(),
            Odd::Link => std::os::unix::fs::symlink(&elsewhere, &path).unwrap(),
        }
        let site = || FILES.map(|name| fs::read(farm.repo().join(name)).ok());
        let before = site();
        farm.clear();
        farm.add("aa", &format!("{}-1", number + 1), "noarch");
        let output = farm.publish();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let note = String::from_utf8(output.stderr).unwrap();
        let expected = format!("peipkg-repo: note: published, but {}: is not a ", path.display());
        assert!(note.starts_with(&expected) && note.lines().count() == 1, "{note}");
        assert!(names(&farm.repo()).iter().all(|name| !name.starts_with('.')), "{:?}", names(&farm.repo()));
        assert!(site() == before, "{} was no obstacle", path.display());
        if elsewhere.is_dir() {
            assert_eq!(names(&elsewhere), [""; 0]);
        } else {
            assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "of others");
        }
        match odd {
            Odd::Directory => fs::remove_dir(&path).unwrap(),
            Odd::File | Odd::Link => fs::remove_file(&path).unwrap(),
        }
        fs::rename(&kept, &path).unwrap();
    }
    check(&farm.verify(), 0, "");
    // The next publish makes up for it.
    farm.publish_all(&["aa 9-1 noarch"]);
    assert!(read(&farm, "index.html").contains("9-1") && read(&farm, "feed.xml").contains("9-1"));
}

#[test]
fn site_leaves_other_files() {
    let farm = Farm::new();
    fs::write(farm.repo().join("assets/logo.png"), "logo").unwrap();
    fs::write(farm.repo().join("robots.txt"), "robots").unwrap();
    farm.publish_all(&["aa 1-1 noarch"]);
    assert_eq!(
        (read(&farm, "assets/logo.png").as_str(), read(&farm, "robots.txt").as_str()),
        ("logo", "robots")
    );
}

#[test]
fn files_of_others_are_carried_over_to_another_directory() {
    let farm = Farm::new();
    let put = |name: &str, text: &str| {
        let path = farm.repo().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for name in ["robots.txt", "CNAME", "assets/logo.png", ".hidden", "notes/text", "repo.json.gz"] {
        put(name, "old");
    }
    std::os::unix::fs::symlink("/etc/hostname", farm.repo().join("linked")).unwrap();
    let mut arguments = Farm::PUBLISH;
    arguments[10] = "next";
    farm.add("aa", "1-1", "noarch");
    check(&farm.run(&arguments), 0, "");
    let next = farm.path("next");
    let expected = [
        "CNAME",
        "assets",
        "feed.xml",
        "index",
        "index.html",
        "keys",
        "p",
        "repo.json",
        "repo.json.gz",
        "repo.json.sig",
        "robots.txt",
    ];
    assert_eq!(names(&next), expected);
    assert_eq!(names(&next.join("assets")), ["browse.css", "browse.js", "browse.svg", "logo.png"]);
    assert!(fs::read_to_string(next.join("feed.xml")).unwrap().contains("#/p/aa"));
    // Each is a file of its own, and one that is there already stays.
    fs::write(next.join("CNAME"), "new").unwrap();
    put("robots.txt", "changed");
    check(&farm.run(&arguments), 0, "");
    let text = |name: &str| fs::read_to_string(next.join(name)).unwrap();
    assert_eq!((text("CNAME").as_str(), text("robots.txt").as_str()), ("new", "old"));
    assert_eq!(read(&farm, "CNAME"), "old");
    // Nothing is written through a link, nor read.
    fs::rename(next.join("assets"), farm.path("moved")).unwrap();
    fs::remove_file(farm.path("moved/logo.png")).unwrap();
    std::os::unix::fs::symlink(farm.path("moved"), next.join("assets")).unwrap();
    let output = farm.run(&arguments);
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && note.contains("assets: is not a directory"), "{note}");
    assert!(!farm.path("moved/logo.png").exists());
    check(&farm.run(&["verify", "--repo", "next"]), 0, "");
}

/// A reader gets each file as it was or as it is, whenever it asks.
#[test]
fn site_read_during_publishes_is_never_half() {
    let farm = Farm::new();
    let done = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(read(&farm, "index.html").ends_with("</html>\n"));
                assert!(read(&farm, "feed.xml").ends_with("</feed>\n"));
                assert!(read(&farm, "assets/browse.js").ends_with("browse();\n"));
                reads += 1;
            }
            reads
        });
        for version in 1..=20 {
            farm.publish_all(&[&format!("aa {version}-1 noarch")]);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > 20, "the reader was too slow to see anything: {reads}");
}

/// Another tool may have signed an index with anything in it.
#[test]
fn entries_of_another_tool_do_not_fail_the_site() {
    use sha2::Digest as _;
    let farm = Farm::new();
    farm.publish_all(&["aa 1-1 noarch"]);
    let odd = r#"{"name":"<b>","version":"1-1","architecture":"noarch","description":7,"license":null,"build":[],
                  "homepage":"javascript:x","size_compressed":-1,"url":"//x/y"}"#;
    for kind in ["active", "archive"] {
        let mut index = farm.index(kind);
        index["packages"].as_array_mut().unwrap().insert(0, serde_json::from_str(odd).unwrap());
        let bytes = index.to_string();
        let path = farm.repo().join(format!("index/{kind}.json"));
        fs::write(&path, &bytes).unwrap();
        let envelope = repo_support::envelope(SEED, &sha2::Sha256::digest(&bytes));
        fs::write(path.with_extension("json.sig"), envelope.to_string()).unwrap();
    }
    farm.publish_all(&["aa 2-1 noarch"]);
    let page = read(&farm, "index.html");
    assert!(page.contains("<bdi class=\"name\">&lt;b&gt;</bdi>") && !page.contains("javascript:"), "{page}");
}
