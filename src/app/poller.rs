//! The poller threads: each runs one listing at a time. They must not decide what to list, or when.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::app::message::Message;
use crate::farm::events::{Event, PollError};
use crate::process::Interrupt;
use crate::recipe::upstream_url::UpstreamUrl;
use crate::upstream::listing::Lister;

/// Starts `count` poller threads. They list the upstreams from `requests`, answer with
/// [`Event::PollFinished`], and end when `requests` is closed.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(
    count: usize,
    lister: &Arc<Lister>,
    requests: &Receiver<UpstreamUrl>,
    answers: &Sender<Message>,
    interrupt: &Interrupt,
) -> io::Result<()> {
    let start_one = |number| {
        let (lister, requests, answers) = (lister.clone(), requests.clone(), answers.clone());
        let interrupt = interrupt.clone();
        thread::Builder::new().name(format!("poller-{number}")).spawn(move || {
            for upstream in requests {
                let (tags, target) = match lister.list(&upstream, &interrupt) {
                    Ok(found) => (Ok(found.tags), found.redirected_to),
                    Err(error) => {
                        (Err(PollError { reason: upstream.secrets().redact(&error.reason), ..error }), None)
                    }
                };
                // Sending fails only at the end of the process.
                if let Some(target) = target {
                    let upstream = upstream.clone();
                    let _ = answers.send(Event::RedirectFollowed { upstream, target }.into());
                }
                let _ = answers.send(Event::PollFinished { upstream, tags }.into());
            }
        })
    };
    (0..count).try_for_each(|number| start_one(number).map(drop))
}
