//! The daemon from its start to its end: polls, reloads, and the socket that outlives them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use rustix::process::Signal;

use crate::support::client::{self, Connection};
use crate::support::farm::Farm;
use crate::support::git_repo::GitRepo;
use crate::support::latch::Latch;
use crate::support::logfmt::Event;
use crate::support::recipes::Recipe;
use crate::support::running::Running;
use crate::support::wait::{PATIENCE, wait_until};

/// Counts the events `message` about `recipe`.
fn about(events: &[Event], message: &str, recipe: &str) -> usize {
    let fits = |event: &&Event| event["msg"] == message && event.get("recipe").is_some_and(|id| id == recipe);
    events.iter().filter(fits).count()
}

#[track_caller]
fn reload(daemon: &mut Running) {
    let before = daemon.events().iter().filter(|event| event["msg"] == "recipe roster loaded").count();
    daemon.signal(Signal::HUP);
    daemon.wait_events("recipe roster loaded", before + 1, PATIENCE);
}

#[track_caller]
fn assert_healthy(addr: SocketAddr) {
    let answer = client::get(addr, "/healthz");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[test]
fn recipes_are_polled_at_the_start_and_again_after_sighup() {
    let repo = GitRepo::program(&["1.0"]);
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url())).build();
    let mut daemon = farm.daemon();
    let starting = daemon.wait_event("peipkg-manager starting", PATIENCE);
    assert_eq!((starting["farm_id"].as_str(), starting["mode"].as_str()), ("test-farm", "daemon"));
    daemon.wait_event("build + publish complete", PATIENCE);
    farm.assert_published(&["app 1.0-1 noarch"]);
    repo.add_versions(&["1.1"]);
    reload(&mut daemon);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    farm.assert_published(&["app 1.0-1 noarch", "app 1.1-1 noarch"]);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert_eq!(output.events("poll complete").len(), 2, "{output}");
    assert_eq!(output.events("starting build").len(), 2, "{output}");
    farm.assert_verifies();
    farm.assert_clean();
}

#[test]
fn sighup_adds_new_recipes_and_takes_dropped_ones_out_of_the_queue() {
    let (repo, latch) = (GitRepo::program(&["1", "2", "3"]), Latch::new());
    let url = repo.file_url();
    // The first version's build waits at the latch; the other recipe's three are queued behind it.
    let holder = Recipe::program("holder", &url).tag_pattern("^v(3)$").before_build(&latch.script());
    let farm = Farm::builder().with(&holder).with(&Recipe::program("other", &url)).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    wait_until("both recipes are polled", PATIENCE, || {
        client::status(addr)["queue"].as_array().unwrap().len() == 3
    });
    farm.remove_recipe("other");
    farm.add(&Recipe::program("added", &url).tag_pattern("^v(2)$"));
    reload(&mut daemon);
    wait_until("the new recipe is queued", PATIENCE, || {
        let status = client::status(addr);
        let queue = status["queue"].as_array().unwrap();
        status["recipes"] == serde_json::json!(["added", "holder"])
            && queue.len() == 1
            && queue[0] == serde_json::json!({"recipe": "added", "version": "2-1", "reason": "poll"})
    });
    assert_eq!(client::status(addr)["in_flight"]["recipe"], "holder");
    latch.open();
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert_eq!(output.events("starting build").len(), 2, "{output}");
    farm.assert_published(&["added 2-1 noarch", "holder 3-1 noarch"]);
}

#[test]
fn recipe_dropped_while_it_is_built_is_still_published() {
    let (repo, latch) = (GitRepo::program(&["1", "2"]), Latch::new());
    let recipe = Recipe::program("app", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    farm.remove_recipe("app");
    reload(&mut daemon);
    assert_eq!(client::status(addr)["queue"], serde_json::json!([]));
    latch.open();
    let end = |event: &Event| event["msg"] == "build + publish complete" || event["msg"] == "build failed";
    daemon.wait_for(PATIENCE, |events| events.iter().any(end));
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert_eq!(output.event("build + publish complete")["version"], "2-1");
    farm.assert_published(&["app 2-1 noarch"]);
}

#[test]
fn reload_recipe_is_broken_keeps_the_old_roster() {
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().with(&Recipe::program("good", &repo.file_url())).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    daemon.wait_event("build + publish complete", PATIENCE);
    farm.add(&Recipe::program("bad", &repo.file_url()).tag_pattern("("));
    farm.add(&Recipe::program("new", &repo.file_url()));
    daemon.signal(Signal::HUP);
    let refused = daemon.wait_event("reload refused, the current recipes stay", PATIENCE);
    assert_eq!(refused["level"], "error");
    assert!(refused["problem"].contains("recipes/bad/peipkg.toml"), "{refused:?}");
    assert_healthy(addr);
    assert_eq!(client::status(addr)["recipes"], serde_json::json!(["good"]));
    // Once the recipe is repaired, the next reload takes everything.
    farm.remove_recipe("bad");
    reload(&mut daemon);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    assert_eq!(client::status(addr)["recipes"], serde_json::json!(["good", "new"]));
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0).assert_only_events();
    farm.assert_published(&["good 1-1 noarch", "new 1-1 noarch"]);
}

#[test]
fn recipe_edited_without_a_reload_waits_for_it() {
    let (repo, latch) = (GitRepo::program(&["1.0", "1.1"]), Latch::new());
    // The build reads a file beside its script after the edit.
    let script = |text: &str| {
        let file = "\"$DESTDIR/usr/share/doc/app/helper\"";
        format!("cat \"$(dirname \"$0\")/helper\" >{file}\necho {text} >>{file}\n")
    };
    let recipe =
        Recipe::program("app", &repo.file_url()).before_build("mkdir -p \"$DESTDIR/usr/share/doc/app\"");
    let edited = recipe.script() + &script("edited");
    let original = recipe.script() + &latch.script() + &script("original");
    let farm = Farm::builder().recipe("app", &recipe.toml(), &original).build();
    let helper = farm.recipes_dir().join("app/helper");
    fs::write(&helper, "original\n").expect("a file of the recipe");
    let mut daemon = farm.daemon();
    latch.wait_reached();
    farm.write_recipe("app", &recipe.toml(), &edited);
    fs::write(&helper, "edited\n").expect("a file of the recipe");
    farm.add(&Recipe::program("bad", &repo.file_url()).tag_pattern("("));
    daemon.signal(Signal::HUP);
    daemon.wait_event("reload refused, the current recipes stay", PATIENCE);
    latch.open();
    let waits = daemon.wait_event("recipe changed, waiting for a reload", PATIENCE);
    assert_eq!(waits["recipe"], "app");
    daemon.wait_event("build + publish complete", PATIENCE);
    farm.assert_published(&["app 1.1-1 noarch"]);
    farm.remove_recipe("bad");
    daemon.signal(Signal::HUP);
    daemon.wait_events("build + publish complete", 2, PATIENCE);
    daemon.signal(Signal::TERM);
    daemon.wait_exit(PATIENCE).assert_code(0).assert_only_events();
    let helper = |version| farm.package("app", version).text("usr/share/doc/app/helper");
    assert_eq!(["1.1-1", "1.0-1"].map(helper), ["original\noriginal\n", "edited\nedited\n"]);
    farm.assert_clean();
}

#[test]
fn reload_a_hundred_times_during_a_build_loses_nothing() {
    const RECIPES: usize = 300;
    const UPSTREAMS: usize = 10;
    let latch = Latch::new();
    let built = GitRepo::program(&["1"]);
    // Their tags match no recipe: the manager polls them and builds nothing.
    let upstreams: Vec<GitRepo> = (0..UPSTREAMS)
        .map(|_| {
            let repo = GitRepo::new();
            repo.commit(&[], "2026-01-01T00:00:00Z");
            repo.tag_light("other");
            repo
        })
        .collect();
    let cheap = |number: usize| {
        Recipe::program(&format!("cheap-{number:03}"), &upstreams[number % UPSTREAMS].file_url())
    };
    let slow = Recipe::program("slow", &built.file_url()).before_build(&latch.script());
    let queued = Recipe::program("queued", &built.file_url());
    let farm = Farm::builder().with(&slow).with(&queued).http().build();
    (0..RECIPES).for_each(|number| farm.add(&cheap(number)));
    // The order of the polls decides which of the two is built first, so both wait at the latch.
    farm.add(&queued.clone().before_build(&latch.script()));
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    for round in 0..100 {
        daemon.signal(Signal::HUP);
        if round == 30 {
            farm.remove_recipe("cheap-007");
            farm.add(&Recipe::program("added", &built.file_url()));
        }
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(connection.receive(false).unwrap().status, 200);
    }
    wait_until("the last reload is done", PATIENCE, || {
        let status = client::status(addr);
        let recipes = status["recipes"].as_array().unwrap();
        recipes.len() == RECIPES + 2
            && recipes[0] == "added"
            && !recipes.contains(&"cheap-007".into())
            && status["queue"].as_array().unwrap().len() == 2
            && status["polls"].as_object().unwrap().values().all(|poll| !poll["next_poll"].is_null())
    });
    latch.open();
    daemon.wait_events("build + publish complete", 3, PATIENCE);
    let added = |events: &[Event]| about(events, "poll complete", "added") > 0;
    daemon.wait_for(PATIENCE, added);
    daemon.signal(Signal::TERM);
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0).assert_only_events();
    assert_eq!(output.events("starting build").len(), 3, "a version was not built exactly once");
    farm.assert_published(&["added 1-1 noarch", "queued 1-1 noarch", "slow 1-1 noarch"]);
    for number in 0..RECIPES {
        let polls = about(&output.all_events(), "poll complete", &format!("cheap-{number:03}"));
        assert!(polls > 0, "cheap-{number:03} was never polled");
    }
}

#[test]
fn port_taken_is_one_clear_line() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let repo = GitRepo::program(&["1"]);
    let farm = Farm::builder().with(&Recipe::program("app", &repo.file_url())).http_on(&addr).build();
    let output = farm.run(&[]);
    output.assert_code(1);
    let plain = crate::support::logfmt::plain_lines(&output.stderr);
    assert_eq!(plain.len(), 1, "{output}");
    assert!(plain[0].starts_with("peipkg-manager: ") && plain[0].contains(&addr), "{output}");
    assert!(plain[0].contains("in use"), "{output}");
    assert!(output.events("polling upstream").is_empty(), "the manager polled before it had its port");
}

#[test]
fn address_without_host_serves_both_ip_versions() {
    for addr in [":0", "[::]:0"] {
        let farm = Farm::builder().http_on(addr).build();
        let mut daemon = farm.daemon();
        let port = daemon.http_addr().port();
        assert_healthy(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // A machine without IPv6 serves IPv4 alone.
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            assert_healthy(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        }
        daemon.signal(Signal::TERM);
        daemon.wait_exit(PATIENCE).assert_code(0);
    }
}

#[test]
fn http_while_draining_answers_and_its_port_is_free_afterwards() {
    let (repo, latch) = (GitRepo::program(&["1"]), Latch::new());
    let recipe = Recipe::program("app", &repo.file_url()).before_build(&latch.script());
    let farm = Farm::builder().with(&recipe).http().build();
    let mut daemon = farm.daemon();
    let addr = daemon.http_addr();
    latch.wait_reached();
    let mut connection = Connection::open(addr, PATIENCE).unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_event("stopping after the build in progress", PATIENCE);
    assert_healthy(addr);
    assert_eq!(client::status(addr)["in_flight"]["recipe"], "app");
    // Neither a reload nor an open connection disturbs the drain.
    daemon.signal(Signal::HUP);
    daemon.wait_events("recipe roster loaded", 2, PATIENCE);
    latch.open();
    let output = daemon.wait_exit(PATIENCE);
    output.assert_code(0);
    assert_eq!(output.events("poll complete").len(), 1, "the manager polled while draining\n{output}");
    assert!(connection.is_closed());
    assert!(TcpStream::connect_timeout(&addr, PATIENCE).is_err());
    let text = fs::read_to_string(farm.config_path()).unwrap();
    fs::write(farm.config_path(), text.replace("127.0.0.1:0", &addr.to_string())).unwrap();
    let mut second = farm.daemon();
    assert_eq!(second.http_addr(), addr);
    assert_healthy(addr);
    second.signal(Signal::TERM);
    second.wait_exit(PATIENCE).assert_code(0);
}

#[test]
fn second_manager_is_refused_and_the_first_goes_on() {
    let farm = Farm::builder().http().build();
    let mut first = farm.daemon();
    let addr = first.http_addr();
    farm.run(&[]).assert_code(1);
    farm.once().assert_code(1);
    assert_healthy(addr);
    first.signal(Signal::TERM);
    first.wait_exit(PATIENCE).assert_code(0);
}
