//! Counts the bytes that the core holds for each recipe.

use std::cell::RefCell;
use std::time::SystemTime;

use allocation_counter::measure;

use super::*;
use crate::farm::status::{Calendar, Status};

/// How many recipes are loaded. The hash tables of the core are as full as with 10,000.
const RECIPES: usize = 1250;

/// The most bytes that one recipe with an upstream of its own may hold, after a poll.
const HELD: u64 = 1000;

/// Parses recipes that share nothing: each has an upstream and a pattern of its own.
fn load(recipes: usize) -> Vec<Recipe> {
    let parse = |n: usize| {
        let id = format!("recipe-{n:05}");
        let text = format!(
            "[meta]\nlicense = \"MIT\"\nbuild_script = \"build.sh\"\n[[package]]\nname = \"{id}\"\n\
             architecture = \"noarch\"\ndescription = \"Something to measure\"\nfiles = [\"usr/share/**\"]\n\
             [upstream]\ngit = \"https://git.example.org/group-{:02}/{id}.git\"\n\
             tag_pattern = '^{id}-(\\d+(?:\\.\\d+)*)$'\n",
            n % 100
        );
        let dir = Path::new("/etc/peipkg-manager/recipes").join(&id);
        Recipe::parse(&id, &dir, &text, n as u64, &mut Vec::new()).unwrap()
    };
    (0..recipes).map(parse).collect()
}

/// Lists every upstream whose poll is due; nothing is new.
fn poll(bench: &mut Bench) -> usize {
    let mut polled = 0;
    loop {
        let start = |effect| match effect {
            Effect::StartPoll(upstream) => Some(upstream),
            _ => None,
        };
        let upstreams: Vec<UpstreamUrl> = bench.effects.drain(..).filter_map(start).collect();
        if upstreams.is_empty() {
            return polled;
        }
        for upstream in upstreams {
            let name = upstream.secret_text().rsplit('/').next().unwrap().trim_end_matches(".git");
            let tags = Ok([format!("{name}-1.0")].iter().collect());
            polled += 1;
            bench.event(Event::PollFinished { upstream, tags });
        }
    }
}

/// The most bytes that a recipe takes in a snapshot, and while that becomes a document.
const SHOWN: u64 = 160;
const WRITTEN: u64 = 270;

#[test]
fn recipe_polled_holds_few_bytes() {
    let ids = || (0..RECIPES).map(|n| format!("recipe-{n:05}"));
    let bench = RefCell::new(Bench::new(false, Vec::new()));
    let published: Vec<String> = ids().collect();
    let published: Vec<(&str, &str)> = published.iter().map(|id| (&**id, "1.0-1")).collect();
    bench.borrow_mut().event(Event::ArchiveRead(Ok(archive(&published))));
    bench.borrow_mut().effects = Vec::new();
    let held = measure(|| {
        let mut bench = bench.borrow_mut();
        let recipes = load(RECIPES);
        bench.event(loaded(recipes));
        assert_eq!(poll(&mut bench), RECIPES);
        assert_eq!(bench.farm.queue.len(), 0);
        bench.effects = Vec::new();
    });
    let held = u64::try_from(held.bytes_current).unwrap() / RECIPES as u64;
    assert!(held <= HELD, "{held} bytes for each recipe");
    let calendar = Calendar { started: SystemTime::UNIX_EPOCH };
    let mut status = Status::default();
    let shown = measure(|| status = bench.borrow().farm.status(&"farm".into(), calendar));
    let written = measure(|| drop(status.to_json()));
    assert_eq!(status.polls.values().count(), RECIPES);
    for (bytes, most) in [(shown.bytes_max, SHOWN), (written.bytes_max, WRITTEN)] {
        let each = bytes / RECIPES as u64;
        assert!(each <= most, "{each} bytes for each recipe of a snapshot");
    }
}
